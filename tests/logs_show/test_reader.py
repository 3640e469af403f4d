"""Log files read while they grow: whole lines, each byte once, whatever the pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.logs.reader import (
    HOLD,
    GrowingFile,
    Times,
    line_start,
    read_times,
    tail_offset,
)


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_every_byte_comes_once_and_in_order_however_the_file_grows(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("log") / "rank0.out"
    file = GrowingFile(path)
    seen = []
    for piece in pieces:
        with path.open("ab") as out:
            out.write(piece)
        seen += list(file.blocks())
        assert all(block.data.endswith(b"\n") for block in seen)
    seen += list(file.blocks(final=True))
    assert b"".join(block.data for block in seen) == b"".join(pieces)
    place = 0
    for block in seen:
        assert block.offset == place
        place += len(block.data)


def test_only_durable_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rank0.out"
    path.write_bytes(b"one\ntwo\n")
    file = GrowingFile(path)
    assert [block.data for block in file.blocks(size=4)] == [b"one\n"]
    assert [block.data for block in file.blocks(size=8)] == [b"two\n"]


def test_a_line_without_an_end_is_given_out_in_parts_that_do_not_begin_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rank0.out"
    path.write_bytes(b"x" * (HOLD + 1))
    file = GrowingFile(path)
    first = list(file.blocks())
    with path.open("ab") as out:
        out.write(b"y\nnext\n")
    second = list(file.blocks())
    assert [(len(block.data), block.begins) for block in first] == [(HOLD + 1, True)]
    assert [(block.data, block.begins) for block in second] == [(b"y\nnext\n", False)]


def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert list(GrowingFile(tmp_path / "none").blocks(final=True)) == []
    assert tail_offset(tmp_path / "none", 3) == 0
    assert line_start(tmp_path / "none", 3) == 0
    assert read_times(tmp_path / "none") == Times()


@given(
    st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    st.integers(0, 35),
)
def test_the_tail_of_a_file_is_its_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], count: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "rank0.out"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    tail = path.read_bytes()[tail_offset(path, count) :]
    assert tail == b"".join(line + b"\n" for line in lines[max(0, len(lines) - count) :])


def test_a_last_line_without_an_end_counts_as_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rank0.out"
    path.write_bytes(b"a\nb\nhalf")
    assert path.read_bytes()[tail_offset(path, 2) :] == b"b\nhalf"


def test_the_tail_of_a_large_file_is_found_across_steps(tmp_path: Path) -> None:
    path = tmp_path / "rank0.out"
    path.write_bytes(b"".join(b"line %07d\n" % number for number in range(50_000)))
    assert path.read_bytes()[tail_offset(path, 20_000) :].startswith(b"line 0030000\n")


def test_times_tell_what_came_since_and_when_a_byte_came(tmp_path: Path) -> None:
    path = tmp_path / "rank0.out"
    path.with_name("rank0.out.times").write_text("0 10.5\n100 20.0\nbroken\n250 30.0\n4")
    times = read_times(path)
    assert times == Times((0, 100, 250), (10.5, 20.0, 30.0))
    assert [times.since(moment, 300) for moment in (5.0, 10.6, 20.0, 31.0)] == [0, 100, 100, 300]
    assert [times.at(offset) for offset in (0, 99, 100, 999)] == [10.5, 10.5, 20.0, 30.0]


def test_without_times_everything_counts_as_recent() -> None:
    assert Times().since(99.0, 300) == 0
    assert Times().at(5) is None


@pytest.mark.parametrize(("offset", "start"), [(0, 0), (1, 4), (4, 4), (5, 8), (8, 8)])
def test_showing_begins_with_a_whole_line(tmp_path: Path, offset: int, start: int) -> None:
    path = tmp_path / "rank0.out"
    path.write_bytes(b"one\ntwo\n")
    assert line_start(path, offset) == start
