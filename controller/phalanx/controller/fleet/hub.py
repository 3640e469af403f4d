"""The fleet as the controller sees it: who is connected, what they say, what they are told.

The hub proves newcomers, hands messages to the one who takes that kind, and turns what happens to a
connection into events. It decides nothing about the run: that is the engine's.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from phalanx.protocol import VERSION
from phalanx.protocol.connection import Timers
from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.frames import encode
from phalanx.protocol.handshake import join_key, resume_key
from phalanx.protocol.lifeline import Lifeline, Overflow
from phalanx.protocol.membership import Entry, Member, Seat, judge
from phalanx.protocol.messages import (
    Channel,
    Fence,
    Hello,
    Kind,
    Leave,
    Left,
    LogData,
    LogEnd,
    LogGap,
    LogOpen,
    Message,
    Welcome,
)
from phalanx.protocol.schema import as_words

from ..plan.model import Timing
from .admission import PROVE_WITHIN_S, Door
from .events import AgentJoined, AgentLost, AgentSilent, Event, PeerRefused
from .session import Session

#: How often connections are looked at, in seconds.
TICK_S = 0.5
#: At most one peer.refused event in this many seconds: a flood must not fill the log.
REFUSED_EVERY_S = 1.0

#: What is still heard of agents that were told to leave: their last words.
_LOGS = (LogOpen, LogData, LogGap, LogEnd)

Take = Callable[[str, Message], None]


@dataclass(slots=True)
class Peer:
    """A node's connections and keys. ``left``: it said goodbye, a closed connection is then no news."""

    node: str
    incarnation: str
    session_key: bytes
    lifeline: Lifeline
    control: Session | None = None
    bulk: Session | None = None
    left: bool = False


@dataclass(slots=True)
class _Refusals:
    count: int = 0
    source: str = ""
    reason: str = ""
    told: float = 0.0


class Hub:
    """All connections of a run. ``record`` takes events; ``seat`` gives what the engine knows of a node."""

    def __init__(
        self,
        run_id: str,
        secret: bytes,
        certificate_hash: bytes,
        agent_build: str,
        timing: Timing,
        record: Callable[[Event], None],
        seat: Callable[[str], Seat | None],
    ) -> None:
        self.run_id = run_id
        self._secret = secret
        self._certificate_hash = certificate_hash
        self._agent_build = agent_build
        self._timing = timing
        self._timers = Timers(timing.heartbeat_s, timing.dead_after_s)
        self._record = record
        self._seat = seat
        self.peers: dict[str, Peer] = {}
        self._door: Door[Session] = Door()
        self._takers: dict[type[Message], Take] = {}
        self._refusals = _Refusals()
        self.closing = False
        self._deserted = asyncio.Event()
        self.on_bulk: Callable[[str], None] = lambda node: None
        self.on_control: Callable[[str], None] = lambda node: None

    # --- wiring

    def take(self, kinds: Iterable[type[Message]], taker: Take) -> None:
        """Messages of these kinds go to ``taker(node, message)``."""
        for kind in kinds:
            self._takers[kind] = taker

    def make_session(self) -> Session:
        """A protocol for a connection that was just accepted."""
        return Session(self, self._certificate_hash, secrets.token_bytes(32), self._timers)

    # --- sending

    def tell(self, nodes: Iterable[str], message: Message) -> None:
        """Send to each of these nodes, encoded once; one that is away gets it when it is back."""
        frame = encode(message)
        for node in nodes:
            peer = self.peers.get(node)
            if peer is not None:
                self._tell(peer, message.KIND, frame)

    def _tell(self, peer: Peer, kind: Kind, frame: bytes) -> None:
        try:
            if peer.control is not None and peer.control.open:
                peer.control.send_encoded(kind, frame)
            elif not peer.left:
                peer.lifeline.keep(frame)
        except Overflow as error:
            # It would miss a message if it came back: it must not.
            peer.left = True
            self._record(AgentLost(peer.node, str(error)))

    def tell_bulk(self, node: str, message: Message) -> bool:
        """Send on the node's bulk connection; False when it has none now."""
        session = self.bulk_of(node)
        if session is None:
            return False
        session.send(message)
        return True

    def bulk_of(self, node: str) -> Session | None:
        """The open bulk connection of a node."""
        peer = self.peers.get(node)
        return peer.bulk if peer is not None and peer.bulk is not None and peer.bulk.open else None

    # --- SessionOwner

    def arrived(self, session: Session) -> None:
        """A connection is through TLS and unproven; the worst source may lose one for it."""
        evicted = self._door.arrive(session.source, session)
        if evicted is not None:
            evicted[1].drop("too many unproven connections")

    def hello(self, session: Session) -> None:
        """Judge a hello; refusals are silent."""
        hello = session.connection.hello
        if hello is None:
            raise ProtocolError("no hello")
        verdict = judge(self.run_id, self._agent_build, self._known_seat(hello.node), hello)
        if self.closing or verdict.entry is Entry.REFUSE:
            session.refuse(verdict.reason)
        else:
            self._admit(session, hello, verdict.entry)

    def _known_seat(self, node: str) -> Seat | None:
        """The seat as the engine knows it, and what happened at the door since: events take a disk's time."""
        seat, peer = self._seat(node), self.peers.get(node)
        if seat is None or peer is None or seat.state not in (Member.EXPECTED, Member.JOINED, Member.SILENT):
            return seat
        if peer.left:
            return replace(seat, state=Member.LEFT)
        state = Member.SILENT if peer.control is None else Member.JOINED
        return replace(seat, state=state, incarnation=peer.incarnation)

    def _admit(self, session: Session, hello: Hello, entry: Entry) -> None:
        known = self.peers.get(hello.node)
        if known is not None and known.incarnation != hello.incarnation:
            known = None
        if entry is Entry.RESUME and known is not None:
            key, session_key = resume_key(known.session_key), known.session_key
        else:
            key = join_key(self._secret, self.run_id, hello.node, hello.node_rank)
            session_key = secrets.token_bytes(32)
        timing = self._timing
        welcome = Welcome(VERSION, 1, session_key, timing.heartbeat_s, timing.lease_s, (), bytes(32))
        lifeline = known.lifeline if known and hello.channel is Channel.CONTROL else Lifeline()
        session.connection.welcome(key, welcome, lifeline, time.monotonic())
        self._door.leave(session.source, session)
        session.node = hello.node
        session.flush()
        if known is None:
            known = self.peers[hello.node] = Peer(hello.node, hello.incarnation, session_key, lifeline)
        known.session_key = session_key
        self._seat_down(known, session, hello, resumed=entry is Entry.RESUME)

    def _seat_down(self, peer: Peer, session: Session, hello: Hello, *, resumed: bool) -> None:
        if hello.channel is Channel.BULK:
            old, peer.bulk = peer.bulk, session
            self.on_bulk(peer.node)
        else:
            old, peer.control = peer.control, session
            self._record(AgentJoined(peer.node, hello.node_rank, hello.incarnation, session.source, resumed))
            self.on_control(peer.node)
        if old is not None:
            old.drop("replaced by a new connection of the same agent")

    def message(self, session: Session, message: Message) -> None:
        """Hand a message to who takes it. Raises ProtocolError for one that nobody takes."""
        if self.closing and not isinstance(message, _LOGS):
            if isinstance(message, Left):
                self.heard_left(session.node)
            return
        taker = self._takers.get(type(message))
        if taker is None:
            raise ProtocolError(f"{type(message).__name__} is not expected here")
        taker(session.node, message)

    def closed(self, session: Session, reason: str) -> None:
        """A connection is over."""
        self._door.leave(session.source, session)
        peer = self.peers.get(session.node)
        if peer is None:
            if reason != "connection closed by the agent":
                self._refused(session.source, reason)
            return
        if peer.bulk is session:
            peer.bulk = None
        elif peer.control is session:
            peer.control = None
            if self.closing:
                peer.left = True
                if all(one.control is None for one in self.peers.values()):
                    self._deserted.set()
            elif not peer.left:
                self._record(AgentSilent(peer.node, reason))

    def _refused(self, source: str, reason: str) -> None:
        self._refusals.count += 1
        self._refusals.source, self._refusals.reason = source, reason

    # --- time

    async def keep_time(self) -> None:
        """Heartbeats, silence, unproven connections; until cancelled. One pass for all connections."""
        while True:
            await asyncio.sleep(min(TICK_S, self._timing.heartbeat_s / 2))
            now, wall = time.monotonic(), time.time()
            for peer in list(self.peers.values()):
                for session in (peer.control, peer.bulk):
                    if session is not None:
                        session.tick(now, wall)
            self._show_out(now)
            self._report_refusals(now)

    def _show_out(self, now: float) -> None:
        for session in self._door.waiting():
            if now - session.came > PROVE_WITHIN_S:
                session.drop("it did not prove itself in time")

    def _report_refusals(self, now: float) -> None:
        refusals = self._refusals
        if refusals.count and now - refusals.told >= REFUSED_EVERY_S:
            self._record(PeerRefused(refusals.count, refusals.source, refusals.reason))
            refusals.count, refusals.told = 0, now

    def clock_offset(self, node: str) -> float | None:
        """Seconds that the node's wall clock is ahead of ours, None when not known."""
        peer = self.peers.get(node)
        return peer.control.connection.liveness.clock_offset_s if peer and peer.control else None

    def last_heard(self, node: str) -> float | None:
        """Seconds since a node was heard, None when it is not connected."""
        peer = self.peers.get(node)
        return (
            peer.control.connection.liveness.silent_for(time.monotonic()) if peer and peer.control else None
        )

    # --- the end

    def heard_left(self, node: str) -> None:
        """A node has said its last words; it stays until its connection is closed, to know that we heard."""
        peer = self.peers.get(node)
        if peer is not None:
            peer.left = True
            _finish(peer)

    def again(self, node: str, reason: str) -> None:
        """Break a node's control connection: its agent comes back and goes on where it was acknowledged."""
        peer = self.peers.get(node)
        if peer is not None and peer.control is not None:
            peer.control.drop(reason)

    def fence(self, node: str, reason: str) -> None:
        """A node is given up: an agent that is still there must end what it runs, and is heard no more."""
        peer = self.peers.get(node)
        if peer is None or peer.left:
            return
        peer.left = True
        if peer.control is not None:
            peer.control.send(Fence(as_words(reason)))
        _finish(peer)

    async def dismiss(self, reason: str, grace_s: float) -> None:
        """Tell every agent to leave, and wait until they have; of them only logs are heard any more.

        For the end of a controller that cannot go on. The caller owns the deadline.
        """
        self.closing = True
        here = [peer.node for peer in self.peers.values() if peer.control is not None]
        self.tell(here, Leave(as_words(reason), grace_s))
        if here:
            await self._deserted.wait()

    async def close(self) -> None:
        """Close every connection after what is queued."""
        for peer in self.peers.values():
            peer.left = True
            _finish(peer)


def _finish(peer: Peer) -> None:
    for session in (peer.control, peer.bulk):
        if session is not None:
            session.finish()
