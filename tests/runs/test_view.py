"""Events in, the state of a run out."""

from __future__ import annotations

import dataclasses

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.runs.echoes import followers
from phalanx.controller.runs.model import Fault, Mark
from phalanx.controller.runs.view import advance, fold
from phalanx.protocol.messages import Cause

from .stories import RUN, START, STORIES, first_failure, log_bytes, recorded, running, started, success


@pytest.mark.parametrize(
    ("story", "state", "code", "fault"),
    [
        ("success", "succeeded", 0, None),
        ("first_failure", "failed", 3, Fault.RANK),
        ("out_of_memory", "failed", 3, Fault.RANK),
        ("join_missing", "failed", 8, None),
        ("cancelled", "cancelled", 130, None),
        ("node_lost", "failed", 3, Fault.RANK),
        ("image_failure", "failed", 9, Fault.IMAGE),
        ("refused", "failed", 10, Fault.ALLOCATION),
        ("unfinished", "running", None, None),
    ],
)
def test_state_code_and_first_failure_of_each_story(
    story: str, state: str, code: int | None, fault: Fault | None
) -> None:
    view = fold(recorded(STORIES[story]), RUN)
    assert (view.state, view.exit_code) == (state, code)
    assert (view.failure.fault if view.failure else None) is fault


def test_the_first_failure_is_the_first_rank_that_failed_by_itself() -> None:
    first = fold(recorded(first_failure())).failure
    assert first is not None
    assert (first.node, first.rank, first.local, first.status) == ("node2", 3, 1, 7)


def test_ranks_that_phalanx_stopped_are_followers_and_never_the_first_failure() -> None:
    stopped_first = [
        *started(),
        *running(),
        ev.RankExited("demo", "main", "node1", 0, 143, "stopped", 1.0),
        ev.RankExited("demo", "main", "node2", 1, 9, "exited", 1.0),
    ]
    view = fold(recorded(stopped_first))
    assert view.failure is not None and view.failure.rank == 1
    assert [(group.nodes, group.ranks) for group in followers(view)] == [(("node1",), (0,))]


def test_followers_are_folded_by_how_they_ended_and_leave_out_the_first_failure() -> None:
    groups = followers(fold(recorded(first_failure(nodes=8, per_node=2))))
    assert [(group.count, len(group.nodes)) for group in groups] == [(14, 8), (1, 1)]
    assert groups[0].words == "stopped by phalanx · exit 143 (SIGTERM: Terminated)"
    assert 3 not in groups[0].ranks + groups[1].ranks


def test_what_fails_after_a_cancel_is_the_stopping_and_no_first_failure() -> None:
    view = fold(recorded(STORIES["cancelled"]))
    assert view.failure is None
    assert view.cancels == [(1, "alice (Ctrl-C)")]


def test_a_failing_exec_step_is_no_failure_of_the_run() -> None:
    view = fold(recorded([*running(), ev.RankExited("demo", "exec-1", "node1", -1, 5, "exited", 0.1)]))
    assert view.failure is None
    assert followers(view) == []


@pytest.mark.parametrize("story", STORIES)
def test_folding_at_once_and_event_by_event_give_the_same_view(story: str) -> None:
    whole = fold(recorded(STORIES[story]), RUN)
    step_by_step = fold([], RUN)
    for one in recorded(STORIES[story]):
        advance(step_by_step, one)
    assert dataclasses.asdict(whole) == dataclasses.asdict(step_by_step)


@pytest.mark.parametrize("story", STORIES)
def test_an_event_that_is_heard_twice_changes_nothing(story: str) -> None:
    events = recorded(STORIES[story])
    doubled = [one for one in events for _ in range(2)]
    assert dataclasses.asdict(fold(doubled)) == dataclasses.asdict(fold(events))


def test_a_view_made_from_the_lines_on_disk_is_the_same() -> None:
    lines = log_bytes(success()).splitlines()
    read = [one for one in (ev.from_line(line) for line in lines) if one is not None]
    assert dataclasses.asdict(fold(read)) == dataclasses.asdict(fold(recorded(success())))


def test_a_cause_from_a_newer_version_leaves_the_status_to_speak() -> None:
    view = fold(recorded([*running(), ev.RankExited("demo", "main", "node1", 0, 3, "abducted", 1.0)]))
    assert view.failure is not None
    assert (view.failure.cause, view.failure.status) == (Cause.EXITED, 3)


def test_phases_begin_and_end_with_their_events() -> None:
    view = fold(recorded(success()))
    assert {name: phase.mark for name, phase in view.phases.items()} == {
        "allocation": Mark.WAITING,
        "agents": Mark.DONE,
        "image": Mark.WAITING,
        "run": Mark.DONE,
        "results": Mark.DONE,
    }
    assert view.phases["agents"].seconds(START + 99) == 3.0


def test_a_phase_that_was_under_way_when_the_run_failed_is_marked_failed() -> None:
    assert fold(recorded(STORIES["join_missing"])).phases["agents"].mark is Mark.FAILED
    assert fold(recorded(STORIES["image_failure"])).phases["image"].mark is Mark.FAILED


def test_a_node_that_joins_after_the_timeout_is_not_missing_any_more() -> None:
    late = [
        ev.JoinTimeout(1, 2, {"node2": "no word"}),
        ev.AgentJoined("node2", 1, "x", "10.0.0.2:1"),
    ]
    view = fold(recorded(late))
    assert view.missing == {}
    assert view.nodes["node2"].state == "joined"


def test_a_node_lost_while_the_run_is_ending_is_not_what_failed() -> None:
    view = fold(recorded([*started(), ev.RunEnding("done"), ev.AgentLost("node1", "closed")]))
    assert view.failure is None
