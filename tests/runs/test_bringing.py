"""One more image for a live run, as it is seen: in its own view everything, in that of the run no failure."""

from __future__ import annotations

from phalanx.controller.fleet import events as ev
from phalanx.controller.runs.bringing import document, last_lines
from phalanx.controller.runs.changes import heartbeat
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.view import advance, fold
from phalanx.controller.runs.words import Style

READY = ev.ImageReady("a:2", "sha256:" + "ab" * 32, 3, 2.5, 30, 90, 10, "n3", 2.0, request=2)
WANTED = ev.ImageRequested(2, "a:2", "", ("n1", "n2", "n3"))
FAILED = ev.ImageFailed(2, "a:2", "n3: no space left", 9)
TROUBLE = (ev.ImageOnNode("n3", "a:2", "", "no space left", request=2), FAILED)
PLANNED = ev.ImagePlanned("chain", "", 3, 90, 30, 10, 2.0, request=2)


def of_request(*events: ev.Event) -> RunView:
    view = RunView("run", request=2)
    for number, event in enumerate(events, start=1):
        advance(view, ev.Recorded(number, float(number), event))
    return view


def test_what_came_is_told_with_the_figures_of_its_way() -> None:
    view = of_request(WANTED, PLANNED, READY)
    head, figures = last_lines(view, READY, Style())
    assert "a:2 abababababab on 3 nodes · 2.5 s" in head
    assert "source sent 30 B" in figures
    assert "slowest n3" in figures
    assert "in their engines after 2.5 s" in figures
    told = document(view, READY)
    assert (told["state"], told["exit_code"], told["request"]) == ("succeeded", 0, 2)
    assert (told["sent_bytes"], told["read_bytes"], told["saved_bytes"]) == (30, 90, 10)


def test_what_did_not_come_is_told_with_the_node_and_the_code() -> None:
    view = of_request(WANTED, *TROUBLE)
    lines = last_lines(view, None, Style())
    assert "cannot bring a:2 to every node: n3: no space left" in lines[0]
    assert lines[-1].startswith("exit 9 ")
    assert (document(view, None)["exit_code"], document(view, None)["reason"]) == (9, "n3: no space left")


def test_a_node_with_another_image_under_that_name_does_not_count_as_having_it() -> None:
    older = ev.ImageOnNode("n2", "a:2", "sha256:0", request=2)
    source = ev.ImageSource("x", "a:2", "sha256:1", 9, request=2)
    view = of_request(WANTED, has("n1"), older, source)
    assert heartbeat(view, 31.0) == "image a:2 on 1/3 nodes (30 s)"


def test_in_the_view_of_the_run_it_is_a_notice_and_no_failure() -> None:
    own = ev.ImageReady("a:1", "sha256:" + "cd" * 32, 3, 1.0)
    events = (own, WANTED, PLANNED, *TROUBLE, WANTED, READY)
    view = fold([ev.Recorded(n, float(n), event) for n, event in enumerate(events, start=1)])
    assert view.failure is None
    assert view.image.reference == "a:1"
    assert view.image.transfer is None
    assert [text for _, text in view.notices] == [
        "image a:2 could not be brought: n3: no space left",
        "image a:2 was brought to 3 nodes",
    ]


def test_a_sign_of_life_says_how_far_it_is() -> None:
    view = of_request(WANTED, ev.ImageSource("x", "a:2", "sha256:1", 9, request=2), has("n1"))
    assert heartbeat(view, 31.0) == "image a:2 on 1/3 nodes (30 s)"


def has(node: str) -> ev.ImageOnNode:
    return ev.ImageOnNode(node, "a:2", "sha256:1", request=2)
