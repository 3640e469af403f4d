"""Prefixes, timestamps, JSON: every line is attributed to who wrote it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.logs.reader import Block, GrowingFile, Times
from phalanx.controller.logs.show import Look, Shower, auto_prefix, json_lines, raw, tag_of
from phalanx.controller.logs.sources import Source

SOURCE = Source("logs/node1/rank3.err", "node1", "demo", "main", 3, "err")


def local(source: Source) -> int:
    return source.rank % 2


def shown(data: bytes, look: Look | None = None, times: Times | None = None, begins: bool = True) -> bytes:
    return Shower(look or Look("both"), local).plain(SOURCE, Block(0, data, begins), times or Times())


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("none", b"a\nb\n"),
        ("host", b"node1: a\nnode1: b\n"),
        ("rank", b"3: a\n3: b\n"),
        ("both", b"node1/1: a\nnode1/1: b\n"),
        ("{node}.{rank}.{stream}> ", b"node1.3.stderr> a\nnode1.3.stderr> b\n"),
    ],
)
def test_each_line_has_its_prefix(prefix: str, expected: bytes) -> None:
    assert shown(b"a\nb\n", Look(prefix)) == expected


def test_what_runs_once_per_node_is_tagged_with_its_node() -> None:
    assert tag_of("both", Source("", "node1", "demo", "pre-1", -1, "out"), -1) == "node1"


def test_an_unfinished_last_line_is_finished_for_show() -> None:
    assert shown(b"a\nb") == b"node1/1: a\nnode1/1: b\n"


def test_on_a_terminal_tags_line_up_and_standard_error_is_marked() -> None:
    assert shown(b"a\n", Look("both", tty=True, width=9)) == "node1/1   !│ a\n".encode()
    assert shown(b"a\n", Look("both", tty=True, width=9, unicode=False)) == b"node1/1   !| a\n"


@given(st.binary(min_size=1))
def test_no_line_can_pose_as_the_line_of_another(data: bytes) -> None:
    for line in shown(data).removesuffix(b"\n").split(b"\n"):
        assert line.startswith(b"node1/1: ")


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")))))
def test_taking_the_prefix_away_gives_the_text_back(lines: list[str]) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    if data:
        assert shown(data).replace(b"\nnode1/1: ", b"\n").removeprefix(b"node1/1: ") == data


def test_a_forged_prefix_and_forged_json_stay_text_of_their_writer() -> None:
    forged = b'node9/0: hello\n{"v":1,"node":"node9","rank":0,"line":"x"}\n'
    assert all(line.startswith(b"node1/1: ") for line in shown(forged).splitlines())
    render = json_lines("run", local)
    documents = [json.loads(line) for line in render(SOURCE, Block(0, forged, True), Times()).splitlines()]
    assert [(one["node"], one["rank"], one["lrank"]) for one in documents] == [("node1", 3, 1)] * 2
    assert "\n".join(one["line"] for one in documents).encode() + b"\n" == forged


def test_json_gives_offset_time_and_every_byte_that_is_text() -> None:
    render = json_lines("run", local)
    block = Block(100, b"one\r\ntwo\xff\nhalf", True)
    documents = [json.loads(line) for line in render(SOURCE, block, Times((0, 105), (1.0, 2.5))).splitlines()]
    assert [one["off"] for one in documents] == [100, 105, 110]
    assert [one["line"] for one in documents] == ["one\r", "two\\xff", "half"]
    assert [one["partial"] for one in documents] == [False, False, True]
    assert [one["ts"] for one in documents] == ["1970-01-01T00:00:01.000Z", *["1970-01-01T00:00:02.500Z"] * 2]
    assert documents[0]["stream"] == "stderr"


def test_raw_gives_the_bytes() -> None:
    assert raw(SOURCE, Block(0, b"\x1b[31m\xff", True), Times()) == b"\x1b[31m\xff"


def test_a_line_has_the_time_at_which_its_first_byte_came() -> None:
    times = Times((0, 4, 6), (10.0, 20.0, 30.0))
    expected = (
        b"1970-01-01T00:00:10.000Z node1: aa\n"
        b"1970-01-01T00:00:10.000Z node1: bbb\n"
        b"1970-01-01T00:00:30.000Z node1: c\n"
    )
    assert shown(b"aa\nbbb\nc\n", Look("host", timestamps=True), times) == expected


def test_the_rest_of_a_line_that_was_cut_is_not_shown_again() -> None:
    assert shown(b"rest\nnext\n", begins=False) == b"node1/1: next\n"
    assert shown(b"still the same line", begins=False) == b""


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([], "none"),
        ([("c", "n1", 0)], "none"),
        ([("a", "n1", 0), ("b", "n1", 0)], "none"),
        ([("c", "n1", 0), ("c", "n2", 1)], "host"),
        ([("a", "n1", 0), ("a", "n2", 1), ("b", "n2", 0)], "host"),
        ([("c", "n1", 0), ("c", "n1", 1)], "both"),
    ],
)
def test_the_prefix_is_as_long_as_it_must_be(ranks: list[tuple[str, str, int]], expected: str) -> None:
    assert auto_prefix(ranks) == expected


def test_plain_prefixing_does_a_hundred_megabytes_in_a_second(tmp_path: Path) -> None:
    line = b"step 412 of 560  loss 1.8321  1853.2 tok/s  grad norm 0.31  all is well here\n"
    path = tmp_path / "rank0.out"
    path.write_bytes(line * (64_000_000 // len(line)))
    shower = Shower(Look("both"), local)
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        out = sum(len(shower.plain(SOURCE, block, Times())) for block in GrowingFile(path).blocks(final=True))
        best = max(best, path.stat().st_size / (time.perf_counter() - began))
        assert out > path.stat().st_size
    assert best > 100e6, f"{best / 1e6:.0f} MB/s"


def test_dshbak_style_tags_group_by_node_and_local_rank() -> None:
    """The pattern with which dshbak takes a tag: up to the first colon."""
    tags = {line.split(b":", 1)[0] for line in shown(b"a: b\nc\n").splitlines()}
    assert tags == {b"node1/1"}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("none", b"demo: a\n"),
        ("host", b"demo:node1: a\n"),
        ("both", b"demo:node1/1: a\n"),
        ("{case}@{node}> ", b"demo@node1> a\n"),
    ],
)
def test_where_several_cases_run_at_once_a_line_names_its_case(prefix: str, expected: bytes) -> None:
    assert shown(b"a\n", Look(prefix, cases=True)) == expected
