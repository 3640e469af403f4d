"""One more image while a run goes on, decided: beside its work, one at a time, and no business of the run."""

from __future__ import annotations

import pytest
from phalanx.controller.exits import Exit
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.states import Phase
from phalanx.protocol import messages as m

from .world import World, make_plan

NODES = ("n0", "n1", "n2")


def kept(docker: bool = False) -> World:
    """A run that has done its work and is kept."""
    world = World(make_plan(3, docker=docker, keep=True))
    world.happen(ev.RunStarted("run", "local", 3, ("case0",)))
    world.settle()
    assert world.engine.phase is Phase.IDLE
    return world


def ask(world: World, request: int = 2, nodes: tuple[str, ...] = NODES) -> None:
    world.record(ev.ImageRequested(request, f"image:{request}", "", nodes))


def failures(world: World) -> list[tuple[int, int]]:
    return [(event.request, event.exit_code) for event in world.of(ev.ImageFailed)]


@pytest.mark.parametrize("docker", [False, True])
def test_an_image_comes_to_the_nodes_of_a_kept_run(docker: bool) -> None:
    world = kept(docker)
    ask(world)
    world.settle()
    ready = world.of(ev.ImageReady)[-1]
    assert (ready.request, ready.nodes) == (2, 3)
    assert world.engine.phase is Phase.IDLE
    opened = [message for _, message in world.told_to(m.RuntimeOpen)][-3:]
    assert {(message.request, message.runtime) for message in opened} == {(2, m.Runtime.DOCKER)}
    world.record(ev.CancelRequested(1, "test"))
    world.settle()
    assert world.of(ev.RunFinished)


def test_it_may_go_to_some_of_the_nodes_only() -> None:
    world = kept()
    ask(world, nodes=("n1",))
    world.settle()
    assert world.of(ev.ImageReady)[-1].nodes == 1
    assert {node for node, message in world.told_to(m.ImageQuery) if message.request == 2} == {"n1"}


def test_a_second_one_has_to_wait_and_disturbs_nothing() -> None:
    world = kept()
    ask(world)
    ask(world, request=3)
    assert failures(world) == []
    world.settle()
    assert failures(world) == [(3, Exit.FAILURE)]
    assert "image:2 is on its way" in world.of(ev.ImageFailed)[0].reason
    assert world.of(ev.ImageReady)[-1].request == 2
    ask(world, request=4)
    world.settle()
    assert world.of(ev.ImageReady)[-1].request == 4


def test_who_leaves_calls_it_off_on_every_node() -> None:
    world = kept()
    ask(world)
    world.record(ev.ImageCalledOff(2))
    world.settle()
    assert failures(world) == [(2, Exit.INTERRUPTED)]
    assert {node for node, _ in world.told_to(m.SyncStop)} == set(NODES)
    assert world.engine.phase is Phase.IDLE
    world.record(ev.ImageCalledOff(2))
    assert failures(world) == [(2, Exit.INTERRUPTED)]


def test_a_node_that_cannot_get_it_is_named_and_the_run_stays_what_it_is() -> None:
    world = kept()
    ask(world)
    for node in NODES:
        world.record(ev.RuntimeOnNode(node, "docker", request=2))
    world.record(ev.ImageOnNode("n1", "image:2", "", "the engine is gone", request=2))
    world.settle()
    assert failures(world) == [(2, Exit.IMAGE)]
    assert world.of(ev.ImageFailed)[0].reason == "n1: the engine is gone"
    assert world.engine.verdict is None
    assert world.engine.phase is Phase.IDLE


def test_a_node_without_an_engine_is_named() -> None:
    world = kept()
    ask(world)
    world.record(ev.RuntimeOnNode("n2", "docker", error="no engine", request=2))
    world.settle()
    assert failures(world) == [(2, Exit.LAUNCH)]
    assert world.of(ev.ImageFailed)[0].reason == "n2: no engine"


def test_one_that_answers_nothing_is_waited_for_no_longer_than_an_image_may_take() -> None:
    world = kept()
    world.dead.add("n1")
    ask(world)
    world.settle()
    assert "n1: no answer from its runtime after 600 s" in world.of(ev.ImageFailed)[0].reason


def test_what_is_said_twice_starts_nothing_twice() -> None:
    world = kept()
    ask(world)
    for node in (*NODES, *NODES):
        world.record(ev.RuntimeOnNode(node, "docker", request=2))
    assert len([node for node, message in world.told_to(m.ImageQuery) if message.request == 2]) == 3


def test_before_a_run_is_ready_and_while_it_ends_there_is_nothing_to_bring_it_to() -> None:
    world = World(make_plan(3))
    assert "not ready yet" in world.engine.cannot_bring(NODES)
    world.run()
    assert "ending" in world.engine.cannot_bring(NODES)


def test_only_nodes_whose_agents_are_there_can_get_it() -> None:
    engine = kept().engine
    assert engine.cannot_bring(NODES) == ""
    assert "no agent is on n7" in engine.cannot_bring(("n1", "n7"))
    assert engine.cannot_bring(()) == "no agent is there"


def test_a_run_that_ends_meanwhile_ends_it() -> None:
    world = kept()
    ask(world)
    world.record(ev.CancelRequested(2, "test"))
    world.settle()
    assert failures(world) == [(2, Exit.RUN)]
    assert world.of(ev.RunFinished)[0].exit_code == Exit.OK, "its work was done"
