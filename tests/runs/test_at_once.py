"""What is seen of a run whose cases run at once: every line says of which case it is."""

from __future__ import annotations

from phalanx.controller.fleet import events as ev
from phalanx.controller.runs import changes
from phalanx.controller.runs.ending import ending
from phalanx.controller.runs.evidence import Evidence
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.screen import progress
from phalanx.controller.runs.view import fold
from phalanx.controller.runs.words import Style

from .stories import RUN, START, names, recorded, running, started

CASES = tuple(f"case{number}" for number in range(7))
NOW = START + 60


def at_once(*more: ev.Event) -> RunView:
    first, *others = started(2, CASES)
    assert isinstance(first, ev.RunStarted)
    begun = ev.RunStarted(first.name, first.target, first.nodes, first.cases, 1, parallel=6)
    return fold(recorded([begun, *others, *more]), RUN)


def case(name: str, gpus: tuple[int, ...] = ()) -> list[ev.Event]:
    return [ev.CaseStarted(name, names(2), 2, gpus), *running(2, case=name)[1:]]


FAILED = ev.RankExited("case1", "main", "node2", 1, 7, "exited", 4.0)


def test_the_live_picture_counts_cases_and_shows_each_that_runs() -> None:
    over = ev.CaseFinished("case2", "FAILURE", "x")
    view = at_once(*case("case0", (0, 1)), *case("case1", (2, 3)), *case("case2"), over)
    lines = progress(view, NOW, Style(width=120))
    assert any("2 cases running, 1/7 over, 1 not well" in line for line in lines)
    (first,) = (line for line in lines if line.startswith("      case0"))
    assert "2 ranks running, GPU 0-1" in first
    assert not [line for line in lines if line.startswith("      case2")]


def test_there_is_room_for_a_few_and_a_count_of_the_rest() -> None:
    view = at_once(*(event for name in CASES[:6] for event in case(name)))
    lines = progress(view, NOW, Style(width=120))
    assert [line.split()[0] for line in lines if line.startswith("      case")] == list(CASES[:3])
    assert "      and 3 more" in lines


def test_plain_lines_name_the_case() -> None:
    view = at_once(*case("case0", (0, 1)), *case("case1"))
    begun = changes.words(view, ev.Recorded(99, NOW, ev.CaseStarted("case0", names(2), 2, (0, 1))))
    assert begun == "case case0: 2 ranks on node[1-2] (2), GPU 0-1"
    failed = changes.words(view, ev.Recorded(99, NOW, FAILED))
    assert failed.startswith("case case1: node2 rank 1 main failed")
    barrier = ev.BarrierFailed("go", 0, "rank 1 left", "case1")
    assert changes.words(view, ev.Recorded(99, NOW, barrier)) == (
        "case case1: barrier go cannot open: rank 1 left"
    )
    assert changes.heartbeat(view, NOW).startswith("2 cases running, 0/7 over: case0, case1 (")


def test_the_last_screen_names_the_case_that_failed_first() -> None:
    view = at_once(
        *case("case0"),
        *case("case1"),
        FAILED,
        ev.CaseFinished("case0", "FAILURE", "later"),
        ev.RunFinished("failed", 3, "failed: case1"),
    )
    text = "\n".join(ending(view, Evidence(), Style(), "runs/x"))
    assert "First failure — node2 rank 1 (local 0), case case1 at" in text
    assert f"phalanx logs {RUN} --case case1 --rank 1" in text
