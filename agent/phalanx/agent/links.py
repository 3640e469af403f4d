"""Both links of an agent, brought up and held: one for control and logs, one for blobs once they are needed.

A link that breaks is made anew over whatever address answers; what was missed on the control link is sent
again by its lifeline. A link that does not live long is not made anew at once: whoever ends it has a reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from phalanx.agent.bootstrap import Bootstrap, Identity
from phalanx.agent.link import Link, LinkError, client_context, connect_any
from phalanx.protocol import VERSION
from phalanx.protocol.connection import Timers
from phalanx.protocol.handshake import join_key, resume_key
from phalanx.protocol.lifeline import Lifeline
from phalanx.protocol.messages import Channel, Hello, Message

#: First and longest pause between two attempts to connect, in seconds.
RETRY_FIRST_S, RETRY_MOST_S = 0.1, 2.0
#: A link that lived this long, in seconds, did not break for a reason that a new one meets at once.
STEADY_S = 5.0


def _nothing() -> None:
    """Nobody waits for it."""


@dataclass(slots=True)
class Links:
    """The links of one incarnation. ``on_up`` and ``on_bulk_up``: a new link of that kind stands.

    ``on_room``: the control link takes log bytes again.
    """

    bootstrap: Bootstrap
    identity: Identity
    incarnation: str
    on_message: Callable[[Message], None]
    on_bulk: Callable[[Message], None]
    on_up: Callable[[], None] = _nothing
    on_bulk_up: Callable[[], None] = _nothing
    on_room: Callable[[], None] = _nothing
    lifeline: Lifeline = field(default_factory=Lifeline)
    control: Link | None = None
    bulk: Link | None = None
    session_key: bytes = b""
    heartbeat_s: float = 2.0
    lease_s: float = 30.0
    #: addresses whose machine says that nobody listens there (any more)
    refused: set[tuple[str, int]] = field(default_factory=set)
    #: the address over which the controller was reached last
    home: tuple[str, int] = ("", 0)
    _proved: float = 0.0
    _over: bool = False
    _context: ssl.SSLContext = field(default_factory=client_context)
    _bulk_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _bulk_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def open(self) -> Link | None:
        """The control link while messages can go out on it."""
        return self.control if self.control is not None and self.control.is_open else None

    @property
    def address(self) -> str:
        """This node's address on its link to the controller, "" while there is none."""
        return self.control.address if self.control is not None else ""

    async def join(self, within_s: float) -> None:
        """Connect for the first time. Raises LinkError once ``within_s`` is over, naming every address."""
        deadline = time.monotonic() + within_s
        pause = RETRY_FIRST_S
        while True:
            try:
                return await self._open_control()
            except LinkError:
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(RETRY_MOST_S, pause * 2)

    async def keep_control(self) -> None:
        """Hold the control link after ``join``: when it breaks, come back. Until cancelled or closed."""
        pause = RETRY_FIRST_S
        while True:
            if self.control is not None:
                pause = await _lived(self.control, pause)
            if self._over:
                return
            with contextlib.suppress(LinkError):  # again after the pause, until the lease is over
                await self._open_control()

    async def keep_bulk(self) -> None:
        """Hold a bulk link once one is needed. Until cancelled or closed."""
        await self._bulk_wanted.wait()
        pause = RETRY_FIRST_S
        while not self._over:
            try:
                link = await self._connect(Channel.BULK, Lifeline(), self.on_bulk, self._bulk_opened)
            except LinkError:
                await asyncio.sleep(pause)
                pause = min(RETRY_MOST_S, pause * 2)
                continue
            pause = await _lived(link, pause)
            self._bulk_up.clear()

    def want_bulk(self) -> None:
        """Have a bulk link made, now or when it is lost."""
        self._bulk_wanted.set()

    async def need_bulk(self) -> None:
        """Wait until there is a bulk link."""
        self.want_bulk()
        await self._bulk_up.wait()

    async def _open_control(self) -> None:
        await self._connect(Channel.CONTROL, self.lifeline, self.on_message, self._control_opened)

    @property
    def controller_is_gone(self) -> bool:
        """Where the controller was reached, its machine now says that nobody listens: it is no more.

        A node that is merely cut off gets no such answer.
        """
        return self.home in self.refused

    def _control_opened(self, link: Link) -> None:
        self.control = link
        self.home = link.peer
        welcome = link.connection.accepted
        if welcome is not None:
            self.session_key = welcome.session_key
            self.heartbeat_s, self.lease_s = welcome.heartbeat_s, welcome.lease_s
        self._proved = time.monotonic()
        self.on_up()

    def _bulk_opened(self, link: Link) -> None:
        self.bulk = link
        self._bulk_up.set()
        self.on_bulk_up()

    async def _connect(
        self,
        channel: Channel,
        lifeline: Lifeline,
        on_message: Callable[[Message], None],
        on_open: Callable[[Link], None],
    ) -> Link:
        resume = bool(self.session_key)
        boot, who = self.bootstrap, self.identity
        if resume:
            key = resume_key(self.session_key)
        else:
            key = join_key(boot.secret, boot.run_id, who.node, who.node_rank)
        hello = self._hello(channel, resume)
        timers = Timers(self.heartbeat_s, max(5 * self.heartbeat_s, 2.0))

        def make() -> Link:
            return Link(boot.pin, key, hello, lifeline, timers, on_message, on_open, self.on_room)

        return await connect_any(boot.addresses, make, self._context, self.refused)

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

    # --- time

    def tick(self) -> None:
        """Heartbeats, and judgement of the controller; call it at least once per heartbeat."""
        for link in (self.control, self.bulk):
            if link is not None and link.is_open:
                link.tick()

    def unproved_s(self) -> float:
        """Seconds since the controller was last known to be there *and* to hear us.

        Of a one-way break it must know nothing better than we do: the lease runs from here.
        """
        now = time.monotonic()
        if (link := self.open) is not None:
            liveness = link.connection.liveness
            self._proved = max(self._proved, now - max(liveness.silent_for(now), liveness.unheard_for(now)))
        return now - self._proved

    # --- the end

    async def say_goodbye(self, within_s: float) -> None:
        """Wait until the controller has everything, and close. It closes first, or confirms by a heartbeat.

        A link that breaks meanwhile is made anew, and what is missing goes out again.
        """
        deadline = time.monotonic() + within_s
        while self.lifeline.kept_bytes and time.monotonic() < deadline:
            link = self.control
            if link is not None and link.closed_by_peer:
                break
            await asyncio.sleep(0.02)
        self._over = True
        if link := self.open:
            await link.finish(max(0.0, deadline - time.monotonic()))
        self.close("the agent leaves")

    def close(self, reason: str) -> None:
        """Close now, for good."""
        self._over = True
        for link in (self.control, self.bulk):
            if link is not None:
                link.drop(reason)


async def _lived(link: Link, pause: float) -> float:
    """Wait for a link's end, and then for a while unless it had lived long; the next pause."""
    began = time.monotonic()
    await link.closed
    if time.monotonic() - began >= STEADY_S:
        return RETRY_FIRST_S
    await asyncio.sleep(pause)
    return min(RETRY_MOST_S, pause * 2)
