"""The life of an agent: join, do what the controller says, come back after a broken link, leave clean.

The session owns the tasks and the lease; the links are held by ``links``, and what a message makes the agent
do is in ``duties``. Without a sign that the controller hears it for longer than the lease, the agent ends
what it runs and exits: it must be assumed that someone else has taken over, or that nobody will.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.agent.blobs import BlobStore
from phalanx.agent.bootstrap import Bootstrap, Identity
from phalanx.agent.lease import Lease, boottime
from phalanx.agent.link import LinkError
from phalanx.agent.links import Links
from phalanx.agent.logs import LogPump
from phalanx.protocol.frames import encode
from phalanx.protocol.lifeline import KEPT_BYTES, Overflow
from phalanx.protocol.messages import Draining, Left, LogData, LogGap, Message, Notice
from phalanx.protocol.schema import as_words

if TYPE_CHECKING:  # imported once the agent has joined
    from phalanx.agent.cases import Cases
    from phalanx.agent.runtimes.base import Owner

#: Exit statuses: went as asked; could not join; the lease ran out (EX_TEMPFAIL); fenced off.
LEFT, NOT_JOINED, ABANDONED, FENCED = 0, 69, 75, 76

#: How long the last words may take, in seconds.
GOODBYE_S = 5.0
#: Grace of steps when the scheduler takes the node: its own kill is seconds away.
DRAIN_GRACE_S = 2.0
#: How long ending everything may take once the controller is out of reach, in seconds; leases do the rest.
KILL_WITHIN_S = 30.0

Work = Coroutine[Any, Any, None]


class NotJoined(Exception):
    """The agent could not join; the message says what was tried."""


@dataclass(slots=True)
class Session:
    """One agent of one run. ``handle`` and ``handle_bulk`` are given by ``duties`` before ``run``."""

    bootstrap: Bootstrap
    identity: Identity
    base: Path
    incarnation: str = field(default_factory=lambda: secrets.token_hex(16))
    handle: Callable[[Message], None] | None = None
    handle_bulk: Callable[[Message], None] = lambda message: None
    links: Links = field(init=False)
    logs: LogPump = field(init=False)
    blobs: BlobStore = field(init=False)
    cases: Cases = field(init=False)
    exit_status: int | None = None
    draining: bool = False
    _leaving: bool = False
    _early: list[Message] = field(default_factory=list)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: asyncio.TaskGroup | None = None
    _work: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.logs = LogPump(self.send, self._send_log)
        self.links = Links(
            self.bootstrap,
            self.identity,
            self.incarnation,
            on_message=self._on_message,
            on_bulk=lambda message: self.handle_bulk(message),
            on_up=self.logs.reconnected,
            on_bulk_up=lambda: self.blobs.bulk_is_up(),
            on_room=self.logs.has_room,
        )
        self.blobs = BlobStore(self.base / "blobs", self.send, self.send_bulk, self.links.need_bulk)

    # --- messages

    def send(self, message: Message) -> None:
        """Send a control message; while the link is down it is kept and goes out after the reconnect.

        Raises LocalError for one that cannot be sent at all.
        """
        frame = encode(message)
        link = self.links.open
        try:
            if link is not None:
                link.send(message.KIND, frame)
            else:
                self.links.lifeline.keep(frame)
        except Overflow as error:
            # something is lost from here on: what the controller believes of this node is not true any more
            say(f"cannot go on: {error}")
            self.end(ABANDONED)

    @property
    def crowded(self) -> bool:
        """Whether so much waits for the controller that a workload should not add to it."""
        return self.links.lifeline.kept_bytes > KEPT_BYTES // 2

    def send_bulk(self, message: Message) -> bool:
        """Send on the bulk link; False when it is down."""
        link = self.links.bulk
        if link is None or not link.is_open:
            return False
        link.send(message.KIND, encode(message))
        return True

    def _send_log(self, message: LogData | LogGap) -> bool:
        link = self.links.open
        if link is None or link.paused:
            return False
        link.send(message.KIND, encode(message))
        return True

    def notice(self, text: str) -> None:
        """Tell people something."""
        self.send(Notice(as_words(text)))

    def _on_message(self, message: Message) -> None:
        """Messages may come with the very bytes that open the link, before anyone is there to take them."""
        if self.handle is None or self._tasks is None:
            self._early.append(message)
        else:
            self.handle(message)

    # --- tasks

    def spawn(self, work: Work, name: str) -> None:
        """Start a task that belongs to this session."""
        if self._tasks is None:
            work.close()
            return
        task = self._tasks.create_task(self._guarded(work, name), name=name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        task.add_done_callback(lambda task: work.close())  # for one that was cancelled before it began

    async def _guarded(self, work: Work, name: str) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a bug in one task must not end all that runs on this node
            words = f"internal error in the agent ({name}): {type(error).__name__}: {error}"
            say(words)
            self.notice(words)

    # --- from joining to the end

    async def join(self) -> None:
        """Connect for the first time. Raises NotJoined after the join timeout, naming every address."""
        try:
            await self.links.join(self.bootstrap.join_timeout_s)
        except LinkError as trouble:
            raise NotJoined(f"cannot join run {self.bootstrap.run_id}: {trouble}") from None

    async def run(self, background: dict[str, Work]) -> int:
        """Everything after joining, until the end; the exit status.

        ``background``: what else goes on until then, by name.
        """
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            held = {
                "control link": self.links.keep_control(),
                "bulk link": self.links.keep_bulk(),
                "heartbeats and leases": self._keep_time(),
                "logs to the controller": self.logs.run(),
            }
            beside = {name: self._guarded(work, name) for name, work in background.items()}
            own = [tasks.create_task(work, name=name) for name, work in (held | beside).items()]
            while self._early and self.handle is not None:
                self.handle(self._early.pop(0))
            await self._over.wait()
            if self.exit_status != LEFT:
                await self._abandon()
            self._tasks = None
            for task in [*own, *self._work]:
                task.cancel()
        return self.exit_status if self.exit_status is not None else ABANDONED

    async def _abandon(self) -> None:
        """The controller is out of reach, or wants us gone: end everything now. Nobody is asked any more."""
        self.links.close("the agent gives up")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_WITHIN_S):
                await self.cases.kill_all()
        if self.exit_status == ABANDONED and self.links.controller_is_gone and self.bootstrap.give_back:
            await self._give_back()

    async def _give_back(self) -> None:
        """Give the allocation back, whose owner is no more. One node that was merely cut off does not."""
        say(f"the controller is gone: {' '.join(self.bootstrap.give_back)}")
        with contextlib.suppress(OSError, TimeoutError):  # the scheduler's time limit remains
            async with asyncio.timeout(GOODBYE_S):
                argv = self.bootstrap.give_back
                process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL)
                await process.wait()

    def end(self, status: int) -> None:
        """The session is over with this exit status; the first one counts."""
        if self.exit_status is None:
            self.exit_status = status
        self._over.set()

    @property
    def lease_file(self) -> Path:
        """The agent's own lease: what it holds beside its cases is left over once that is over."""
        return self.base / "control-agent" / "expires"

    async def _keep_time(self) -> None:
        """Heartbeats, the leases of what runs here, and the end of our own."""
        own = Lease(self.lease_file)
        while True:
            self.links.tick()
            left_s = self.links.lease_s - self.links.unproved_s()
            if left_s <= 0:
                say(f"no word from the controller for {self.links.lease_s:g} s: ending what runs here")
                self.end(ABANDONED)
            until_s = boottime() + left_s
            self.cases.renew_leases(until_s)
            with contextlib.suppress(OSError):  # it only keeps the janitor of another run from our folder
                own.path.parent.mkdir(mode=0o700, exist_ok=True)
                own.renew(until_s)
            await asyncio.sleep(self.links.heartbeat_s / 2)

    # --- leaving

    async def leave(self, grace_s: float) -> None:
        """End cases, send what is left, say goodbye."""
        if self._leaving:
            return
        self._leaving = True
        leftovers = await self.cases.close_all(grace_s)
        await self.logs.drained(None, GOODBYE_S)
        self.send(Left(tuple(as_words(words) for words in leftovers[:64])))
        await self.links.say_goodbye(GOODBYE_S)
        self.end(LEFT)

    async def drain(self, reason: str) -> None:
        """The scheduler takes the node: save what can be saved, then wait to be told to leave."""
        if self.draining or self._leaving:
            return
        self.draining = True
        self.send(Draining(as_words(reason)))
        await self.cases.drain(DRAIN_GRACE_S, f"not started: {reason}")


def make_base(run_id: str, node_rank: int, incarnation: str) -> Path:
    """The agent's own folder under TMPDIR, 0700, made by us and by nobody before us. Raises OSError."""
    root = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - mkdir below fails on what exists
    base = root / f"phalanx-{os.geteuid()}-{run_id}-{node_rank}-{incarnation[:8]}"
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
        session.links.lease_s,
    )
