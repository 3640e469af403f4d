"""What the agent asks of the controller for a workload, and what it makes of the answers."""

from __future__ import annotations

import asyncio

import pytest
from phalanx.agent.exchange import BarrierFailed, CaseExchange, ExchangeError
from phalanx.protocol.messages import (
    BarrierEnter,
    BarrierFail,
    BarrierRelease,
    KvGet,
    KvPut,
    KvReply,
    Message,
)


class Wire:
    """What was sent, in order."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.exchange = CaseExchange("train", self.sent.put_nowait)


async def test_ranks_of_a_node_share_a_release_and_leave_nothing_behind() -> None:
    wire = Wire()
    calls = [asyncio.ensure_future(wire.exchange.barrier("go", rank, 0, 0)) for rank in (0, 1)]
    assert [await wire.sent.get() for _ in calls] == [
        BarrierEnter("train", "go", 0, 0, 0),
        BarrierEnter("train", "go", 0, 1, 0),
    ]
    wire.exchange.on_release(BarrierRelease("train", "go", 1, ((0, 3),)))
    wire.exchange.on_release(BarrierRelease("train", "go", 0, ((0, 2), (7, 7))))
    assert [await call for call in calls] == [[0, 1, 2, 7]] * 2
    assert not wire.exchange._barriers


async def test_a_failed_barrier_says_why() -> None:
    wire = Wire()
    call = asyncio.ensure_future(wire.exchange.barrier("go", 0, 4, 2))
    assert await wire.sent.get() == BarrierEnter("train", "go", 4, 0, 2)
    wire.exchange.on_fail(BarrierFail("train", "go", 4, "rank 1 left"))
    with pytest.raises(BarrierFailed, match="rank 1 left"):
        await call


async def test_a_cancelled_arrival_is_forgotten_and_without_generations_the_next_one_is_taken() -> None:
    wire = Wire()
    for generation in (0, 1):
        call = asyncio.ensure_future(wire.exchange.barrier("go", 0, None, 0))
        assert await wire.sent.get() == BarrierEnter("train", "go", generation, 0, 0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert not wire.exchange._barriers


async def test_keys_are_set_and_read_and_refusals_told() -> None:
    wire = Wire()
    setting = asyncio.ensure_future(wire.exchange.put("a", b"1"))
    put = await wire.sent.get()
    assert isinstance(put, KvPut)
    assert not wire.exchange.on_reply(KvReply(put.request + 1000, b"9", ""))
    assert wire.exchange.on_reply(KvReply(put.request, b"1", ""))
    await setting
    for reply, expected in ((b"1", b"1"), (None, None)):
        reading = asyncio.ensure_future(wire.exchange.get("a", 0.0))
        get = await wire.sent.get()
        assert isinstance(get, KvGet)
        wire.exchange.on_reply(KvReply(get.request, reply, "" if reply else "not set"))
        assert await reading == expected
    setting = asyncio.ensure_future(wire.exchange.put("a", b"1"))
    put = await wire.sent.get()
    assert isinstance(put, KvPut)
    wire.exchange.on_reply(KvReply(put.request, None, "the case holds 65536 keys"))
    with pytest.raises(ExchangeError, match="cannot set the key 'a': the case holds 65536 keys"):
        await setting
    assert await wire.exchange.get("late", 0.01) is None
    assert len(wire.exchange._requests) == 1  # for whoever asks next


async def test_ranks_that_wait_for_a_key_ask_as_one_also_after_some_gave_up() -> None:
    wire = Wire()
    assert await wire.exchange.get("server", 0.01) is None
    get = await wire.sent.get()
    assert isinstance(get, KvGet)
    reading = [asyncio.ensure_future(wire.exchange.get("server", 5.0)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert wire.sent.empty()
    assert wire.exchange.on_reply(KvReply(get.request, b"n1:80", ""))
    assert await asyncio.gather(*reading) == [b"n1:80"] * 3
    assert not wire.exchange._awaited
    assert not wire.exchange._requests
    later = asyncio.ensure_future(wire.exchange.get("server", 5.0))
    again = await wire.sent.get()
    assert isinstance(again, KvGet)
    wire.exchange.on_reply(KvReply(again.request, b"n2:80", ""))
    assert await later == b"n2:80"


async def test_a_key_that_cannot_be_asked_for_now_can_be_later() -> None:
    wire, crowded = Wire(), True
    wire.exchange.crowded = lambda: crowded
    with pytest.raises(ExchangeError, match="has not answered for a while"):
        await wire.exchange.get("server", 5.0)
    crowded = False
    reading = asyncio.ensure_future(wire.exchange.get("server", 5.0))
    get = await wire.sent.get()
    assert isinstance(get, KvGet)
    wire.exchange.on_reply(KvReply(get.request, None, "too many readers wait"))
    with pytest.raises(ExchangeError, match="too many readers wait"):
        await reading


async def test_giving_up_tells_all_who_wait() -> None:
    wire = Wire()
    barrier = asyncio.ensure_future(wire.exchange.barrier("go", 0, 0, 0))
    reading = asyncio.ensure_future(wire.exchange.get("a", 60.0))
    for _ in range(2):
        await wire.sent.get()
    wire.exchange.give_up("the case is over on this node")
    with pytest.raises(BarrierFailed, match="the case is over"):
        await barrier
    with pytest.raises(ExchangeError, match="the case is over"):
        await reading
