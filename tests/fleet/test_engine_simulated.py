"""Thousands of runs in fake time with everything that can go wrong: each must end, and end right."""

from __future__ import annotations

import random

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.engine import Engine
from phalanx.controller.fleet.states import Phase
from phalanx.controller.plan.gpus import ALL
from phalanx.controller.plan.model import StepPlan
from phalanx.protocol import messages as m

from .test_hardware import A100, numbered
from .world import Odds, World, make_plan

SEEDS = 6000
SEEDS_AT_ONCE = 1000
#: Longest simulated time in which any run must be over: all timers together, with room.
BOUND_S = 2000.0


def hostile(seed: int, parallel: int = 1) -> World:
    """A world of the seed's own kind of trouble, for a run of which so many cases may run at a time."""
    dice = random.Random(seed)
    odds = Odds(
        refused=dice.choice([0, 0, 0.2]),
        no_join=dice.choice([0, 0, 0.2]),
        dies=dice.choice([0, 0.1, 0.5]),
        error=dice.choice([0, 0, 0.1]),
        rank_fails=dice.choice([0, 0.1, 0.5]),
        hangs=dice.choice([0, 0, 0.1]),
        blinks=dice.choice([0, 0.3]),
        cancel=dice.choice([0, 0.4]),
        taken=dice.choice([0, 0, 0.4]),
        spawner_dies=dice.choice([0, 0, 0.3]),
        later_images=dice.choice([0, 0.5]),
        containerd=dice.choice([0, 0.5, 1]),
        holds=dice.choice([0, 0.3, 1]),
    )
    steps = dice.choice(
        [
            (StepPlan("main", ("work",)),),
            (
                StepPlan("pre-1", ("pre",), "node"),
                StepPlan("main", ("work",)),
                StepPlan("post-1", ("post",), "node", always=True),
            ),
        ]
    )
    plan = make_plan(
        dice.randint(1, 5),
        dice.randint(1, 3) if parallel == 1 else dice.randint(2, 6),
        docker=dice.random() < 0.5,
        ranks_per_node=dice.randint(1, 2),
        min_nodes=dice.choice([0, 0, 1]),
        exit_policy=dice.choice(["workflow", "max", "first"]),
        steps=steps,
        images=dice.choice([1, 2, 3]),
        parallel=parallel,
        gpus=dice.choice([(), (1,), (1, 2, ALL), (3, 0, 9)]) if parallel > 1 else (),
    )
    world = World(plan, seed, odds)
    if parallel > 1 and dice.random() < 0.7:
        world.gpus = {f"n{rank}": numbered(A100, dice.choice([4, 4, 8])) for rank in range(5)}
    return world


def test_what_becomes_of_an_image_that_is_asked_for_later_is_in_no_verdict() -> None:
    came = failed = 0
    for seed in range(400):
        world = World(make_plan(3, 2, docker=True), seed, Odds(rank_fails=0.2))
        world.ask_for_image(2, 8.0)
        if seed % 2:
            refused = ev.ImageSource("", "image:2", "", 0, "nobody has image:2", request=2)
            for moment in range(17, 80):
                world.happen(refused, moment / 2)
        finished = world.run(BOUND_S)
        came += any(event.request == 2 for event in world.of(ev.ImageReady))
        failed += any("nobody has" in event.reason for event in world.of(ev.ImageFailed))
        good = all(event.status == "SUCCESS" for event in world.of(ev.CaseFinished))
        assert (finished.exit_code == 0) == good, f"seed {seed}"
        assert "image:2" not in finished.reason
    assert came > 50
    assert failed > 50


def test_images_of_cases_and_of_people_wait_for_one_another_and_all_are_answered() -> None:
    waited = 0
    for seed in range(600):
        dice = random.Random(seed)
        odds = Odds(
            dies=dice.choice([0, 0.1]),
            error=dice.choice([0, 0.03]),
            hangs=dice.choice([0, 0.01]),
            blinks=dice.choice([0, 0.3]),
            cancel=dice.choice([0, 0.4]),
        )
        world = World(make_plan(3, 4, docker=True, images=dice.randint(2, 4)), seed, odds)
        world.transfer_s = 60.0
        for request in (2, 3, 4):
            world.ask_for_image(request, dice.uniform(20, 200))
        try:
            check(world, world.run(2 * BOUND_S))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        going = 0
        for event in world.log:
            if isinstance(event, ev.ImageRequested):
                waited += bool(event.case and going)
                going = going or event.request
            elif isinstance(event, ev.ImageReady | ev.ImageFailed) and event.request == going:
                going = 0
    assert waited > 50


@pytest.mark.parametrize("block", range(10))
def test_every_run_ends_in_bounded_time_with_a_row_for_every_case_and_a_true_code(block: int) -> None:
    for seed in range(block, SEEDS, 10):
        world = hostile(seed)
        try:
            finished = world.run(BOUND_S)
            check(world, finished)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("parallel", [2, 3, 4])
def test_so_does_every_run_of_several_cases_at_a_time_and_none_has_anothers_gpus(parallel: int) -> None:
    together = shared = 0
    for seed in range(SEEDS_AT_ONCE):
        world = hostile(seed, parallel)
        try:
            check(world, world.run(2 * BOUND_S))
            most, with_gpus = beside(world)
            assert most <= parallel
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        together += most > 1
        shared += with_gpus > 1
        if "prepare" in world.fired:
            continue  # that a preparation took too long is no event
        replayed = Engine(world.plan)
        for event in world.log:
            replayed.handle(event, 0.0)
        was = world.engine
        assert (replayed.phase, replayed.verdict) == (was.phase, was.verdict), f"seed {seed}"
        assert replayed.cases.failed == was.cases.failed
        assert replayed.cases.first_failure == was.cases.first_failure
    assert together > SEEDS_AT_ONCE / 4
    assert shared > SEEDS_AT_ONCE / 40


def beside(world: World) -> tuple[int, int]:
    """Most cases that ran at a time, and most of them with GPUs; none has a GPU of another."""
    running: dict[str, set[int]] = {}
    most = with_gpus = 0
    for event in world.log:
        if isinstance(event, ev.CaseStarted):
            taken = set().union(*running.values())
            assert not taken & set(event.gpus), f"{event.case} got {event.gpus}, {running} run"
            running[event.case] = set(event.gpus)
        elif isinstance(event, ev.CaseFinished):
            running.pop(event.case, None)
        most = max(most, len(running))
        with_gpus = max(with_gpus, sum(map(bool, running.values())))
    return most, with_gpus


def check(world: World, finished: ev.RunFinished) -> None:
    """What must hold at the end of any run."""
    planned = [case.name for case in world.plan.cases]
    judged = [event.case for event in world.of(ev.CaseFinished)]
    assert sorted(judged) == sorted(planned), f"rows for {judged}, planned {planned}"
    assert world.engine.phase is Phase.FINISHED
    assert len(world.of(ev.RunFinished)) == 1
    good = all(event.status == "SUCCESS" for event in world.of(ev.CaseFinished))
    if finished.exit_code == 0:
        assert good and finished.state == "succeeded", "a success with a failed case"
    else:
        assert finished.reason, "a failure without a reason"
    if good and not world.engine.cancel_level and not world.of(ev.AllocationEnded):
        lost = world.of(ev.AgentLost)
        assert finished.exit_code == 0 or lost, f"exit {finished.exit_code} though all cases succeeded"
    if world.spawned:
        assert world.of(ev.SpawnEnded), "the spawner was left running"
    assert world.of(ev.AllocationReleased), "the allocation was not given back"
    image_of = {case.name: case.container.image for case in world.plan.cases}
    for node, message in world.told_to(m.CaseOpen):
        reference = image_of[message.case]
        wanted_id = world.id_on(node, reference) if reference else ""
        assert message.spec.image_id == wanted_id, f"{message.case} on {node} in another image"
    for wanted in world.of(ev.ImageRequested):
        answers = [
            event
            for kind in (ev.ImageReady, ev.ImageFailed)
            for event in world.of(kind)
            if event.request == wanted.request
        ]
        assert len(answers) == 1, f"{len(answers)} answers to the request for {wanted.reference}"
