"""Asking every node which images it has: one that cannot say so does not keep the others from it."""

from __future__ import annotations

from dataclasses import replace

from phalanx.controller.exits import Exit
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet import instructions as ins
from phalanx.controller.fleet.preparation import Preparation
from phalanx.controller.plan.model import PLAN_SCHEMA, InventoryPlan, Plan, TargetPlan
from phalanx.protocol.messages import ImagesQuery, Runtime, RuntimeOpen

NODES = ("n1", "n2", "n3")
PLAN = Plan(
    PLAN_SCHEMA, "r", "image", (), "/", TargetPlan("slurm", 3), (), (), inventory=InventoryPlan("a:1", True)
)


def asking() -> Preparation:
    """Every node has its runtime and was asked."""
    one = Preparation(PLAN, NODES)
    assert one.begin(set(NODES)) == [ins.Tell(NODES, RuntimeOpen(1, Runtime.DOCKER, None))]
    for node in NODES:
        asked = one.on(ev.RuntimeOnNode(node, "docker", False, ""))
        assert asked == [ins.Tell((node,), ImagesQuery(1, "a:1", prune=True))]
    return one


def test_it_is_over_when_every_node_has_answered() -> None:
    one = asking()
    for node in NODES:
        assert not one.done
        one.on(ev.ImagesOnNode(node))
    assert one.done
    assert one.trouble is None


def test_a_node_that_cannot_is_named_once_all_have_answered() -> None:
    one = asking()
    one.on(ev.ImagesOnNode("n2", error="cannot remove image a:1: a container uses it"))
    one.on(ev.AgentLost("n1", "not heard from for 10 s"))
    assert one.trouble is None
    one.on(ev.ImagesOnNode("n3"))
    assert one.trouble is not None
    assert one.trouble.exit_code == Exit.IMAGE
    assert one.trouble.reason == (
        "n2: cannot remove image a:1: a container uses it; n1: was lost: not heard from for 10 s"
    )
    assert not one.done


def test_a_node_without_an_engine_counts_as_answered() -> None:
    one = Preparation(PLAN, NODES)
    one.begin(set(NODES))
    one.on(ev.RuntimeOnNode("n1", "docker", False, "cannot reach the engine"))
    for node in ("n2", "n3"):
        one.on(ev.RuntimeOnNode(node, "docker", False, ""))
        one.on(ev.ImagesOnNode(node))
    assert one.trouble is not None
    assert (one.trouble.reason, one.trouble.exit_code) == ("n1: cannot reach the engine", Exit.LAUNCH)


def test_who_is_silent_is_named_in_the_end() -> None:
    one = asking()
    one.on(ev.ImagesOnNode("n1"))
    one.give_up(60)
    assert one.trouble is not None
    assert one.trouble.reason == "n2, n3: no answer from its runtime after 60 s"


def test_a_run_with_cases_still_fails_with_the_first_node_without_an_engine() -> None:
    one = Preparation(replace(PLAN, inventory=None), NODES)
    one.begin(set(NODES))
    one.on(ev.RuntimeOnNode("n1", "docker", False, "cannot reach the engine"))
    assert one.trouble is not None
