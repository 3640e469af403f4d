"""What the engine decides, told as stories in fake time."""

from __future__ import annotations

from dataclasses import replace

from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet import instructions as ins
from phalanx.controller.fleet.engine import Engine
from phalanx.controller.plan.model import Share, StepPlan
from phalanx.protocol import messages as m
from phalanx.protocol.frames import encode

from .world import IMAGE_ID, Odds, World, make_plan

PRE_MAIN_POST = (
    StepPlan("pre-1", ("pre",), "node"),
    StepPlan("main", ("work",)),
    StepPlan("post-1", ("post",), "node", always=True),
    StepPlan("post-2", ("post",), "node"),
)


def steps_begun(world: World) -> list[str]:
    return [event.step for event in world.of(ev.StepBegun)]


def test_a_calm_run_passes_every_phase_and_ends_with_zero() -> None:
    world = World(make_plan(3, 2, docker=True))
    finished = world.run()
    assert (finished.state, finished.exit_code) == ("succeeded", 0)
    assert [event.status for event in world.of(ev.CaseFinished)] == ["SUCCESS", "SUCCESS"]
    (ready,) = world.of(ev.ImageReady)
    assert (ready.reference, ready.image_id, ready.nodes) == ("image:1", IMAGE_ID, 3)
    order = [type(event) for event in world.log]
    assert order.index(ev.FleetJoined) < order.index(ev.ImageReady) < order.index(ev.CaseStarted)


def test_no_step_starts_before_every_node_has_its_container() -> None:
    world = World(make_plan(4))
    world.run()
    order = [type(event) for event in world.log]
    opened = [i for i, kind in enumerate(order) if kind is ev.CaseOpenedOn]
    assert len(opened) == 4
    assert max(opened) < order.index(ev.StepBegun)


def test_containers_are_started_with_the_image_id_not_the_tag() -> None:
    world = World(make_plan(2, docker=True))
    world.run()
    assert {message.spec.image_id for _, message in world.told_to(m.CaseOpen)} == {IMAGE_ID}


def test_ranks_are_numbered_by_node_and_know_the_master() -> None:
    world = World(make_plan(3, ranks_per_node=2))
    world.run()
    ranks = {node: message.ranks for node, message in world.told_to(m.CaseOpen)}
    assert ranks == {"n0": (0, 1), "n1": (2, 3), "n2": (4, 5)}
    env = world.told_to(m.CaseOpen)[0][1].env
    assert (env["MASTER_ADDR"], env["MASTER_PORT"], env["NNODES"]) == ("10.0.0.1", "29500", "3")


def test_the_first_rank_that_fails_decides_and_the_others_are_stopped() -> None:
    world = World(make_plan(3, exit_policy="max"), rank_status=lambda case, rank: 7 if rank == 1 else 0)
    finished = world.run()
    assert finished.exit_code == 7
    assert "rank 1 on n1" in finished.reason
    assert world.told_to(m.Diagnose) == [("n1", m.Diagnose(1, "case0"))]


def test_a_stopped_follower_does_not_raise_the_exit_code() -> None:
    world = World(make_plan(3, exit_policy="max"), rank_status=lambda case, rank: 7 if rank == 1 else 0)
    world.run()
    stopped = [event for event in world.of(ev.RankExited) if event.cause == "stopped"]
    finished = world.of(ev.RunFinished)[0]
    assert finished.exit_code == 7 and all(event.status == 143 for event in stopped)


def test_ranks_that_began_a_little_later_meet_their_own_deadline() -> None:
    world = World(make_plan(3))
    world.deadlines = {0: 60.2, 1: 60.0, 2: 63.0}
    finished = world.run()
    assert finished.exit_code == 3
    assert [(event.rank, event.cause) for event in world.of(ev.RankExited)] == [
        (1, "deadline"),
        (0, "deadline"),
        (2, "deadline"),
    ]
    assert not world.told_to(m.StepStop)
    assert "case.deadline:case0" not in world.fired


def test_a_rank_whose_deadline_is_far_from_the_first_is_stopped() -> None:
    world = World(make_plan(3))
    world.deadlines = {0: 60.0, 1: 60.1, 2: 600.0}
    world.run()
    assert {event.rank: event.cause for event in world.of(ev.RankExited)}[2] == "stopped"
    assert {node for node, _ in world.told_to(m.StepStop)} == {"n2"}
    assert world.now < 120.0


def test_a_rank_that_fails_after_the_first_deadline_has_the_others_stopped_at_once() -> None:
    world = World(make_plan(3))
    world.deadlines = {0: 60.0, 1: 1000.0, 2: 1000.0}
    world.at(66.0, lambda: world._exit(("n1", "case0", "main", 1), 9, "exited"))
    world.run()
    assert [event.cause for event in world.of(ev.RankExited)] == ["deadline", "exited", "stopped"]
    assert [node for node, _ in world.told_to(m.StepStop)] == ["n2"], "once, and not again ten seconds later"


def test_after_a_failure_only_steps_that_always_run_are_run() -> None:
    plan = make_plan(2, steps=PRE_MAIN_POST)
    world = World(plan, rank_status=lambda case, rank: 1 if rank == 0 else 0)
    world.run()
    assert steps_begun(world) == ["pre-1", "main", "post-1"]


def test_a_failed_case_does_not_keep_the_next_one_from_running() -> None:
    plan = make_plan(2, 2)
    world = World(plan, rank_status=lambda case, rank: 1 if case == "case0" else 0)
    finished = world.run()
    assert [event.status for event in world.of(ev.CaseFinished)] == ["FAILURE", "SUCCESS"]
    assert finished.exit_code == 3


def test_results_are_collected_after_a_failure_too() -> None:
    world = World(make_plan(2), rank_status=lambda case, rank: 1)
    world.run()
    assert len(world.told_to(m.Collect)) == 2
    assert len(world.told_to(m.CaseClose)) == 2


def test_missing_nodes_end_the_run_with_eight_by_name() -> None:
    world = World(make_plan(3))
    world.dead = {"n2"}
    finished = world.run()
    assert finished.exit_code == 8
    assert "2 of 3 agents joined; missing: n2" in finished.reason
    assert [event.status for event in world.of(ev.CaseFinished)] == ["FAILURE"]


def test_a_reason_of_any_length_ends_a_run_in_good_order() -> None:
    world = World(make_plan(3))
    world.happen(ev.AllocationEnded("FAILED", "disk full; " * 2000), 2.0)
    assert world.run().exit_code == 10
    leaves = world.told_to(m.Leave)
    assert leaves
    assert all(encode(message) for _, message in leaves)


def test_min_nodes_lets_the_run_go_on_with_ranks_renumbered() -> None:
    world = World(make_plan(3, min_nodes=2))
    world.dead = {"n1"}
    assert world.run().exit_code == 0
    ranks = {node: message.ranks for node, message in world.told_to(m.CaseOpen)}
    assert ranks == {"n0": (0,), "n2": (1,)}


def test_a_node_that_is_lost_fails_its_ranks_by_name_and_the_rest_is_cleaned_up() -> None:
    world = World(make_plan(3, 2), rank_status=lambda case, rank: 0)
    world.at(3.0, lambda: world.die("n1", "no heartbeat"))
    finished = world.run()
    lost = [event for event in world.of(ev.RankExited) if event.cause == "lost"]
    assert [event.node for event in lost] == ["n1"] or not world.of(ev.RankExited)
    assert [event.status for event in world.of(ev.CaseFinished)] == ["FAILURE", "FAILURE"]
    assert finished.exit_code == 3
    assert "n1" in finished.reason or "case0" in finished.reason


def test_a_node_that_comes_back_within_the_lease_changes_no_verdict() -> None:
    for seed in range(50):
        world = World(make_plan(3), seed, Odds(blinks=1.0))
        assert world.run().exit_code == 0


def test_cancel_drains_collects_and_says_so() -> None:
    world = World(make_plan(2, 2))
    world.happen(ev.CancelRequested(1, "alice's terminal"), 5.0)
    finished = world.run()
    assert (finished.state, finished.exit_code) == ("cancelled", 130)
    assert finished.reason == "cancelled by alice's terminal"
    assert [event.status for event in world.of(ev.CaseFinished)] == ["CANCELLED", "CANCELLED"]


def test_a_second_cancel_kills_without_grace() -> None:
    world = World(make_plan(2), rank_status=lambda case, rank: 0, seed=3)
    world.happen(ev.CancelRequested(1, "x"), 5.0)
    world.happen(ev.CancelRequested(2, "x"), 5.01)
    world.run()
    graces = [message.grace_s for _, message in world.told_to(m.StepStop)]
    assert not graces or graces[-1] == 0.0


def test_an_allocation_that_is_refused_ends_with_ten_and_the_schedulers_words() -> None:
    world = World(make_plan(2), odds=Odds(refused=1.0))
    finished = world.run()
    assert (finished.exit_code, finished.reason) == (10, "no such partition")


def test_nodes_taken_by_the_scheduler_end_with_ten_after_collection() -> None:
    world = World(make_plan(2))
    world.at(4.0, world._take_allocation)
    finished = world.run()
    assert finished.exit_code == 10
    assert "the scheduler ended the allocation: CANCELLED by someone" in finished.reason


def test_an_image_that_cannot_be_had_ends_with_nine() -> None:
    world = World(make_plan(2, docker=True), odds=Odds())
    world.perform = _without_image(world)  # type: ignore[method-assign]
    finished = world.run()
    assert finished.exit_code == 9


def _without_image(world: World):  # type: ignore[no-untyped-def]
    perform = world.perform

    def instead(instruction):  # type: ignore[no-untyped-def]
        from phalanx.controller.fleet.instructions import FindImage

        if isinstance(instruction, FindImage):
            world.happen(ev.ImageSource("", instruction.reference, "", 0, "nobody has it"))
        else:
            perform(instruction)

    return instead


def test_replaying_the_log_gives_the_same_state() -> None:
    from phalanx.controller.fleet.engine import Engine

    world = World(make_plan(3, 2), 11, Odds(rank_fails=0.3, blinks=0.3))
    world.run()
    replayed = Engine(world.plan)
    for event in world.log:
        replayed.handle(event, 0.0)
    assert replayed.phase is world.engine.phase
    assert replayed.verdict == world.engine.verdict
    assert replayed.cases.failed == world.engine.cases.failed


def test_a_grant_that_crosses_a_cancel_goes_back_unused() -> None:
    world = World(make_plan(2), seed=1)
    world.perform = _granted_anyway(world)  # type: ignore[method-assign]
    world.happen(ev.CancelRequested(1, "x"), 0.5)
    finished = world.run()
    assert (finished.state, finished.exit_code) == ("cancelled", 130)
    assert not world.spawned and world.of(ev.AllocationReleased)


def test_a_cancel_before_the_first_event_ends_the_run_untouched() -> None:
    world = World(make_plan(2))
    world.happen(ev.CancelRequested(1, "x"), 0.0)
    finished = world.run()
    assert (finished.state, finished.exit_code) == ("cancelled", 130)
    assert not world.spawned and not world.of(ev.AllocationGranted)


def _granted_anyway(world: World):  # type: ignore[no-untyped-def]
    from phalanx.controller.fleet.instructions import AllocateNodes, StopAllocating

    perform = world.perform

    def instead(instruction):  # type: ignore[no-untyped-def]
        if isinstance(instruction, AllocateNodes):
            world.happen(ev.AllocationGranted("7", ("n0", "n1"), True), 1.0)
        elif not isinstance(instruction, StopAllocating):
            perform(instruction)

    return instead


def test_an_agent_that_ended_before_it_joined_is_waited_for_no_longer() -> None:
    world = World(make_plan(3))
    world.dead = {"n2"}
    world.happen(ev.SpawnSaid("n2", "task 2: Exited with exit code 127", True), 5.0)
    finished = world.run()
    assert finished.exit_code == 8
    assert world.now < 30, "the join timeout of 60 s was not waited for"


def test_with_min_nodes_the_run_goes_on_as_soon_as_the_others_are_there() -> None:
    world = World(make_plan(3, min_nodes=2))
    world.dead = {"n0"}
    world.happen(ev.SpawnSaid("n0", "task 0: Exited with exit code 127", True), 2.0)
    assert world.run().exit_code == 0
    assert world.of(ev.FleetJoined)[0] == ev.FleetJoined(2, 3, world.of(ev.FleetJoined)[0].seconds)
    assert {node for node, _ in world.told_to(m.CaseOpen)} == {"n1", "n2"}


def with_data(world: World) -> World:
    plan = world.plan
    share = (Share("/project"),)
    cases = tuple(replace(case, library="obstore", workspace=share) for case in plan.cases)
    return World(replace(plan, cases=cases))


def test_modules_for_data_come_to_every_node_before_its_case_is_opened() -> None:
    world = with_data(World(make_plan(3)))
    assert world.run().exit_code == 0
    fetched = [(event.purpose, event.node) for event in world.of(ev.BlobFetched)]
    assert sorted(fetched) == sorted(
        (purpose, node) for purpose in ("library obstore", "workspace") for node in world.engine.nodes
    )
    opened = world.told_to(m.CaseOpen)
    assert {message.library for _, message in opened} == {bytes(32)}
    order = [type(event) for event in world.log]
    last = max(place for place, kind in enumerate(order) if kind is ev.BlobFetched)
    assert last < order.index(ev.CaseOpenedOn)


def test_a_case_without_data_is_opened_without_modules() -> None:
    world = World(make_plan(2))
    world.run()
    assert {message.library for _, message in world.told_to(m.CaseOpen)} == {None}


STEPS = (StepPlan("prepare", ("x",), "node"), StepPlan("main", ("work",)))


def test_a_node_that_is_lost_after_its_part_of_a_step_fails_the_case_by_name() -> None:
    """One node is done with the first step, and gone before the other is: the script must not run on half."""
    before_the_script = 0
    for seed in range(20):
        world = World(make_plan(2, steps=STEPS), seed)
        lost = ev.AgentLost("n1", "no heartbeat")
        world.record_when(ev.RankExited, lambda event: event.node == "n1", lost)
        assert world.run().exit_code == 3
        [judged] = world.of(ev.CaseFinished)
        assert judged.status == "FAILURE"
        if [event.step for event in world.of(ev.StepBegun)] == ["prepare"]:
            before_the_script += 1
            assert judged.reason == "n1 was lost: no heartbeat"
    assert before_the_script > 3


def test_a_node_that_is_lost_before_its_results_are_back_fails_the_case() -> None:
    world = World(make_plan(2))
    world.record_when(
        ev.CaseCollectedOn, lambda event: event.node == "n0", ev.AgentLost("n1", "no heartbeat")
    )
    assert world.run().exit_code == 3
    assert world.of(ev.CaseFinished)[0].reason == "n1 was lost: no heartbeat"


def told(engine: Engine, *events: ev.Event) -> list[ins.Instruction]:
    """What the engine has done about these events and those that followed from them."""
    waiting, out = list(events), list[ins.Instruction]()
    while waiting:
        for instruction in engine.handle(waiting.pop(0), 0.0):
            out.append(instruction)
            if isinstance(instruction, ins.Record):
                waiting.append(instruction.event)
    return out


def leaving(instructions: list[ins.Instruction]) -> list[str]:
    """Who was told to leave."""
    tells = [one for one in instructions if isinstance(one, ins.Tell) and isinstance(one.message, m.Leave)]
    return [node for tell in tells for node in tell.nodes]


def joined(node: str, *, resumed: bool = False) -> ev.AgentJoined:
    return ev.AgentJoined(node, int(node[1:]), "i", "10.0.0.1", resumed)


def granted(nodes: int) -> Engine:
    names = tuple(f"n{rank}" for rank in range(nodes))
    engine = Engine(make_plan(nodes))
    told(engine, ev.RunStarted("run", "local", nodes, ("case0",)), ev.AllocationGranted("1", names, True))
    return engine


def test_who_joins_while_the_run_ends_is_told_to_leave_and_the_end_waits_for_no_timer() -> None:
    engine = granted(3)
    told(engine, joined("n0"))
    assert leaving(told(engine, ev.CancelRequested(1, "x"))) == ["n0"]
    assert leaving(told(engine, joined("n1"), joined("n2"))) == ["n1", "n2"]
    told(engine, ev.AgentSilent("n1", "a blip"))
    assert leaving(told(engine, joined("n1", resumed=True))) == []
    out = told(engine, *(ev.AgentLeft(f"n{rank}", ()) for rank in range(3)))
    assert any(isinstance(one, ins.EndAgents) for one in out)


def test_who_was_silent_when_the_run_ended_is_told_to_leave_when_it_is_back() -> None:
    engine = granted(2)
    told(engine, joined("n0"), joined("n1"), ev.AgentSilent("n1", "a blip"))
    assert leaving(told(engine, ev.CancelRequested(1, "x"))) == ["n0"]
    assert leaving(told(engine, joined("n1", resumed=True))) == ["n1"]


def test_of_a_node_that_is_given_up_no_exit_is_believed_that_comes_after() -> None:
    engine = granted(2)
    told(engine, joined("n0"), joined("n1"))
    for node in ("n0", "n1"):
        told(engine, ev.AgentFacts(node, {}), ev.RuntimeOnNode(node, "process", False, "", 1))
    told(engine, *(ev.CaseOpenedOn("case0", node, "c", "") for node in ("n0", "n1")))
    told(engine, ev.RankExited("case0", "main", "n0", 0, 0, "exited", 1.0, ""))
    engine.handle(ev.AgentSilent("n1", "the connection broke"), 0.0)
    late = ev.RankExited("case0", "main", "n1", 1, 0, "exited", 1.0, "")
    told(engine, ev.AgentLost("n1", "the connection broke"), joined("n1", resumed=True), late)
    out = told(engine, ev.CaseCollectedOn("case0", "n0", 0), ev.CaseClosedOn("case0", "n0", ""))
    (judging,) = (one for one in out if isinstance(one, ins.JudgeCase))
    assert not judging.outcome.completed
    assert judging.outcome.failure == "rank 1 on n1, step main: lost with its node: the connection broke"
