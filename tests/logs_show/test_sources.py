"""The place of a log file says whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from phalanx.controller.logs.paths import StreamName, log_path
from phalanx.controller.logs.sources import Selection, Source, find, parse


@pytest.mark.parametrize(
    ("case", "step", "rank", "output"),
    [
        ("demo", "main", 0, "out"),
        ("demo", "main", 691, "err"),
        ("demo", "main", -1, "out"),
        ("demo", "pre-1", 3, "out"),
        ("demo", "post-2", -1, "err"),
        ("demo", "exec-12", -1, "out"),
    ],
)
@pytest.mark.parametrize("single", [True, False])
def test_a_path_is_read_as_it_was_made(case: str, step: str, rank: int, output: str, single: bool) -> None:
    path = str(log_path(StreamName("node1", case, step, rank, output), single_case=single))
    assert parse(path, only_case=case if single else "") == Source(path, "node1", case, step, rank, output)


@pytest.mark.parametrize(
    "path",
    [
        "logs/controller.log",
        "logs/node1/agent.log",
        "logs/node1/rank0.out.times",
        "events.jsonl",
        "logs/a/b/c/d.out",
    ],
)
def test_other_files_are_nobodys_output(path: str) -> None:
    assert parse(path) is None


def test_files_are_found_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    for name in (
        "node10/rank9.out",
        "node2/rank10.out",
        "node2/rank9.err",
        "node2/rank9.out",
        "node2/agent.log",
    ):
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    assert list(find(tmp_path).items()) == [
        ("logs/node2/rank9.err", 5),
        ("logs/node2/rank9.out", 5),
        ("logs/node2/rank10.out", 5),
        ("logs/node10/rank9.out", 5),
    ]


def test_a_link_out_of_the_log_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "logs" / "node1").mkdir(parents=True)
    (tmp_path / "logs" / "node1" / "rank0.out").symlink_to(tmp_path / "secret")
    assert find(tmp_path) == {}


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), True),
        (Selection(nodes=frozenset({"node1"})), True),
        (Selection(nodes=frozenset({"node2"})), False),
        (Selection(ranks=(range(3, 5),)), True),
        (Selection(ranks=(range(4, 5),)), False),
        (Selection(step="pre-1"), False),
        (Selection(case="demo", output="err"), True),
        (Selection(output="out"), False),
    ],
)
def test_a_selection_takes_what_was_asked_for(selection: Selection, taken: bool) -> None:
    assert selection.takes(Source("", "node1", "demo", "main", 3, "err")) is taken


@pytest.mark.parametrize("step", ["exec-1", "diagnostics"])
def test_what_exec_and_diagnostics_wrote_is_shown_only_when_asked_for(step: str) -> None:
    source = Source("", "node1", "demo", step, -1, "out")
    assert not Selection().takes(source)
    assert Selection(step=step).takes(source)
