"""Several cases of a run at a time: what they share, what they do not, and how they end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from phalanx.controller.exits import Exit
from phalanx.controller.fleet import events as ev
from phalanx.controller.plan.gpus import ALL, Gpus
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.plan.model import Plan
from phalanx.protocol import messages as m

from tests.plan.making import models

from .test_case_images import place, verdicts, when
from .test_engine_simulated import beside
from .test_hardware import A100, MI300, numbered
from .world import FIRST_OF_CASES, World, make_plan


def opened(world: World, case: str) -> m.CaseOpen:
    """How the first node opened a case."""
    return next(
        message
        for _, message in world.told_to(m.CaseOpen)
        if isinstance(message, m.CaseOpen) and message.case == case
    )


def started(world: World) -> list[str]:
    return [event.case for event in world.of(ev.CaseStarted)]


def of_cards(*cards: dict[str, Any], parallel: int = 4, nodes: int = 1, **more: Any) -> Plan:
    return plan_for_tags(models(*cards, parallel=parallel, nodes=nodes, target="local", **more))


def test_as_many_run_at_a_time_as_the_plan_says_and_the_next_starts_when_one_ends() -> None:
    world = World(make_plan(2, 5, parallel=2))
    assert world.run().exit_code == 0
    assert beside(world) == (2, 0)
    assert started(world) == [f"case{number}" for number in range(5)]
    third = place(world, ev.CaseStarted, case="case2")
    ends = [place(world, ev.CaseFinished, case=name) for name in ("case0", "case1")]
    assert min(ends) < third < max(ends)


def test_without_it_cases_run_one_after_another() -> None:
    world = World(make_plan(2, 3, gpus=(1,)))
    world.gpus = {f"n{rank}": numbered(A100, 8) for rank in range(2)}
    world.run()
    assert beside(world) == (1, 0)


def test_a_failed_case_costs_none_of_the_others_anything() -> None:
    world = World(
        make_plan(2, 3, parallel=3), rank_status=lambda case, rank: 7 if case == "case1" and rank == 0 else 0
    )
    finished = world.run()
    assert {case: status for case, (status, _) in verdicts(world).items()} == {
        "case0": "SUCCESS",
        "case1": "FAILURE",
        "case2": "SUCCESS",
    }
    assert (finished.exit_code, finished.reason) == (Exit.RUN, "failed: case1")
    stopped = {message.case for _, message in world.told_to(m.StepStop) if isinstance(message, m.StepStop)}
    assert stopped <= {"case1"}


def test_the_first_failure_is_the_first_in_time_and_so_is_the_code() -> None:
    plan = make_plan(1, 2, parallel=2, exit_policy="first")
    for seed in range(20):
        world = World(plan, seed, rank_status=lambda case, rank: 5 if case == "case0" else 6)
        finished = world.run()
        first = next(event for event in world.of(ev.RankExited) if event.cause == "exited")
        assert finished.exit_code == first.status
        failure = world.engine.cases.first_failure
        assert failure is not None and failure.status == first.status


def test_a_lost_node_fails_every_case_that_runs_and_those_that_would_have() -> None:
    world = World(make_plan(3, 3, parallel=2))
    when(world, ev.RankStarted, lambda: world.die("n1"), case="case1", node="n0")
    finished = world.run()
    found = verdicts(world)
    assert [status for status, _ in found.values()] == ["FAILURE"] * 3
    assert all("n1" in found[case][1] for case in ("case0", "case1"))
    assert found["case2"] == ("FAILURE", "not run: n1 was lost before")
    assert finished.exit_code == Exit.RUN


@pytest.mark.parametrize("level", [1, 2])
def test_a_cancel_stops_all_that_run(level: int) -> None:
    world = World(make_plan(2, 3, parallel=2))
    when(world, ev.RankStarted, lambda: world.happen(ev.CancelRequested(level, "x")), case="case1", node="n1")
    finished = world.run()
    assert (finished.state, finished.exit_code) == ("cancelled", Exit.INTERRUPTED)
    assert {status for status, _ in verdicts(world).values()} == {"CANCELLED"}
    assert sorted(verdicts(world)) == ["case0", "case1", "case2"]


def test_a_scheduler_that_takes_the_nodes_stops_all_that_run() -> None:
    world = World(make_plan(2, 2, parallel=2))
    taken = ev.AllocationEnded("TIMEOUT", "limit")
    when(world, ev.RankStarted, lambda: world.happen(taken), case="case1", node="n1")
    assert world.run().exit_code == Exit.SCHEDULER
    assert {status for status, _ in verdicts(world).values()} == {"FAILURE"}


def test_each_has_a_port_of_its_own_that_the_first_node_said_is_free() -> None:
    world = World(make_plan(2, 3, parallel=3))
    world.ports = (29500, 29502, 29507)
    world.run()
    ports = [opened(world, f"case{number}").env["MASTER_PORT"] for number in range(3)]
    assert ports == ["29500", "29502", "29507"]


def test_of_a_node_that_said_nothing_they_have_the_defaults_neighbours() -> None:
    world = World(make_plan(1, 3, parallel=3))
    world.ports = ()
    world.run()
    ports = [opened(world, f"case{number}").env["MASTER_PORT"] for number in range(3)]
    assert ports == ["29500", "29501", "29502"]


def test_a_port_that_one_states_is_given_to_no_other() -> None:
    plan = make_plan(1, 2, parallel=2)
    plan = replace(plan, cases=(plan.cases[0], replace(plan.cases[1], master_port=29500)))
    world = World(plan)
    world.run()
    assert [opened(world, name).env["MASTER_PORT"] for name in ("case0", "case1")] == ["29501", "29500"]


def test_their_gpus_are_apart_and_the_container_has_exactly_these() -> None:
    plan = of_cards({"n_gpus": "2"}, {"n_gpus": "4"}, {"n_gpus": "0"}, image="train:1")
    world = World(plan)
    world.gpus = {"n0": numbered(A100, 8)}
    world.run()
    assert [opened(world, f"m{number}").spec.gpus for number in range(3)] == ["0,1", "2,3,4,5", ""]
    assert {event.case: event.gpus for event in world.of(ev.CaseStarted)} == {
        "m0": (0, 1),
        "m1": (2, 3, 4, 5),
        "m2": (),
    }
    assert "CUDA_VISIBLE_DEVICES" not in opened(world, "m0").env
    told = {
        message.case: message.env["MAD_RUNTIME_NGPUS"]
        for _, message in world.told_to(m.StepStart)
        if isinstance(message, m.StepStart) and message.step == "main" and message.case != "m2"
    }
    assert told == {"m0": "2", "m1": "4"}


def test_amds_have_their_own_render_nodes_or_are_told_which_of_all() -> None:
    plan = of_cards({"n_gpus": "2"}, {"n_gpus": "2"}, image="train:1")
    known = World(plan)
    known.gpus = {"n0": numbered(MI300, 4, 128)}
    known.run()
    second = opened(known, "m1")
    assert [device.source for device in second.spec.devices] == [
        "/dev/kfd",
        "/dev/dri/renderD130",
        "/dev/dri/renderD131",
    ]
    assert "HIP_VISIBLE_DEVICES" not in second.env
    unknown = World(plan)
    unknown.gpus = {"n0": numbered(MI300, 4)}
    unknown.run()
    second = opened(unknown, "m1")
    assert [device.source for device in second.spec.devices] == ["/dev/kfd", "/dev/dri"]
    assert second.env["HIP_VISIBLE_DEVICES"] == "2,3"
    assert "ROCR_VISIBLE_DEVICES" not in second.env


def test_a_process_is_told_its_gpus_unless_the_user_has_said_which() -> None:
    cards = [{"n_gpus": "2"}, {"n_gpus": "2"}, {"n_gpus": "2", "env_vars": {"CUDA_VISIBLE_DEVICES": "7"}}]
    plan = of_cards(*cards, runtime="process")
    assert any("m2 chooses its GPUs itself" in words for words in plan.warnings)
    world = World(plan)
    world.gpus = {"n0": numbered(A100, 8)}
    world.run()
    assert [opened(world, f"m{n}").env.get("CUDA_VISIBLE_DEVICES") for n in range(3)] == ["0,1", "2,3", None]


def test_gpus_that_the_context_names_are_shared_out() -> None:
    context = '{"gpu_vendor": "AMD", "docker_gpus": "4-7", "gpu_renderDs": [128,129,130,131,132,133,134,135]}'
    plan = of_cards(*[{"n_gpus": "2"}] * 3, image="train:1", context=context)
    world = World(plan)
    world.run()
    assert beside(world) == (2, 2)
    sources = [[device.source for device in opened(world, f"m{n}").spec.devices[1:]] for n in range(2)]
    numbers = [[source.removeprefix("/dev/dri/renderD") for source in case] for case in sources]
    assert numbers == [["132", "133"], ["134", "135"]]


def test_all_gpus_of_a_node_are_one_cases_and_smaller_ones_go_before_it() -> None:
    plan = make_plan(1, 4, parallel=3, gpus=(2, ALL, 2, 0))
    world = World(plan)
    world.gpus = {"n0": numbered(A100, 4)}
    assert world.run().exit_code == 0
    gpus = {event.case: event.gpus for event in world.of(ev.CaseStarted)}
    assert gpus == {"case0": (0, 1), "case1": (0, 1, 2, 3), "case2": (2, 3), "case3": ()}
    assert started(world).index("case1") > started(world).index("case2")


def test_one_that_can_never_fit_is_a_failure_that_says_why() -> None:
    world = World(make_plan(2, 3, parallel=2, gpus=(2, 8, 2)))
    world.gpus = {"n0": numbered(A100, 8), "n1": numbered(A100, 4)}
    finished = world.run()
    assert verdicts(world) == {
        "case0": ("SUCCESS", ""),
        "case1": ("FAILURE", "not run: it needs 8 GPUs on every node (case1: n_gpus), and n1 has 4"),
        "case2": ("SUCCESS", ""),
    }
    assert finished.exit_code == Exit.RUN


def test_a_script_that_drives_the_nodes_runs_alone() -> None:
    plan = make_plan(2, 3, parallel=3)
    plan = replace(plan, cases=(plan.cases[0], replace(plan.cases[1], driven=True), plan.cases[2]))
    world = World(plan)
    world.run()
    begun = place(world, ev.CaseStarted, case="case1")
    assert max(place(world, ev.CaseFinished, case=name) for name in ("case0", "case2")) < begun


def test_the_image_of_a_later_case_comes_while_others_run() -> None:
    world = World(make_plan(2, 3, docker=True, images=2, parallel=2))
    world.transfer_s = 5.0
    assert world.run().exit_code == 0
    (wanted,) = world.of(ev.ImageRequested)
    assert (wanted.case, wanted.reference) == ("case1", "image:2")
    coming = place(world, ev.ImageReady, request=FIRST_OF_CASES)
    assert place(world, ev.CaseStarted, case="case0") < coming < place(world, ev.CaseStarted, case="case1")
    assert place(world, ev.CaseStarted, case="case2") < coming, "who has its image does not wait for others"


def test_an_image_that_is_nowhere_costs_its_case_alone() -> None:
    world = World(make_plan(2, 4, docker=True, images=2, parallel=2))
    world.nowhere = {"image:2"}
    world.run()
    assert [verdicts(world)[f"case{n}"][0] for n in range(4)] == ["SUCCESS", "FAILURE", "SUCCESS", "FAILURE"]
    assert len(world.of(ev.ImageRequested)) == 1


def test_a_workspace_that_cannot_be_sent_is_the_failure_of_its_case() -> None:
    plan = make_plan(1, 2, parallel=2)
    shares = plan_for_tags(models({})).cases[0].workspace
    plan = replace(plan, cases=tuple(replace(case, workspace=shares) for case in plan.cases))
    world = World(plan)
    perform = world.perform

    def instead(instruction: Any) -> None:
        if getattr(instruction, "case", "") == "case0" and hasattr(instruction, "shares"):
            world.happen(ev.BlobFetched("n0", "workspace", "", 0, "disk full", case="case0"), 0.1)
        else:
            perform(instruction)

    world.perform = instead  # type: ignore[method-assign]
    world.run()
    assert verdicts(world)["case0"] == ("FAILURE", "cannot send the workspace to n0: disk full")
    assert verdicts(world)["case1"] == ("SUCCESS", "")


def test_a_count_of_gpus_is_no_matter_on_nodes_that_have_none() -> None:
    plan = make_plan(1, 2, parallel=2)
    gpus = Gpus("", 8, "card")
    world = World(replace(plan, cases=tuple(replace(case, gpus=gpus) for case in plan.cases)))
    assert world.run().exit_code == 0
    assert beside(world) == (2, 0)
