"""What the log keeps of barriers that cannot open: each name once, whoever comes first or last."""

from __future__ import annotations

from phalanx.controller.fleet import exchange
from phalanx.controller.fleet.events import BarrierFailed
from phalanx.controller.fleet.exchange import CaseExchange
from phalanx.protocol.messages import BarrierEnter


def four() -> CaseExchange:
    return CaseExchange("case", {rank: f"n{rank}" for rank in range(4)})


def enter(one: CaseExchange, rank: int, name: str = "ready", generation: int = 0) -> None:
    one.enter(f"n{rank}", BarrierEnter("case", name, generation, rank, 0))


def told(one: CaseExchange) -> list[tuple[str, str]]:
    return [(event.name, event.reason) for event in one.take_events() if isinstance(event, BarrierFailed)]


def test_a_barrier_that_a_rank_left_while_others_waited_is_told() -> None:
    one = four()
    enter(one, 0)
    enter(one, 1)
    one.leave([2], "exit status 0 on n2")
    enter(one, 3)
    assert told(one) == [("ready", "rank 2 left: exit status 0 on n2")]


def test_one_to_which_everyone_comes_after_a_rank_left_is_told_as_well_and_once() -> None:
    one = four()
    one.leave([2], "exit status 0 on n2")
    for rank in (0, 1, 3):
        enter(one, rank)
    assert told(one) == [("ready", "rank 2 left: exit status 0 on n2")]
    enter(one, 0, generation=1)
    assert told(one) == []


def test_a_workload_that_goes_on_to_ever_new_names_does_not_fill_the_log() -> None:
    one = four()
    one.leave([2], "gone")
    for number in range(2 * exchange.MOST_TOLD):
        enter(one, 0, f"step-{number}")
    assert len(told(one)) == exchange.MOST_TOLD


def test_who_is_no_member_is_told_alone() -> None:
    one = four()
    one.enter("n0", BarrierEnter("case", "ready", 0, 9, 0))
    assert told(one) == []
