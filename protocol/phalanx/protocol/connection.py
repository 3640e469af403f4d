"""One connection as a value machine: bytes in, messages out; messages in, bytes out. No IO.

The owner feeds ``receive_data`` and writes what ``data_to_send`` gives; it calls ``on_time`` when
``next_deadline`` has come. The handshake, heartbeats and the order of lanes are handled in here: control
frames always leave before log frames, and those before bulk, so a heartbeat never waits behind an image.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum

from . import VERSION, VERSION_MIN, handshake
from .errors import AuthError, FrameError, LocalError, RemoteError, SchemaError
from .frames import FrameDecoder, decode, encode
from .lifeline import CONFIRM_BYTES, Lifeline, Overflow
from .liveness import Health, Liveness
from .messages import (
    Challenge,
    Channel,
    Direction,
    Heartbeat,
    Hello,
    Kind,
    Message,
    Welcome,
)


class State(Enum):
    """Where a connection is in its life."""

    #: controller: the challenge is out, the agent's hello is awaited
    AWAIT_HELLO = "await_hello"
    #: controller: a hello came; its owner decides whether to welcome it
    JUDGE = "judge"
    #: agent: connected, the challenge is awaited
    AWAIT_CHALLENGE = "await_challenge"
    #: agent: the hello is out, the controller's proof is awaited
    AWAIT_WELCOME = "await_welcome"
    #: both have proved themselves
    OPEN = "open"
    #: nothing more goes in or out
    CLOSED = "closed"


TRANSITIONS: dict[State, dict[str, State]] = {
    State.AWAIT_HELLO: {"hello": State.JUDGE, "close": State.CLOSED},
    State.JUDGE: {"welcome": State.OPEN, "close": State.CLOSED},
    State.AWAIT_CHALLENGE: {"challenge": State.AWAIT_WELCOME, "close": State.CLOSED},
    State.AWAIT_WELCOME: {"welcome": State.OPEN, "close": State.CLOSED},
    State.OPEN: {"close": State.CLOSED},
    State.CLOSED: {"close": State.CLOSED},
}

_LANES = (Kind.HANDSHAKE, Kind.CONTROL, Kind.LOG, Kind.BULK)
#: Which frames an open connection may carry, by channel.
_CARRIES = {
    Channel.CONTROL: frozenset({Kind.CONTROL, Kind.LOG}),
    Channel.BULK: frozenset({Kind.CONTROL, Kind.BULK}),
}


@dataclass(frozen=True, slots=True)
class Timers:
    """Heartbeat interval and the silence after which a peer is dead, in seconds."""

    heartbeat_s: float = 2.0
    dead_after_s: float = 10.0


class PeerDead(RemoteError):
    """The peer was not heard, or did not hear us, for too long."""


class Connection:
    """What both sides share: framing, lanes, liveness, the state table."""

    _peer: Direction

    def __init__(self, state: State, certificate_hash: bytes, timers: Timers, now: float) -> None:
        self.state = state
        self.timers = timers
        self._certificate_hash = certificate_hash
        self._decoder = FrameDecoder({Kind.HANDSHAKE})
        self._lanes: dict[Kind, deque[bytes]] = {lane: deque() for lane in _LANES}
        self._waiting: dict[Kind, int] = dict.fromkeys(_LANES, 0)
        self._frames = 0
        self.liveness = Liveness(timers.heartbeat_s, timers.dead_after_s, now)
        self.hello: Hello | None = None
        self.channel = Channel.CONTROL
        self.lifeline = Lifeline()
        self._unconfirmed = 0

    # --- receiving

    def receive_data(self, data: bytes | memoryview, now: float, wall: float = 0.0) -> list[Message]:
        """Take bytes from the peer; give the messages that are whole.

        Handshake messages and heartbeats are handled here and not given out. Raises RemoteError when the
        peer broke the rules: the connection is then closed and must be dropped.
        """
        if self.state is State.CLOSED:
            return []
        self._decoder.feed(data)
        messages: list[Message] = []
        try:
            self._drain(messages, now, wall)
        except RemoteError:
            # What is not given out was not received: it comes again on the next connection.
            self.lifeline.received -= sum(message.KIND is Kind.CONTROL for message in messages)
            self.close()
            raise
        if self._unconfirmed >= CONFIRM_BYTES:
            self._beat(now, wall)
        return messages

    def _drain(self, messages: list[Message], now: float, wall: float) -> None:
        while (frame := self._decoder.next()) is not None:
            message = decode(frame, self._peer)
            if self.state is not State.OPEN:
                self._shake(message, now)
                continue
            self.liveness.heard_something(now)
            if type(message) is Heartbeat:
                self.liveness.on_heartbeat(message, now, wall)
                self.lifeline.confirm(message.received)
                continue
            if frame.kind is Kind.CONTROL:
                self.lifeline.received += 1
                self._unconfirmed += len(frame.body)
            messages.append(message)

    def _shake(self, message: Message, now: float) -> None:
        raise NotImplementedError

    def receive_eof(self) -> None:
        """The peer closed its side."""
        self.close()

    # --- sending

    def send(self, message: Message) -> None:
        """Queue a message. Raises LocalError before the handshake, Overflow for a peer that reads nothing."""
        self.send_encoded(message.KIND, encode(message))

    def send_encoded(self, kind: Kind, frame: bytes) -> None:
        """Queue a frame made by ``frames.encode``; one frame can so be sent to many peers, encoded once."""
        if self.state is not State.OPEN:
            raise LocalError(f"cannot send on a connection in state {self.state.value}")
        if kind not in _CARRIES[self.channel]:
            raise LocalError(f"a {self.channel.value} connection does not carry {kind.name} frames")
        if kind is Kind.CONTROL:
            try:
                self.lifeline.keep(frame)
            except Overflow:
                self.close()
                raise
        self._queue(kind, frame)

    def _queue(self, kind: Kind, frame: bytes) -> None:
        self._lanes[kind].append(frame)
        self._waiting[kind] += len(frame)
        self._frames += 1

    def waiting(self, kind: Kind) -> int:
        """Bytes of a lane that were not yet given to the owner."""
        return self._waiting[kind]

    def data_to_send(self, budget: int = 1 << 20) -> list[bytes]:
        """Frames to write now: all control frames, then logs and bulk up to ``budget`` bytes."""
        out: list[bytes] = []
        if not self._frames:  # the usual case: it is asked after every message that came
            return out
        size = 0
        for lane in _LANES:
            queue = self._lanes[lane]
            while queue and (lane in (Kind.HANDSHAKE, Kind.CONTROL) or size < budget):
                frame = queue.popleft()
                self._waiting[lane] -= len(frame)
                size += len(frame)
                out.append(frame)
        self._frames -= len(out)
        return out

    # --- time

    def next_deadline(self) -> float | None:
        """When ``on_time`` should be called, on the clock that ``now`` comes from."""
        return self.liveness.next_deadline() if self.state is State.OPEN else None

    def on_time(self, now: float, wall: float = 0.0) -> Health:
        """Queue a heartbeat when one is due and judge the peer.

        Raises PeerDead, saying which direction is broken.
        """
        if self.state is not State.OPEN:
            return Health.ALIVE
        self.liveness.tick(now)
        health = self.liveness.health(now)
        if health is Health.DEAD:
            silent, unheard = self.liveness.silent_for(now), self.liveness.unheard_for(now)
            self.close()
            if silent >= self.timers.dead_after_s:
                raise PeerDead(f"nothing heard for {silent:.1f} s")
            raise PeerDead(f"it is heard, but has not heard us for {unheard:.1f} s (one-way break)")
        if self.liveness.due(now):
            self._beat(now, wall)
        return health

    def _beat(self, now: float, wall: float) -> None:
        """Say that we are there, and what we have received."""
        self._unconfirmed = 0
        self._queue(Kind.CONTROL, encode(self.liveness.beat(now, wall, self.lifeline.received)))

    def close(self) -> None:
        """Nothing more goes in or out."""
        self._advance("close")
        for lane in _LANES:
            self._lanes[lane].clear()
            self._waiting[lane] = 0
        self._frames = 0

    # --- shared by both sides

    def _advance(self, trigger: str) -> None:
        try:
            self.state = TRANSITIONS[self.state][trigger]
        except KeyError:
            raise FrameError(f"{trigger} is not allowed in state {self.state.value}") from None

    def _open(self, channel: Channel, lifeline: Lifeline, confirmed: int, timers: Timers, now: float) -> None:
        """Both have proved themselves; what the peer has not received goes out again first."""
        lifeline.confirm(confirmed)
        self.lifeline = lifeline
        for frame in lifeline.missing():
            self._queue(Kind.CONTROL, frame)
        self._advance("welcome")
        self.channel = channel
        self.timers = timers
        self._decoder.allowed = _CARRIES[channel]
        self.liveness = Liveness(timers.heartbeat_s, timers.dead_after_s, now)


class ControllerConnection(Connection):
    """The controller's side: challenge, judge the hello, welcome."""

    _peer = Direction.AGENT

    def __init__(self, certificate_hash: bytes, nonce: bytes, timers: Timers, now: float) -> None:
        super().__init__(State.AWAIT_HELLO, certificate_hash, timers, now)
        self.challenge = Challenge(VERSION_MIN, VERSION, nonce)
        self._queue(Kind.HANDSHAKE, encode(self.challenge))

    def _shake(self, message: Message, now: float) -> None:
        if not isinstance(message, Hello):
            raise SchemaError(f"expected Hello, got {type(message).__name__}")
        self._advance("hello")
        self.hello = message
        # One hello is all that a peer may say before it is welcomed.
        self._decoder.allowed = frozenset()

    def welcome(self, key: bytes, welcome: Welcome, lifeline: Lifeline, now: float) -> None:
        """Check the hello's proof with ``key`` and, when it holds, answer with ours.

        ``lifeline`` is that of the agent's incarnation (a bulk connection gets a fresh one).
        Raises AuthError, or RemoteError for a lifeline that does not fit; the connection is then closed.
        """
        if self.state is not State.JUDGE or self.hello is None:
            raise LocalError(f"no hello to welcome in state {self.state.value}")
        try:
            if not VERSION_MIN <= self.hello.version <= VERSION:
                raise AuthError(f"protocol version {self.hello.version} was not offered")
            handshake.check_hello(key, self._certificate_hash, self.challenge, self.hello)
            welcome = replace(welcome, received=lifeline.received)
            signed = handshake.sign_welcome(key, self._certificate_hash, self.challenge, self.hello, welcome)
            self._queue(Kind.HANDSHAKE, encode(signed))
            timers = Timers(welcome.heartbeat_s, self.timers.dead_after_s)
            self._open(self.hello.channel, lifeline, self.hello.received, timers, now)
        except RemoteError:
            self.close()
            raise


class AgentConnection(Connection):
    """The agent's side: answer the challenge, check the controller's proof.

    ``hello`` is complete but for version and mac, which are filled in here. ``lifeline`` is that of this
    incarnation (a bulk connection gets a fresh one).
    """

    _peer = Direction.CONTROLLER

    def __init__(
        self,
        certificate_hash: bytes,
        key: bytes,
        hello: Hello,
        lifeline: Lifeline,
        timers: Timers,
        now: float,
    ) -> None:
        super().__init__(State.AWAIT_CHALLENGE, certificate_hash, timers, now)
        self._resumed = lifeline
        self._key = key
        self._draft = hello
        self._challenge: Challenge | None = None
        self.accepted: Welcome | None = None

    def _shake(self, message: Message, now: float) -> None:
        if isinstance(message, Challenge):
            self._advance("challenge")
            self._answer(message)
        elif isinstance(message, Welcome) and self._challenge is not None and self.hello is not None:
            handshake.check_welcome(self._key, self._certificate_hash, self._challenge, self.hello, message)
            self.accepted = message
            timers = Timers(message.heartbeat_s, self.timers.dead_after_s)
            self._open(self.hello.channel, self._resumed, message.received, timers, now)
        else:
            raise SchemaError(f"unexpected {type(message).__name__} in state {self.state.value}")

    def _answer(self, challenge: Challenge) -> None:
        self._challenge = challenge
        draft = replace(
            self._draft,
            version=handshake.agree_version(challenge),
            received=self._resumed.received,
        )
        self.hello = handshake.sign_hello(self._key, self._certificate_hash, challenge, draft)
        self._queue(Kind.HANDSHAKE, encode(self.hello))
