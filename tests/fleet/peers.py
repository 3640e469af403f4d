"""A hub on loopback with real TLS, and peers that speak to it: honest agents, thieves and strangers."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.certificate import make_identity
from phalanx.controller.fleet.hub import Hub
from phalanx.controller.fleet.listener import accept_forever, listen
from phalanx.controller.fleet.roster import Roster
from phalanx.controller.plan.model import Timing
from phalanx.protocol import handshake
from phalanx.protocol.connection import AgentConnection, State, Timers
from phalanx.protocol.lifeline import Lifeline
from phalanx.protocol.messages import Channel, Hello, Message

RUN, SECRET, BUILD = "run", b"s" * 32, "b" * 64
WITHIN_S = 10.0
TIMING = Timing(heartbeat_s=0.05, dead_after_s=0.6)


def say_hello(node: str = "n0", node_rank: int = 0, incarnation: str = "i1", **changes: object) -> Hello:
    """The hello of an honest agent, with changes."""
    hello = Hello(
        0, RUN, Channel.CONTROL, node, node_rank, incarnation, 0, False, BUILD, (), os.urandom(32), bytes(32)
    )
    return replace(hello, **changes)  # type: ignore[arg-type]


class Fleet:
    """The hub under test, with a roster that believes events at once unless it is told to wait."""

    def __init__(self, nodes: int = 3) -> None:
        self.identity = make_identity(RUN)
        self.listener = listen(("127.0.0.1",))
        self.roster = Roster()
        self.roster.expect(tuple(f"n{rank}" for rank in range(nodes)))
        self.events: list[ev.Event] = []
        self.got: list[tuple[str, Message]] = []
        self.believing = True
        self._changed = asyncio.Event()
        self.hub = Hub(RUN, SECRET, self.identity.fingerprint, BUILD, TIMING, self._record, self.roster.seat)

    def _record(self, event: ev.Event) -> None:
        self.events.append(event)
        if self.believing:
            self.roster.apply(event)
        self._changed.set()

    def take(self, kind: type[Message]) -> None:
        """Messages of this kind are kept."""

        def keep(node: str, message: Message) -> None:
            self.got.append((node, message))
            self._changed.set()

        self.hub.take([kind], keep)

    def of(self, kind: type[ev.Event]) -> list[ev.Event]:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for events or messages to make something true."""
        async with asyncio.timeout(WITHIN_S):
            while not true():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def fleet(nodes: int = 3) -> AsyncIterator[Fleet]:
    """A fleet whose hub listens."""
    one = Fleet(nodes)
    tasks = [
        asyncio.create_task(
            accept_forever(one.listener.sockets[0], one.identity.context, one.hub.make_session)
        ),
        asyncio.create_task(one.hub.keep_time()),
    ]
    try:
        yield one
    finally:
        await one.hub.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        one.listener.close()


class Peer:
    """One connection to the hub."""

    def __init__(
        self, to: Fleet, hello: Hello, key: bytes | None = None, lifeline: Lifeline | None = None
    ) -> None:
        self.hello = hello
        self._to = to
        key = key or handshake.join_key(SECRET, RUN, hello.node, hello.node_rank)
        timers = Timers(TIMING.heartbeat_s, TIMING.dead_after_s)
        self.connection = AgentConnection(
            to.identity.fingerprint, key, hello, lifeline or Lifeline(), timers, time.monotonic()
        )
        self.got: list[Message] = []
        self.said = b""
        self.beats = True
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> Peer:
        """TCP and TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, port = self._to.listener.addresses[0]
        self._reader, self._writer = await asyncio.open_connection(host, port, ssl=context)
        return self

    async def shake(self) -> Peer:
        """Connect and shake hands. The connection is then open, or closed by the hub."""
        await self.connect()
        async with asyncio.timeout(WITHIN_S):
            while self.connection.state not in (State.OPEN, State.CLOSED):
                await self.turn()
        return self

    async def turn(self) -> bool:
        """Read once and answer; False when the hub has closed."""
        try:
            data = await self._reader.read(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.connection.close()
            return False
        self.got += self.connection.receive_data(data, time.monotonic(), time.time())
        self.speak()
        return True

    def speak(self) -> None:
        """Say what is to be said."""
        if self.beats:
            self.connection.on_time(time.monotonic(), time.time())
        data = b"".join(self.connection.data_to_send())
        self.said += data
        with suppress(OSError):
            self._writer.write(data)

    def send(self, message: Message) -> None:
        """Send a message of an agent."""
        self.connection.send(message)
        self.speak()

    def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def until(self, true: Callable[[], object]) -> None:
        """Go on until something is true."""
        async with asyncio.timeout(WITHIN_S):
            while not true():
                assert await self.turn(), "the hub has closed the connection"

    async def closed(self) -> None:
        """Wait until the hub has closed."""
        async with asyncio.timeout(WITHIN_S):
            while await self.turn():
                pass

    @property
    def open(self) -> bool:
        """Whether the hub has welcomed the peer."""
        return self.connection.state is State.OPEN

    @property
    def resume_key(self) -> bytes:
        """The key that the welcome gave."""
        assert self.connection.accepted is not None
        return handshake.resume_key(self.connection.accepted.session_key)

    def drop(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()
