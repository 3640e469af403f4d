"""What the log keeps of barriers that cannot open: each name once, whoever comes first or last."""

from __future__ import annotations

import pytest
from phalanx.controller.fleet import exchange
from phalanx.controller.fleet.events import BarrierFailed
from phalanx.controller.fleet.exchange import CaseExchange, Reply
from phalanx.protocol.messages import BarrierEnter, KvGet, KvPut, KvReply


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


def test_a_node_that_asks_for_a_key_again_and_again_is_answered_once() -> None:
    one = four()
    for request in range(1, 200_000):
        assert one.get("n1", KvGet(request, "case", "server", 1.0)) == []
    assert one.get("n2", KvGet(7, "case", "server", 1.0)) == []
    assert one.put("n0", KvPut(1, "case", "server", b"n0:80")) == [
        Reply(("n0",), KvReply(1, None, "")),
        Reply(("n1",), KvReply(199_999, b"n0:80", "")),
        Reply(("n2",), KvReply(7, b"n0:80", "")),
    ]
    assert one.put("n0", KvPut(2, "case", "server", b"n3:80")) == [Reply(("n0",), KvReply(2, None, ""))]


def test_of_too_many_readers_the_last_is_refused_until_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "MOST_KEYS", 2)
    one = four()
    assert [one.get("n0", KvGet(number, "case", f"k{number}", 1.0)) for number in range(2)] == [[], []]
    assert one.get("n0", KvGet(3, "case", "k3", 1.0)) == [
        Reply(("n0",), KvReply(3, None, "too many readers wait"))
    ]
    one.put("n1", KvPut(1, "case", "k0", b""))
    assert one.get("n0", KvGet(4, "case", "k3", 1.0)) == []
