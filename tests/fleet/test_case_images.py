"""A run whose cases have images of their own: each comes when its case is due, and costs no other case."""

from __future__ import annotations

import pytest
from phalanx.controller.exits import Exit
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.case_images import CaseImages
from phalanx.protocol import messages as m
from phalanx.protocol.membership import Member

from .world import FIRST_OF_CASES, Odds, World, image_id, make_plan

#: Longer than any case of these stories takes.
LONG_S = 500.0


def two_images(cases: int = 2, nodes: int = 3, **given: object) -> World:
    return World(make_plan(nodes, cases, docker=True, images=2, **given))  # type: ignore[arg-type]


def verdicts(world: World) -> dict[str, tuple[str, str]]:
    return {event.case: (event.status, event.reason) for event in world.of(ev.CaseFinished)}


def place(world: World, kind: type[ev.Event], **match: object) -> int:
    """Where in the log the only such event is."""
    found = [
        number
        for number, event in enumerate(world.log)
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in match.items())
    ]
    assert len(found) == 1, f"{len(found)} {kind.__name__} {match}"
    return found[0]


def answers(world: World) -> dict[int, str]:
    kinds = (ev.ImageReady, ev.ImageFailed)
    return {event.request: event.TYPE for event in world.log if isinstance(event, kinds)}


def when(world: World, kind: type[ev.Event], act: object, **match: object) -> None:
    """Do something as soon as such an event is in the log."""
    record = world.record

    def watched(event: ev.Event) -> None:
        record(event)
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in match.items()):
            act()  # type: ignore[operator]

    world.record = watched  # type: ignore[method-assign]


def test_a_later_image_is_asked_for_when_its_case_is_due_and_not_before() -> None:
    world = two_images()
    assert world.run().exit_code == 0
    order = (
        place(world, ev.ImageReady, request=ev.OWN),
        place(world, ev.CaseStarted, case="case0"),
        place(world, ev.CaseFinished, case="case0"),
        place(world, ev.ImageRequested, case="case1"),
        place(world, ev.ImageReady, request=FIRST_OF_CASES),
        place(world, ev.CaseStarted, case="case1"),
    )
    assert list(order) == sorted(order)
    (wanted,) = world.of(ev.ImageRequested)
    assert wanted == ev.ImageRequested(FIRST_OF_CASES, "image:2", "", ("n0", "n1", "n2"), "case1")


def test_every_container_is_started_from_the_image_of_its_case() -> None:
    world = two_images(4)
    world.run()
    started = {message.case: message.spec.image_id for _, message in world.told_to(m.CaseOpen)}
    first, second = image_id("image:1"), image_id("image:2")
    assert started == {"case0": first, "case1": second, "case2": first, "case3": second}
    assert [event.case for event in world.of(ev.ImageRequested)] == ["case1"], "an image was brought twice"
    known = world.engine.cases.images
    assert [known.id_of(world.plan, f"case{n}") for n in range(4)] == [first, second] * 2


def test_a_node_that_has_got_the_image_since_it_was_asked_is_not_given_its_old_one() -> None:
    known, case = CaseImages(), make_plan(2, 1, docker=True).cases[0]
    known.told(ev.ImageOnNode("n1", "image:1", "sha256:old"))
    known.told(ev.ImageOnNode("n2", "image:1", ""))
    known.told(ev.ImageSource("archive", "image:1", "sha256:new", 1))
    known.told(ev.LayersOnNode("n1", True, 1, (), True, 1, 1))
    known.told(ev.LayersOnNode("n2", False, 0, (), True, 1, 1))
    known.told(ev.ImageOnNode("n2", "image:1", "sha256:manifest", by_manifest=True))
    known.ready(ev.OWN, "image:1", "sha256:new")
    assert known.ids_on(("n1", "n2"), case) == {"n1": "sha256:new", "n2": "sha256:manifest"}


@pytest.mark.parametrize("holds", [0.0, 1.0])
def test_each_node_starts_the_container_from_what_its_own_engine_calls_the_image(holds: float) -> None:
    world = World(make_plan(3, 2, docker=True, images=2), odds=Odds(holds=holds))
    world.containerd = {"n1"}
    world.run()
    for node, message in world.told_to(m.CaseOpen):
        assert message.spec.image_id == world.id_on(node, f"image:{1 + int(message.case[-1])}")
    assert {event.image_id for event in world.of(ev.ImageReady)} == {image_id("image:1"), image_id("image:2")}
    assert bool(world.of(ev.ImageSource)) is not holds


@pytest.mark.parametrize("lacking", [1, 2])
def test_one_that_cannot_be_had_fails_its_cases_and_no_other(lacking: int) -> None:
    world = two_images(4)
    world.nowhere = {f"image:{lacking}"}
    finished = world.run()
    why = f"not run: the image image:{lacking} could not be brought to every node: nobody has image:{lacking}"
    assert verdicts(world) == {
        f"case{number}": ("FAILURE", why) if number % 2 == lacking - 1 else ("SUCCESS", "")
        for number in range(4)
    }
    assert (finished.state, finished.exit_code) == ("failed", Exit.RUN)
    failed = ("case0, case2", "case1, case3")[lacking - 1]
    assert finished.reason == f"failed: {failed}"
    assert world.engine.cases.images.id_of(world.plan, f"case{lacking - 1}") == ""
    requests = [event for event in world.of(ev.ImageRequested) if event.case]
    assert len(requests) == 1, "what could not be brought is not tried again for the next case"


def test_one_that_takes_too_long_is_waited_for_no_longer_than_an_image_may_take() -> None:
    world = two_images()
    world.transfer_s = 0.01
    when(world, ev.ImagePlanned, lambda: setattr(world, "transfer_s", 10_000.0))
    finished = world.run()
    assert verdicts(world)["case0"][0] == "SUCCESS"
    status, why = verdicts(world)["case1"]
    assert status == "FAILURE"
    assert "the image is not there after 600 s" in why
    assert finished.exit_code == Exit.RUN


@pytest.mark.parametrize("level", [1, 2])
def test_a_cancel_while_it_is_on_its_way_ends_the_run_and_calls_it_off(level: int) -> None:
    world = two_images(3)
    when(
        world,
        ev.ImageRequested,
        lambda: world.happen(ev.CancelRequested(level, "someone"), 0.1),
    )
    finished = world.run()
    assert (finished.state, finished.exit_code) == ("cancelled", Exit.INTERRUPTED)
    assert {case: status for case, (status, _) in verdicts(world).items()} == {
        "case0": "SUCCESS",
        "case1": "CANCELLED",
        "case2": "CANCELLED",
    }
    assert {node for node, _ in world.told_to(m.SyncStop)} == {"n0", "n1", "n2"}
    assert answers(world)[FIRST_OF_CASES] == "image.failed"
    assert not [event for event in world.of(ev.CaseStarted) if event.case != "case0"]


def test_the_end_of_the_allocation_meanwhile_ends_the_run_with_its_code() -> None:
    world = two_images()
    when(world, ev.ImageRequested, lambda: world.happen(ev.AllocationEnded("TIMEOUT", "limit"), 0.1))
    finished = world.run()
    assert finished.exit_code == Exit.SCHEDULER
    assert verdicts(world)["case1"][1].startswith("not run: the scheduler ended the allocation: TIMEOUT")


def test_a_node_that_is_lost_meanwhile_fails_the_case_by_name() -> None:
    world = two_images(3)
    when(world, ev.ImageRequested, lambda: world.die("n1"))
    finished = world.run()
    assert finished.exit_code == Exit.RUN
    found = verdicts(world)
    assert "n1" in found["case1"][1]
    assert "lost" in found["case1"][1]
    assert found["case2"] == ("FAILURE", "not run: n1 was lost before")


def test_a_node_that_is_silent_for_a_moment_delays_it_only() -> None:
    world = two_images()

    def blink() -> None:
        world.record(ev.AgentSilent("n1", "link cut"))
        assert "n1" not in world.engine.roster.of(Member.JOINED)
        world.happen(ev.AgentJoined("n1", 1, "one", "10.0.0.2", resumed=True), 20.0)

    when(world, ev.CaseClosedOn, blink, case="case0", node="n2")
    assert world.run().exit_code == 0


def test_what_a_person_has_asked_for_comes_to_its_end_first() -> None:
    world = two_images()

    def ask() -> None:
        world.transfer_s = LONG_S
        world.record(ev.ImageRequested(2, "other:1", "", ("n0", "n1")))

    when(world, ev.StepBegun, ask, case="case0")
    assert world.run().exit_code == 0
    assert place(world, ev.ImageRequested, case="case1") < place(world, ev.ImageReady, request=2)
    asked = [n for n, message in world.told_to(m.ImageQuery) if message.reference == "image:2"]
    assert asked == ["n0", "n1", "n2"]
    assert answers(world) == {1: "image.ready", 2: "image.ready", FIRST_OF_CASES: "image.ready"}


def test_a_person_has_to_wait_for_the_image_of_a_case() -> None:
    world = two_images()
    when(
        world,
        ev.ImageRequested,
        lambda: world.record(ev.ImageRequested(20, "other:1", "", ("n0",))),
        request=FIRST_OF_CASES,
    )
    assert world.run().exit_code == 0
    (refused,) = world.of(ev.ImageFailed)
    assert (refused.request, refused.reason) == (
        20,
        "image:2 is on its way to its nodes; try again when it is there",
    )


@pytest.mark.parametrize("end", [ev.ImageCalledOff(2), ev.CancelRequested(1, "someone")])
def test_a_case_that_waits_for_what_a_person_wants_goes_on_or_ends_with_it(end: ev.Event) -> None:
    world = two_images()

    def ask() -> None:
        world.transfer_s = 10_000.0
        world.record(ev.ImageRequested(2, "other:1", "", ("n0", "n1")))

    def leave() -> None:
        world.transfer_s = 1.0
        world.happen(end, 5.0)

    when(world, ev.StepBegun, ask, case="case0")
    when(world, ev.ImageRequested, leave, case="case1")
    finished = world.run()
    cancelled = isinstance(end, ev.CancelRequested)
    assert finished.exit_code == (Exit.INTERRUPTED if cancelled else 0)
    assert answers(world)[FIRST_OF_CASES] == ("image.failed" if cancelled else "image.ready")


def test_a_case_that_waits_for_a_persons_image_ends_when_one_of_its_nodes_is_lost() -> None:
    world = two_images()

    def ask() -> None:
        world.transfer_s = 10_000.0
        world.record(ev.ImageRequested(2, "other:1", "", ("n0", "n1")))

    when(world, ev.StepBegun, ask, case="case0")
    when(world, ev.ImageRequested, lambda: world.happen(ev.AgentLost("n2", "power"), 5.0), case="case1")
    world.run()
    status, why = verdicts(world)["case1"]
    assert (status, "n2 was lost" in why) == ("FAILURE", True)
    (failed,) = [event for event in world.of(ev.ImageFailed) if event.request == FIRST_OF_CASES]
    assert failed.reason == "n2 was lost"


def test_an_old_log_tells_no_case_of_a_request() -> None:
    line = (
        b'{"v":1,"seq":3,"ts":"2026-01-01T00:00:00.000Z","type":"image.requested","run":"r",'
        b'"data":{"request":2,"reference":"a:1","archive":"","nodes":["n1"]}}'
    )
    recorded = ev.from_line(line)
    assert recorded is not None
    assert recorded.event == ev.ImageRequested(2, "a:1", "", ("n1",))
