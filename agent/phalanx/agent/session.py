"""The life of an agent: join, do what the controller says, come back after a broken link, leave clean.

The session holds the links and the tasks; what it is told to do is done by ``cases``, ``blobs``, ``logs``
and the runtimes. Without word from the controller for longer than the lease it ends what it runs and exits:
it must be assumed that someone else has taken over, or that nobody will.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.agent.blobs import BlobStore
from phalanx.agent.bootstrap import Bootstrap, Identity
from phalanx.agent.link import Link, LinkError, client_context, connect_any
from phalanx.agent.logs import LogPump
from phalanx.protocol import VERSION
from phalanx.protocol.connection import Timers
from phalanx.protocol.frames import encode
from phalanx.protocol.handshake import join_key, resume_key
from phalanx.protocol.lifeline import Lifeline
from phalanx.protocol.messages import (
    Channel,
    Draining,
    Hello,
    Kind,
    Left,
    LogData,
    Message,
    Notice,
)
from phalanx.protocol.schema import as_words

if TYPE_CHECKING:  # imported once the agent has joined
    from phalanx.agent.cases import Cases
    from phalanx.agent.runtimes.base import Owner

#: Exit statuses: went as asked; could not join; the lease ran out (EX_TEMPFAIL); fenced off.
LEFT, NOT_JOINED, ABANDONED, FENCED = 0, 69, 75, 76

#: First and longest pause between two attempts to connect, in seconds.
RETRY_FIRST_S, RETRY_MOST_S = 0.1, 2.0
#: How long the last words may take, in seconds.
GOODBYE_S = 5.0
#: Grace of steps when the scheduler takes the node: its own kill is seconds away.
DRAIN_GRACE_S = 2.0


class NotJoined(Exception):
    """The agent could not join; the message says what was tried."""


@dataclass(slots=True)
class Session:
    """One agent of one run. ``handle`` is given by ``duties``: what each message makes it do."""

    bootstrap: Bootstrap
    identity: Identity
    base: Path
    incarnation: str = field(default_factory=lambda: secrets.token_hex(16))
    lifeline: Lifeline = field(default_factory=Lifeline)
    link: Link | None = None
    bulk: Link | None = None
    handle: Callable[[Message], None] = lambda message: None
    handle_bulk: Callable[[Message], None] = lambda message: None
    logs: LogPump = field(init=False)
    blobs: BlobStore = field(init=False)
    cases: Cases = field(init=False)
    session_key: bytes = b""
    lease_s: float = 30.0
    heartbeat_s: float = 2.0
    exit_status: int | None = None
    draining: bool = False
    _last_heard: float = 0.0
    _context: ssl.SSLContext = field(default_factory=client_context)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: asyncio.TaskGroup | None = None
    _bulk_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _bulk_up: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.logs = LogPump(self.send, self._send_log, self._lane)
        self.blobs = BlobStore(self.base / "blobs", self.send, self.send_bulk, self._need_bulk)

    # --- sending

    def send(self, message: Message) -> None:
        """Send a control message; while the link is down it is kept and goes out after the reconnect."""
        if self.link is not None and self.link.is_open:
            self.link.send(message)
        else:
            self.lifeline.keep(encode(message))

    def send_bulk(self, message: Message) -> bool:
        """Send on the bulk link; False when it is down."""
        if self.bulk is None or not self.bulk.is_open:
            return False
        self.bulk.send(message)
        return True

    def _send_log(self, message: LogData) -> bool:
        if self.link is None or not self.link.is_open or self.link.paused:
            return False
        self.link.send(message)
        return True

    def _lane(self, kind: Kind) -> int:
        return self.link.waiting(kind) if self.link is not None else 0

    def notice(self, text: str) -> None:
        """Tell people something."""
        self.send(Notice(as_words(text)))

    # --- tasks

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task that belongs to this session."""
        if self._tasks is None:
            work.close()
            return
        self._tasks.create_task(work, name=name)

    # --- links

    def _hello(self, channel: Channel, resume: bool) -> Hello:
        return Hello(
            version=VERSION,
            run_id=self.bootstrap.run_id,
            channel=channel,
            node=self.identity.node,
            node_rank=self.identity.node_rank,
            incarnation=self.incarnation,
            epoch_seen=1,
            resume=resume,
            agent_build=self.bootstrap.agent_build,
            features=(),
            nonce=secrets.token_bytes(32),
            mac=bytes(32),
        )

    def _make_link(self, channel: Channel) -> Callable[[], Link]:
        resume = bool(self.session_key)
        if resume:
            key = resume_key(self.session_key)
        else:
            boot, who = self.bootstrap, self.identity
            key = join_key(boot.secret, boot.run_id, who.node, who.node_rank)
        hello = self._hello(channel, resume)
        timers = Timers(self.heartbeat_s, max(5 * self.heartbeat_s, 2.0))
        lifeline = self.lifeline if channel is Channel.CONTROL else Lifeline()
        on_message = self._on_message if channel is Channel.CONTROL else self.handle_bulk

        def make() -> Link:
            return Link(self.bootstrap.pin, key, hello, lifeline, timers, on_message)

        return make

    def _on_message(self, message: Message) -> None:
        self._last_heard = time.monotonic()
        self.handle(message)

    async def join(self) -> None:
        """Connect for the first time. Raises NotJoined after the join timeout, naming every address."""
        deadline = time.monotonic() + self.bootstrap.join_timeout_s
        pause = RETRY_FIRST_S
        while trouble := await self._open_control():
            if time.monotonic() + pause > deadline:
                raise NotJoined(f"cannot join run {self.bootstrap.run_id}: {trouble}")
            await asyncio.sleep(pause)
            pause = min(RETRY_MOST_S, pause * 2)

    async def _open_control(self) -> str:
        """Bring the control link up; "" or why that failed."""
        try:
            link = await connect_any(
                self.bootstrap.addresses, self._make_link(Channel.CONTROL), self._context
            )
        except LinkError as error:
            return str(error)
        welcome = link.connection.accepted
        if welcome is not None:
            self.session_key = welcome.session_key
            self.heartbeat_s, self.lease_s = welcome.heartbeat_s, welcome.lease_s
        self._last_heard = time.monotonic()
        self.link = link
        return ""

    async def _keep_control(self) -> None:
        """Hold the control link: when it breaks, come back, until the lease is over."""
        pause = RETRY_FIRST_S
        while True:
            if self.link is not None and self.link.is_open:
                await self.link.closed
                pause = RETRY_FIRST_S
            elif await self._open_control() == "":
                self.logs.reconnected()
            else:
                await asyncio.sleep(pause)
                pause = min(RETRY_MOST_S, pause * 2)

    async def _need_bulk(self) -> None:
        self._bulk_wanted.set()
        await self._bulk_up.wait()

    async def _keep_bulk(self) -> None:
        """Hold a bulk link once one is needed."""
        await self._bulk_wanted.wait()
        pause = RETRY_FIRST_S
        while True:
            try:
                self.bulk = await connect_any(
                    self.bootstrap.addresses, self._make_link(Channel.BULK), self._context
                )
            except LinkError:
                await asyncio.sleep(pause)
                pause = min(RETRY_MOST_S, pause * 2)
                continue
            pause = RETRY_FIRST_S
            self._bulk_up.set()
            self.blobs.bulk_is_up()
            await self.bulk.closed
            self._bulk_up.clear()

    # --- time

    async def _keep_time(self) -> None:
        """Heartbeats, leases, and the end of our own lease."""
        while True:
            await asyncio.sleep(self.heartbeat_s / 2)
            for link in (self.link, self.bulk):
                if link is not None and link.is_open:
                    link.tick()
            now = time.monotonic()
            if self.link is not None and self.link.is_open:
                self._last_heard = now - self.link.connection.liveness.silent_for(now)
                self.cases.renew_leases()
            if now - self._last_heard > self.lease_s:
                await self.abandon()

    async def abandon(self) -> None:
        """The controller is out of reach for longer than the lease: end everything and go."""
        await self.cases.kill_all()
        self.end(ABANDONED)

    def end(self, status: int) -> None:
        """The session is over with this exit status."""
        if self.exit_status is None:
            self.exit_status = status
        self._over.set()

    # --- leaving

    async def leave(self, grace_s: float, status: int = LEFT) -> None:
        """End cases, send what is left, say goodbye."""
        leftovers = await self.cases.close_all(grace_s)
        await self.logs.drained(None, GOODBYE_S)
        self.send(Left(tuple(as_words(words) for words in leftovers[:64])))
        if self.link is not None:
            await self.link.finish(GOODBYE_S)
        self.end(status)

    async def drain(self, reason: str) -> None:
        """The scheduler takes the node: save what can be saved, then wait to be told to leave."""
        if self.draining:
            return
        self.draining = True
        self.send(Draining(as_words(reason)))
        await self.cases.drain(DRAIN_GRACE_S)

    async def run(self, background: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """Everything after joining, until the end. ``background``: what else starts once we are in."""
        self._last_heard = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            own = [
                tasks.create_task(self._keep_control(), name="control link"),
                tasks.create_task(self._keep_bulk(), name="bulk link"),
                tasks.create_task(self._keep_time(), name="heartbeats and leases"),
                tasks.create_task(self.logs.run(), name="logs to the controller"),
            ]
            tasks.create_task(background(), name="facts")
            await self._over.wait()
            self._tasks = None
            for task in own:
                task.cancel()
            _cancel_others(own)
        return self.exit_status if self.exit_status is not None else ABANDONED


def _cancel_others(own: list[asyncio.Task[None]]) -> None:
    """End what is still waiting for something that will not come; the session is over."""
    current = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not current and task not in own:
            task.cancel()


def make_base(run_id: str, node_rank: int, incarnation: str) -> Path:
    """The agent's own folder under TMPDIR, 0700, made by us and by nobody before us. Raises OSError."""
    root = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - mkdir below fails on what exists
    base = root / f"phalanx-{os.geteuid()}-{run_id}-{node_rank}-{incarnation[:4]}"
    base.mkdir(mode=0o700)
    (base / "blobs").mkdir(mode=0o700)
    return base


def say(words: str) -> None:
    """A line for whoever started us; it ends in the launch log of the run."""
    sys.stderr.write(f"phalanx-agent: {words}\n")
    sys.stderr.flush()


def owner_of(session: Session) -> Owner:
    """Whose the places of this session are."""
    from phalanx.agent.runtimes.base import Owner

    return Owner(
        session.bootstrap.run_id,
        session.identity.node,
        session.identity.node_rank,
        session.incarnation,
        os.geteuid(),
        session.lease_s,
    )
