"""One accepted connection: the asyncio shell around ``ControllerConnection``: a socket, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import Protocol, cast

from phalanx.protocol.connection import ControllerConnection, State, Timers
from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.frames import encode
from phalanx.protocol.lifeline import Overflow
from phalanx.protocol.liveness import Health
from phalanx.protocol.messages import Kind, Message
from phalanx.protocol.packing import TCP_INFO_BYTES, Sent, read_tcp_info

#: Bytes handed to the transport beyond which log and bulk frames wait, so that control frames pass them.
WRITE_HIGH = 256 * 1024
#: Seconds before a refused peer is dropped: a wrong guess costs time and learns nothing.
REFUSE_AFTER_S = 0.2

log = logging.getLogger("phalanx.controller")


class SessionOwner(Protocol):
    """What a session tells its owner."""

    def arrived(self, session: Session) -> None:
        """TLS stands; the peer is unproven."""

    def hello(self, session: Session) -> None:
        """A hello came: welcome or refuse it."""

    def message(self, session: Session, message: Message) -> None:
        """A message of a welcomed peer."""

    def closed(self, session: Session, reason: str) -> None:
        """The connection is over, whoever ended it."""


class Session(asyncio.Protocol):
    """A connection of one peer. ``node`` is set once it is welcomed."""

    def __init__(self, owner: SessionOwner, certificate_hash: bytes, nonce: bytes, timers: Timers) -> None:
        self._owner = owner
        self.connection = ControllerConnection(certificate_hash, nonce, timers, time.monotonic())
        self.node = ""
        self.source = ""
        self.came = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._reason = "connection closed by the agent"
        self._room = asyncio.Event()
        self._room.set()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        self.source = str(peer[0]) if peer else ""
        self._owner.arrived(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            messages = self.connection.receive_data(data, time.monotonic(), time.time())
            if self.connection.state is State.JUDGE:
                self._owner.hello(self)
        except ProtocolError as error:
            self.refuse(str(error))
            return
        trouble = ""
        for message in messages:
            # What was counted as received is handed over, even after one that breaks the rules.
            trouble = self._hand_over(message) or trouble
        if trouble:
            self.refuse(trouble)
        else:
            self.flush()

    def _hand_over(self, message: Message) -> str:
        """Give a message to the owner; why the connection must end, "" when it may go on."""
        try:
            self._owner.message(self, message)
        except ProtocolError as error:
            return str(error)
        except Exception as error:  # what one agent's message sets off must not reach the others
            log.exception("cannot handle %s of %s", type(message).__name__, self.node)
            return f"an error of the controller's own: {type(error).__name__}"
        return ""

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and self._reason == "connection closed by the agent":
            self._reason = f"connection broke: {error}"
        self.connection.close()
        self._room.set()
        self._owner.closed(self, self._reason)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()
        self._tell_room()

    # --- for the owner

    @property
    def open(self) -> bool:
        """Whether the peer is welcomed and messages can go out."""
        return self.connection.state is State.OPEN

    def send(self, message: Message) -> None:
        """Send a message; nothing happens when the connection is over (its owner hears of that)."""
        with contextlib.suppress(Overflow):
            self.send_encoded(message.KIND, encode(message))

    def send_encoded(self, kind: Kind, frame: bytes) -> None:
        """Send a frame that was encoded once for many.

        Raises Overflow for a peer that confirms nothing: it will not get this one, and is dropped.
        """
        if not self.open:
            return
        try:
            self.connection.send_encoded(kind, frame)
        except ProtocolError as error:
            self.drop(str(error))
            if isinstance(error, Overflow):
                raise
            return
        self.flush()

    def flush(self) -> None:
        """Hand to the transport what may go now."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        frames = self.connection.data_to_send(0 if self._paused else WRITE_HIGH)
        while frames:
            transport.write(b"".join(frames))
            frames = self.connection.data_to_send(0 if self._paused else WRITE_HIGH)
        self._tell_room()

    def _tell_room(self) -> None:
        if not self._paused and self.connection.waiting(Kind.BULK) == 0:
            self._room.set()

    async def bulk_room(self) -> None:
        """Wait until every bulk frame has left for the socket, or the connection is over."""
        if self.open and (self._paused or self.connection.waiting(Kind.BULK) > 0):
            self._room.clear()
            await self._room.wait()

    def sent(self) -> Sent | None:
        """What the kernel has counted of what went out; None where it does not."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES) if sock else b""
        except OSError:
            return None
        return read_tcp_info(info)

    def tick(self, now: float, wall: float) -> Health:
        """Heartbeat and judgement of the peer; drops the connection of a dead one."""
        try:
            health = self.connection.on_time(now, wall)
        except ProtocolError as error:
            self.drop(str(error))
            return Health.DEAD
        self.flush()
        return health

    def refuse(self, reason: str) -> None:
        """Close without a word after a fixed delay; ``reason`` is for our log only."""
        self._reason = reason
        self.connection.close()
        self._room.set()
        if self._transport is not None:
            asyncio.get_running_loop().call_later(REFUSE_AFTER_S, self._transport.abort)

    def drop(self, reason: str) -> None:
        """Close now."""
        self._reason = reason
        self.connection.close()
        self._room.set()
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Close after what was queued went out."""
        self.flush()
        self.connection.close()
        self._room.set()
        if self._transport is not None:
            self._transport.close()
