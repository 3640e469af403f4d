"""A run whose cases have images of their own, as it is seen: which is on its way, what came of each."""

from __future__ import annotations

from phalanx.controller.fleet import events as ev
from phalanx.controller.runs.changes import heartbeat, words
from phalanx.controller.runs.ending import failure, success
from phalanx.controller.runs.evidence import Evidence
from phalanx.controller.runs.facts import failed_nodes, lock_document
from phalanx.controller.runs.files import phase_of
from phalanx.controller.runs.model import Fault, Mark, RunView
from phalanx.controller.runs.screen import Passing, progress
from phalanx.controller.runs.status import image_document
from phalanx.controller.runs.view import fold
from phalanx.controller.runs.words import Style

from .stories import START, exits, recorded, running, started

ONE, TWO = "sha256:" + "11" * 32, "sha256:" + "22" * 32
NODES = ("node1", "node2")
FIRST = [
    *started(cases=("a", "b")),
    ev.ImageSource("archive", "one:1", ONE, 50, layers=(50,)),
    ev.ImagePlanned("chain", "", 2, 100, 50, 0, 1.0),
    *(ev.ImageOnNode(name, "one:1", ONE) for name in NODES),
    ev.ImageReady("one:1", ONE, 2, 3.0, 50, 100, 0, "node2", 2.0),
]
CASE_A = [*running(case="a"), *exits(case="a"), ev.CaseFinished("a", "SUCCESS", "", ({"model": "a"},))]
WANTED = ev.ImageRequested(3, "two:1", "", NODES, "b")
HALF = [
    WANTED,
    ev.ImageSource("engine of node node1", "two:1", TWO, 80, node="node1", layers=(80,), request=3),
    ev.ImagePlanned("chain", "node1", 1, 80, 80, 0, 1.0, request=3),
]
THERE = [
    ev.ImageOnNode("node2", "two:1", TWO, request=3),
    ev.ImageReady("two:1", TWO, 2, 3.0, 0, 80, 0, "node2", 4.0, request=3),
]
CASE_B = [*running(case="b"), *exits(case="b"), ev.CaseFinished("b", "SUCCESS", "", ({"model": "b"},))]
NOWHERE = [
    WANTED,
    ev.ImageSource("", "two:1", "", 0, "cannot get the image two:1: no node has it", request=3),
    ev.ImageFailed(3, "two:1", "cannot get the image two:1: no node has it", 9),
    ev.CaseFinished("b", "FAILURE", "not run: the image two:1 could not be brought", ({"model": "b"},)),
    ev.RunEnding("failed: b"),
    ev.RunFinished("failed", 3, "failed: b"),
]


def seen(*events: ev.Event) -> RunView:
    return fold(recorded(events))


def area(view: RunView, passing: Passing | None = None) -> str:
    return "\n".join(progress(view, START + 60, Style(), passing))


def test_the_live_picture_turns_to_the_image_of_the_next_case() -> None:
    view = seen(*FIRST, *CASE_A, *HALF)
    text = area(view, Passing({"image": {"node2": (20, 80)}}))
    assert "▸ image        two:1 222222222222  80 B  for b  25 % of 80 B  0/2" in text
    assert "one:1" not in text
    assert heartbeat(view, START + 60).startswith("image two:1 on 0/2 nodes (")
    assert phase_of(view) == "image"
    after = seen(*FIRST, *CASE_A, *HALF, *THERE, *running(case="b"))
    assert "✓ image        two:1 222222222222  80 B  for b  2/2" in area(after)
    assert "2 ranks running" in heartbeat(after, START + 60)
    assert phase_of(after) == "run"


def test_what_a_person_brings_meanwhile_is_not_taken_for_it() -> None:
    theirs = ev.ImageRequested(2, "their:1", "", NODES)
    moving = Passing({"image": {"node1": (7, 10)}})
    view = seen(*FIRST, *CASE_A, theirs, WANTED)
    assert "▸ image        two:1  for b  0/2" in area(view, moving)
    there = ev.ImageReady("their:1", ONE, 2, 1.0, request=2)
    view = seen(*FIRST, *CASE_A, theirs, WANTED, there)
    assert view.phases["image"].mark is Mark.ACTIVE
    assert view.image.reference == "two:1"
    assert [text for _, text in view.notices] == ["image their:1 was brought to 2 nodes"]


def test_plain_lines_say_for_whom_it_is_asked_and_when_it_is_there() -> None:
    view = RunView()
    lines = [words(view, one) for one in recorded([WANTED, *HALF[1:], *THERE])]
    assert lines[0] == "image two:1 is asked for on node[1-2] (2) for case b"
    assert lines[-1] == "image two:1 222222222222 on 2 nodes"


def test_what_is_kept_of_the_run_tells_of_every_image() -> None:
    view = seen(*FIRST, *CASE_A, *HALF, *THERE, *CASE_B)
    assert lock_document(view)["images"] == [
        {"reference": "one:1", "id": ONE},
        {"reference": "two:1", "id": TWO},
    ]
    told = [image_document(image) for image in view.images]
    assert [(image["case"], image["bytes"], image["error"]) for image in told] == [
        ("", 50, ""),
        ("b", 80, ""),
    ]
    assert [image["transfer"]["read_bytes"] for image in told] == [100, 80]
    lines = success(view, Evidence(), Style(), "runs/x")
    assert any(line.startswith("  image  one:1  100 B to 2 nodes") for line in lines)
    assert any(line.startswith("  image  two:1  80 B to 1 node ") for line in lines)


def test_one_that_cannot_be_had_is_the_first_failure_and_no_end_of_the_run() -> None:
    events = [*FIRST, *CASE_A, *NOWHERE]
    meanwhile = seen(*events[:-3])
    assert (meanwhile.finished, meanwhile.reason) == (False, "")
    assert meanwhile.phases["image"].mark is Mark.FAILED
    view = seen(*events)
    assert view.failure is not None
    assert (view.failure.fault, view.exit_code) == (Fault.IMAGE, 3)
    assert [image.error for image in view.images] == ["", "cannot get the image two:1: no node has it"]
    text = "\n".join(failure(view, Evidence(), Style(), "runs/x"))
    assert "b: not run: the image two:1 could not be brought" in text
    assert "First failure — image at" in text
    assert "cannot get the image two:1: no node has it" in text


def test_a_node_that_an_image_failed_on_stays_named_when_the_next_comes() -> None:
    broken = ev.ImageOnNode("node2", "two:1", "", "no space left", request=3)
    failed = ev.ImageFailed(3, "two:1", "node2: no space left", 9)
    third = ev.ImageRequested(4, "three:1", "", NODES, "c")
    fine = [ev.ImageOnNode(name, "three:1", ONE, request=4) for name in NODES]
    view = seen(*FIRST, WANTED, broken, failed, third, *fine)
    assert failed_nodes(view) == "node2"
    assert [image.reference for image in view.images] == ["one:1", "two:1", "three:1"]


def test_an_image_that_the_end_of_a_run_called_off_is_no_failure() -> None:
    view = seen(*FIRST, *CASE_A, WANTED, ev.RunEnding("limit"), ev.ImageFailed(3, "two:1", "the run ends", 3))
    assert view.failure is None
