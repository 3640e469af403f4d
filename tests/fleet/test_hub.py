"""The hub with real TLS on loopback: who gets in, who does not, and what is said about it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.protocol import lifeline
from phalanx.protocol import messages as m
from phalanx.protocol.messages import Channel

from .peers import Peer, fleet, say_hello


async def test_an_agent_with_the_key_of_the_run_joins() -> None:
    async with fleet() as one:
        peer = await Peer(one, say_hello()).shake()
        assert peer.open
        assert one.of(ev.AgentJoined) == [ev.AgentJoined("n0", 0, "i1", "127.0.0.1", False)]


async def test_a_wrong_key_is_refused_without_a_word_and_counted_once() -> None:
    async with fleet() as one:
        peer = await Peer(one, say_hello(), key=b"x" * 32).shake()
        assert not peer.open
        await one.until(lambda: one.of(ev.PeerRefused))
        assert one.events == [one.of(ev.PeerRefused)[0]]
        assert one.of(ev.PeerRefused)[0].count == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "other"},
        {"node_rank": 1},
        {"node": "stranger"},
        {"agent_build": "c" * 64},
        {"resume": True},
        {"channel": Channel.BULK},
        {"channel": Channel.BULK, "resume": True},
    ],
)
async def test_a_hello_that_fits_no_seat_is_refused_even_with_the_right_secret(
    changes: dict[str, object],
) -> None:
    async with fleet() as one:
        peer = await Peer(one, say_hello(**changes)).shake()  # type: ignore[arg-type]
        assert not peer.open
        await one.until(lambda: one.of(ev.PeerRefused))
        assert not one.of(ev.AgentJoined)


async def test_recorded_bytes_of_a_hello_prove_nothing_on_another_connection() -> None:
    async with fleet() as one:
        peer = await Peer(one, say_hello()).shake()
        peer.drop()
        await one.until(lambda: one.of(ev.AgentSilent))
        thief = await Peer(one, say_hello()).connect()
        thief.say(peer.said)
        await thief._reader.read()
        assert len(one.of(ev.AgentJoined)) == 1


async def test_a_live_agent_keeps_its_seat_whatever_another_with_the_join_key_tries() -> None:
    async with fleet() as one:
        first = await Peer(one, say_hello()).shake()
        one.take(m.Notice)
        living = asyncio.create_task(first.closed())
        thieves = [Peer(one, say_hello(incarnation=f"thief{number}")) for number in range(20)]
        await asyncio.gather(*(thief.shake() for thief in thieves))
        assert not any(thief.open for thief in thieves)
        first.send(m.Notice("still here"))
        await one.until(lambda: one.got)
        assert not living.done()
        living.cancel()
        assert one.got == [("n0", m.Notice("still here"))]
        assert len(one.of(ev.AgentJoined)) == 1


async def test_a_second_agent_is_refused_before_the_first_one_is_in_the_event_log() -> None:
    async with fleet() as one:
        one.believing = False
        first = await Peer(one, say_hello()).shake()
        assert not (await Peer(one, say_hello(incarnation="thief")).shake()).open
        assert first.open
        bulk = say_hello(channel=Channel.BULK, resume=True)
        assert (await Peer(one, bulk, first.resume_key).shake()).open


async def test_an_agent_comes_back_with_its_resume_key_and_misses_nothing() -> None:
    async with fleet() as one:
        first = await Peer(one, say_hello()).shake()
        first.drop()
        await one.until(lambda: one.of(ev.AgentSilent))
        one.hub.tell(["n0"], m.Leave("while away", 1.0))
        hello = say_hello(resume=True)
        again = await Peer(one, hello, first.resume_key, first.connection.lifeline).shake()
        await again.until(lambda: again.got)
        assert again.got == [m.Leave("while away", 1.0)]
        assert [event.resumed for event in one.of(ev.AgentJoined)] == [False, True]  # type: ignore[attr-defined]


async def test_a_connected_agent_for_which_there_is_no_more_room_is_lost_and_does_not_come_back_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifeline, "KEPT_BYTES", 4096)
    async with fleet() as one:
        peer = await Peer(one, say_hello()).shake()
        one.hub.tell(["n0"], m.Leave("x" * 3000, 1.0))
        one.hub.tell(["n0"], m.Leave("y" * 3000, 1.0))
        assert [type(event) for event in one.events] == [ev.AgentJoined, ev.AgentLost]
        await peer.closed()
        again = Peer(one, say_hello(resume=True), peer.resume_key, peer.connection.lifeline)
        assert not (await again.shake()).open
        assert not one.of(ev.AgentSilent)
        one.hub.tell(["n0"], m.Leave("z", 1.0))
        one.hub.fence("n0", "given up")
        assert len(one.events) == 2


async def test_the_join_key_does_not_resume() -> None:
    async with fleet() as one:
        first = await Peer(one, say_hello()).shake()
        first.drop()
        await one.until(lambda: one.of(ev.AgentSilent))
        assert not (await Peer(one, say_hello(resume=True)).shake()).open


async def test_a_bulk_connection_needs_the_resume_key() -> None:
    async with fleet() as one:
        first = await Peer(one, say_hello()).shake()
        bulk = say_hello(channel=Channel.BULK, resume=True)
        assert not (await Peer(one, bulk).shake()).open
        assert (await Peer(one, bulk, first.resume_key).shake()).open
        assert one.hub.bulk_of("n0") is not None


async def test_an_agent_that_is_not_heard_is_silent() -> None:
    async with fleet() as one:
        peer = await Peer(one, say_hello()).shake()
        peer.beats = False
        await one.until(lambda: one.of(ev.AgentSilent))
        assert "nothing heard" in one.of(ev.AgentSilent)[0].detail  # type: ignore[attr-defined]


async def test_a_crowd_of_refused_peers_is_one_event_a_second() -> None:
    async with fleet() as one:
        await asyncio.gather(*(Peer(one, say_hello(), key=b"x" * 32).shake() for _ in range(30)))
        await one.until(lambda: sum(event.count for event in one.of(ev.PeerRefused)) == 30)  # type: ignore[attr-defined]
        assert len(one.of(ev.PeerRefused)) <= 3


async def test_strangers_that_hold_the_door_and_say_nothing_keep_no_agent_out() -> None:
    async with fleet() as one:
        address = one.listener.addresses[0]
        idle = [socket.create_connection(address) for _ in range(300)]
        try:
            peer = await Peer(one, say_hello()).shake()
            assert peer.open
        finally:
            for sock in idle:
                sock.close()


async def test_a_node_that_is_given_up_is_fenced_and_cannot_come_back() -> None:
    async with fleet() as one:
        peer = await Peer(one, say_hello()).shake()
        one.hub.fence("n0", "given up")
        await peer.closed()
        assert peer.got == [m.Fence("given up")]
        again = Peer(one, say_hello(resume=True), peer.resume_key, peer.connection.lifeline)
        assert not (await again.shake()).open
        assert not one.of(ev.AgentSilent)


async def test_a_message_that_sets_off_a_bug_costs_only_its_own_connection() -> None:
    async with fleet() as one:

        def stumble(node: str, message: m.Message) -> None:
            raise KeyError("a bug")

        one.hub.take([m.Notice], stumble)
        bad = await Peer(one, say_hello()).shake()
        good = await Peer(one, say_hello("n1", 1)).shake()
        bad.send(m.Notice("boom"))
        await one.until(lambda: one.of(ev.AgentSilent))
        assert [event.node for event in one.of(ev.AgentSilent)] == ["n0"]  # type: ignore[attr-defined]
        one.take(m.Draining)
        good.send(m.Draining("fine"))
        await one.until(lambda: one.got)


async def test_dismissed_agents_are_told_to_leave_and_nothing_of_them_is_recorded() -> None:
    async with fleet() as one:
        peer = await Peer(one, say_hello()).shake()
        before = list(one.events)
        going = asyncio.create_task(one.hub.dismiss("the disk is full", 2.0))
        await peer.until(lambda: peer.got)
        assert peer.got == [m.Leave("the disk is full", 2.0)]
        peer.send(m.Left(()))
        await going
        assert one.events == before
