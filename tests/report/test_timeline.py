"""When which node did what, from the events of runs that went in every way."""

from __future__ import annotations

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.report.timeline import Timeline, timeline

from tests.runs.stories import STORIES, recorded

from .making import Clock, cluster_run


def kinds(found: Timeline, node: str) -> list[str]:
    (lane,) = [lane for lane in found.lanes if lane.node == node]
    return [span.kind for span in lane.spans]


@pytest.mark.parametrize("name", STORIES)
def test_every_span_lies_within_the_run_and_in_order(name: str) -> None:
    found = timeline(recorded(STORIES[name]))
    for lane in found.lanes:
        assert all(0 <= span.begin <= span.end <= found.seconds for span in lane.spans)
        assert [span.begin for span in lane.spans] == sorted(span.begin for span in lane.spans)


def test_a_node_joins_gets_the_image_and_does_its_steps() -> None:
    found = timeline(cluster_run())
    assert found.seconds == pytest.approx(306, abs=2)
    assert kinds(found, "gpu001") == ["join", "image", "step", "main", "step", "stopped", "step", "main"]
    assert kinds(found, "gpu005") == ["join", "image", "step", "main", "step", "failed", "step", "main"]
    assert [lane.node for lane in found.lanes if lane.trouble] == ["gpu005"]


def test_what_made_a_step_fail_is_told_and_not_what_stopped_the_others() -> None:
    (lane,) = [lane for lane in timeline(cluster_run()).lanes if lane.trouble]
    (failed,) = [span for span in lane.spans if span.kind == "failed"]
    assert "8 ranks" in failed.detail
    assert "out of memory" in failed.detail


def test_a_node_that_did_not_join_shows_until_when_it_was_waited_for_and_why() -> None:
    found = timeline(recorded(STORIES["join_missing"]))
    assert kinds(found, "node3") == ["failed"]
    (lane,) = [lane for lane in found.lanes if lane.node == "node3"]
    assert lane.spans[0].detail == "python3 not found in PATH of the job"


def test_an_image_that_could_not_be_brought_is_a_failed_span() -> None:
    found = timeline(recorded(STORIES["image_failure"]))
    assert kinds(found, "node2") == ["join", "failed"]
    assert kinds(found, "node1") == ["join", "image"]


def test_what_has_no_end_in_the_log_goes_on_to_its_last_event() -> None:
    found = timeline(recorded(STORIES["unfinished"]))
    (lane, _) = found.lanes
    assert lane.spans[-1].end == found.seconds
    assert "no end known" in lane.spans[-1].detail


def test_a_lost_node_is_lost_when_it_was_given_up() -> None:
    assert kinds(timeline(recorded(STORIES["node_lost"])), "node2") == ["join", "lost"]


def test_of_too_many_nodes_those_with_trouble_are_drawn_in_the_order_people_count() -> None:
    names = tuple(f"node{number}" for number in range(1, 101))
    clock = Clock()
    clock.at(0, ev.RunStarted("demo", "slurm", 100, ("demo",)))
    clock.at(1, ev.SpawnStarted(("srun",)))
    for rank, name in enumerate(names):
        clock.at(2, ev.AgentJoined(name, rank, "i", ""))
    for name in names:
        clock.at(3, ev.RankStarted("demo", "main", name, -1))
    for name in names:
        status = 7 if name == "node97" else 0
        clock.at(9, ev.RankExited("demo", "main", name, -1, status, "exited", 6.0))
    found = timeline(clock.events, most=3)
    assert [lane.node for lane in found.lanes] == ["node1", "node2", "node97"]
    assert found.left_out == 97


def test_the_steps_of_exec_are_no_part_of_the_run() -> None:
    clock = Clock()
    clock.at(0, ev.RunStarted("demo", "local", 1, ("demo",)))
    clock.at(1, ev.RankStarted("demo", "exec-1", "node1", -1))
    clock.at(2, ev.RankExited("demo", "exec-1", "node1", -1, 1, "exited", 1.0))
    assert timeline(clock.events).lanes == ()


def test_no_events_are_no_timeline() -> None:
    assert timeline([]) == Timeline((), 0, 0.0)
