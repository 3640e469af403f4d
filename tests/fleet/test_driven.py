"""A case that needs an image and runs as a process on the first node alone, beside cases in containers."""

from __future__ import annotations

import fnmatch
from dataclasses import replace

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet import instructions as ins
from phalanx.controller.fleet.caseflow import RESULTS_S
from phalanx.controller.fleet.preparation import Preparation
from phalanx.controller.plan.model import Plan, ResultRule, StepPlan
from phalanx.protocol import messages as m

from .world import Odds, World, image_id, make_plan

NODES = ("n1", "n2")
FIRST = (StepPlan("main", ("drive",), per="first"),)


def mixed(nodes: int = 3) -> Plan:
    """A case that drives the nodes with image:1, then one in a container of image:2."""
    plan = make_plan(nodes, 2, docker=True, images=2)
    driving = replace(
        plan.cases[0],
        steps=FIRST,
        container=m.ContainerSpec(m.Runtime.PROCESS, network=""),
        needs_image="image:1",
        driven=True,
        result=ResultRule(places=("/a/perf*.csv", "perf.csv")),
    )
    return replace(plan, cases=(driving, plan.cases[1]))


def opens(nodes: tuple[str, ...], kind: m.Runtime, library: bytes | None = None) -> ins.Instruction:
    return ins.Tell(nodes, m.RuntimeOpen(1, kind, library))


def test_every_node_opens_both_runtimes_the_engine_last() -> None:
    one = Preparation(mixed(), NODES)
    assert one.begin(set(NODES)) == [opens(NODES, m.Runtime.PROCESS)]
    assert one.on(ev.RuntimeOnNode("n1", "process")) == [opens(("n1",), m.Runtime.DOCKER)]
    shipped = one.on(ev.RuntimeOnNode("n1", "process", needs_library=True))
    assert shipped == [ins.Ship("library", (), ("n1",), 1)]
    assert one.on(ev.BlobFetched("n1", "library", "ab", 1)) == [opens(("n1",), m.Runtime.DOCKER, b"\xab")]
    assert one.on(ev.RuntimeOnNode("n1", "docker")) == []
    assert one.on(ev.RuntimeOnNode("n2", "process")) == [opens(("n2",), m.Runtime.DOCKER)]
    assert one.imaging is None
    one.on(ev.RuntimeOnNode("n2", "docker"))
    assert one.imaging is not None


def test_runtimes_are_opened_before_the_facts_are_there_and_images_come_after_both() -> None:
    one = Preparation(mixed(), NODES)
    assert one.begin({"n1"}) == [opens(NODES, m.Runtime.PROCESS)]
    for node in NODES:
        one.on(ev.RuntimeOnNode(node, "process"))
        assert one.on(ev.RuntimeOnNode(node, "docker")) == []
    assert one.imaging is None, "n2 has not said what it is"
    assert one.on(ev.AgentFacts("n2", {}))
    assert one.imaging is not None


def test_only_a_results_file_of_this_very_name_must_be_new() -> None:
    plan = make_plan(3)
    rule = ResultRule(multiple_results="out/perf[fp16].csv")
    world = World(replace(plan, cases=(replace(plan.cases[0], result=rule),)))
    world.run(limit_s=120.0)
    [pattern] = {message.fresh for _, message in world.told_to(m.Collect) if isinstance(message, m.Collect)}
    assert fnmatch.filter(["perf[fp16].csv", "perff.csv"], pattern) == ["perf[fp16].csv"]


@pytest.mark.parametrize("docker", [False, True])
def test_a_node_that_never_says_what_it_is_costs_the_run_some_seconds_and_nothing_else(docker: bool) -> None:
    world = World(make_plan(3, docker=docker))
    world.secretive = {"n1"}
    assert world.run(limit_s=120.0).state == "succeeded"


def test_a_node_without_an_engine_ends_it_by_name() -> None:
    one = Preparation(mixed(), NODES)
    one.begin(set(NODES))
    one.on(ev.RuntimeOnNode("n1", "process"))
    one.on(ev.RuntimeOnNode("n1", "process", error="no engine answers"))
    assert one.trouble is not None
    assert one.trouble.reason == "n1: no engine answers"


def test_the_image_is_on_all_nodes_before_the_script_starts_on_the_first() -> None:
    world = World(mixed())
    assert world.run().exit_code == 0
    ready = next(place for place, event in enumerate(world.log) if isinstance(event, ev.ImageReady))
    began = next(place for place, event in enumerate(world.log) if isinstance(event, ev.StepBegun))
    assert ready < began
    starts = [(node, said) for node, said in world.told_to(m.StepStart) if said.case == "case0"]
    assert [(node, said.ranks) for node, said in starts] == [(world.engine.nodes[0], ())]


def test_its_place_is_on_every_node_and_says_nothing_of_one() -> None:
    world = World(mixed())
    world.run()
    opened = {node: said for node, said in world.told_to(m.CaseOpen) if said.case == "case0"}
    assert len(opened) == 3
    assert all(said.driven and not said.spec.image_id for said in opened.values())
    assert not [name for said in opened.values() for name in said.env if name.endswith("NODE_RANK")]
    first, *others = (opened[node].result_places for node in world.engine.nodes)
    assert first == ("/a/perf*.csv", "perf.csv")
    assert others == [(), ()]
    other = [said for _, said in world.told_to(m.CaseOpen) if said.case == "case1"]
    assert all(not said.driven and said.spec.image_id == image_id("image:2") for said in other)
    assert sorted(said.env["NODE_RANK"] for said in other) == ["0", "1", "2"]


@pytest.mark.parametrize(("status", "wait_s"), [(0, RESULTS_S), (7, 0.0)])
def test_results_are_waited_for_only_after_a_script_that_ended_well(status: int, wait_s: float) -> None:
    world = World(mixed(), rank_status=lambda case, rank: status if case == "case0" else 0)
    world.run()
    assert {said.wait_s for _, said in world.told_to(m.Collect) if said.case == "case0"} == {wait_s}
    assert {said.wait_s for _, said in world.told_to(m.Collect) if said.case == "case1"} == {0.0}


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_it_ends(seed: int) -> None:
    odds = Odds(0.02, 0.05, 0.1, 0.05, 0.2, 0.05, 0.1, 0.2, 0.05, 0.05, 0.1)
    world = World(mixed(), seed, odds)
    finished = world.run()
    assert len(world.of(ev.CaseFinished)) == 2
    assert finished.exit_code == 0 or finished.reason
