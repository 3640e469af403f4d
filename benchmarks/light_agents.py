"""Agents without a workload: a socket, real TLS, the real protocol, and answers to what they are told.

Many live in one process, so what they cost each is far less than an agent, and nothing of the join or the
barrier is left out: the pin is checked, both sides prove themselves, every message is encoded and decoded.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any, cast

from phalanx.protocol import VERSION
from phalanx.protocol import messages as m
from phalanx.protocol.connection import AgentConnection, State, Timers
from phalanx.protocol.handshake import join_key
from phalanx.protocol.lifeline import Lifeline

from benchmarks import worker

#: As the agent does it after a refusal, in seconds.
RETRY_S = 0.1
BARRIER = "bench"
_ENGINE = m.Engine("", "", "", "")


def client_context() -> ssl.SSLContext:
    """As the agent's: TLS 1.3, the peer known by its pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def own_address(number: int) -> tuple[str, int]:
    """A loopback address of its own, as every node has one."""
    return f"127.2.{number >> 8}.{number & 255}", 0


def pinned(transport: asyncio.BaseTransport, pin: bytes) -> bool:
    """Whether the certificate at the other end is the one that was announced."""
    certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    return hashlib.sha256(certificate).digest() == pin


class Agent(asyncio.Protocol):
    """One agent. ``fleet`` counts what happens to it."""

    def __init__(self, fleet: Fleet, node: str, rank: int) -> None:
        self.fleet, self.node, self.rank = fleet, node, rank
        told = fleet.told
        self._key = join_key(bytes.fromhex(told["secret"]), told["run_id"], node, rank)
        self._hello = m.Hello(
            version=VERSION,
            run_id=told["run_id"],
            channel=m.Channel.CONTROL,
            node=node,
            node_rank=rank,
            incarnation=secrets.token_hex(16),
            epoch_seen=1,
            resume=False,
            agent_build=told["agent_build"],
            features=(),
            nonce=secrets.token_bytes(32),
            mac=bytes(32),
        )
        self._transport: asyncio.Transport | None = None
        self._connection: AgentConnection | None = None
        self._case = ""

    async def connect(self) -> None:
        """Join; again when the door was too crowded."""
        loop = asyncio.get_running_loop()
        host, port = self.fleet.told["addresses"][0]
        while True:
            self._connection = AgentConnection(
                self.fleet.pin, self._key, self._hello, Lifeline(), Timers(60.0, 600.0), time.monotonic()
            )
            try:
                await loop.create_connection(
                    lambda: self, host, port, ssl=self.fleet.context, local_addr=own_address(self.rank)
                )
                return
            except OSError:
                self.fleet.retries += 1
                await asyncio.sleep(RETRY_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not pinned(transport, self.fleet.pin):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        was_open = connection.state is State.OPEN
        messages = connection.receive_data(data, time.monotonic())
        if connection.state is State.OPEN and not was_open:
            self.fleet.count("joined")
        for message in messages:
            self._take(message)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        if self._connection is not None and self._connection.state is not State.OPEN:
            self.fleet.retries += 1
            asyncio.get_running_loop().call_later(RETRY_S, self.fleet.spawn, self)

    def send(self, message: m.Message) -> None:
        """Send now."""
        if self._connection is not None:
            self._connection.send(message)
            self._flush()

    def _flush(self) -> None:
        if self._connection is not None and self._transport is not None:
            frames = self._connection.data_to_send()
            if frames:
                self._transport.write(b"".join(frames))

    def _take(self, message: m.Message) -> None:
        if isinstance(message, m.BarrierRelease):
            self.fleet.count("released")
        elif isinstance(message, m.StepStart):
            self._case = message.case
            self.send(m.StepStarted(message.case, message.step, self.rank))
            self.fleet.count("started")
        elif isinstance(message, m.Leave):
            self.send(m.Left(()))
            self.fleet.count("left")
        else:
            answer = _ANSWERS.get(type(message))
            if answer is not None:
                self.send(answer(message))

    def enter(self, generation: int) -> None:
        """Arrive at the barrier."""
        self.send(m.BarrierEnter(self._case, BARRIER, generation, self.rank))

    def exit(self) -> None:
        """The rank has ended well."""
        self.send(m.StepExited(self._case, "main", self.rank, 0, m.Cause.EXITED, 1.0, ""))

    def facts(self) -> None:
        """What the node is."""
        self.send(
            m.Facts(
                self.node, "x86_64", "6.1", "3.11", 8, 1 << 34, 1 << 33, ("10.0.0.1",), 29500, (), (), _ENGINE
            )
        )


_ANSWERS: dict[type[m.Message], Callable[[Any], m.Message]] = {
    m.RuntimeOpen: lambda x: m.RuntimeOpened(x.request, False, "", _ENGINE),
    m.CaseOpen: lambda x: m.CaseOpened(x.request, x.case, "", ""),
    m.Collect: lambda x: m.Collected(x.request, x.case, 0, ()),
    m.CaseClose: lambda x: m.CaseClosed(x.request, x.case, ""),
}


class Fleet:
    """The agents of this process."""

    def __init__(self, told: dict[str, Any], ranks: list[int]) -> None:
        self.told = told
        self.pin = bytes.fromhex(told["pin"])
        self.context = client_context()
        self.retries = 0
        self._counts: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._waiter: tuple[str, int, asyncio.Event] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.agents = [Agent(self, told["nodes"][rank], rank) for rank in ranks]

    def count(self, what: str) -> None:
        """Something happened to one more agent."""
        self._counts[what] = self._counts.get(what, 0) + 1
        self._last[what] = time.monotonic()
        waiter = self._waiter
        if waiter is not None and waiter[0] == what and self._counts[what] >= waiter[1]:
            waiter[2].set()

    async def until(self, what: str, times: int = 1) -> float:
        """Wait until it has happened to every agent so many times; when it did to the last."""
        wanted = times * len(self.agents)
        if self._counts.get(what, 0) < wanted:
            event = asyncio.Event()
            self._waiter = (what, wanted, event)
            await event.wait()
        return self._last[what]

    def spawn(self, agent: Agent) -> None:
        """Let one connect."""
        task = asyncio.get_running_loop().create_task(agent.connect(), name=f"join of {agent.node}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_fleet: list[Fleet] = []


async def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Make the agents, unconnected."""
    _fleet[:] = [Fleet(request["told"], request["ranks"])]
    return {}


async def join(_request: dict[str, Any]) -> dict[str, Any]:
    """All join at once."""
    (fleet,) = _fleet
    for agent in fleet.agents:
        fleet.spawn(agent)
    return {"last": await fleet.until("joined"), "retries": fleet.retries}


async def begin(_request: dict[str, Any]) -> dict[str, Any]:
    """Facts are told; the run goes on until every rank is started."""
    (fleet,) = _fleet
    for agent in fleet.agents:
        agent.facts()
    return {"last": await fleet.until("started")}


async def enter(request: dict[str, Any]) -> dict[str, Any]:
    """All arrive at the barrier, but for the rank ``late`` whose arrival is asked for separately."""
    (fleet,) = _fleet
    late = request.get("late", -1)
    for agent in fleet.agents:
        if agent.rank != late:
            agent.enter(request["generation"])
    return {"last": time.monotonic()}


async def arrive(request: dict[str, Any]) -> dict[str, Any]:
    """The rank ``late`` arrives, if it is one of ours."""
    (fleet,) = _fleet
    for agent in fleet.agents:
        if agent.rank == request["late"]:
            agent.enter(request["generation"])
    return {"last": time.monotonic()}


async def released(request: dict[str, Any]) -> dict[str, Any]:
    """When the last one was released."""
    (fleet,) = _fleet
    return {"last": await fleet.until("released", request["generation"] + 1)}


async def finish(_request: dict[str, Any]) -> dict[str, Any]:
    """The ranks end; the run goes on until every agent was told to leave."""
    (fleet,) = _fleet
    for agent in fleet.agents:
        agent.exit()
    return {"last": await fleet.until("left")}


class _TlsOnly(asyncio.Protocol):
    """Nothing but a handshake and a byte from the server, which shows that it is through as well."""

    def __init__(self, pin: bytes, done: Callable[[], None]) -> None:
        self._pin, self._done = pin, done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not pinned(transport, self._pin):
            cast(asyncio.Transport, transport).abort()

    def data_received(self, data: bytes) -> None:
        self._done()


async def tls_only(request: dict[str, Any]) -> dict[str, Any]:
    """As many TLS handshakes as agents would make, and nothing else."""
    loop = asyncio.get_running_loop()
    context, pin = client_context(), bytes.fromhex(request["pin"])
    ranks: list[int] = request["ranks"]
    everyone, left, last = asyncio.Event(), len(ranks), 0.0

    def done() -> None:
        nonlocal left, last
        left, last = left - 1, time.monotonic()
        if not left:
            everyone.set()

    async def connect(rank: int) -> asyncio.BaseTransport:
        transport, _ = await loop.create_connection(
            lambda: _TlsOnly(pin, done),
            "127.0.0.1",
            request["port"],
            ssl=context,
            local_addr=own_address(rank),
        )
        return transport

    transports = await asyncio.gather(*map(connect, ranks))
    await everyone.wait()
    for transport in transports:
        cast(asyncio.Transport, transport).abort()
    return {"last": last}


if __name__ == "__main__":
    worker.serve(
        {
            "prepare": prepare,
            "join": join,
            "begin": begin,
            "enter": enter,
            "arrive": arrive,
            "released": released,
            "finish": finish,
            "tls_only": tls_only,
        }
    )
