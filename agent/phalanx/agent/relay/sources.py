"""What a stripe reads from: a relay over a connection of its own, or the controller over the bulk link."""

from __future__ import annotations

import hmac
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Protocol

from phalanx.agent.relay.events import Patience
from phalanx.agent.relay.rate import Pacer
from phalanx.agent.relay.wire import Wire, shut_down
from phalanx.protocol.messages import (
    CHUNK_BYTES,
    Chunk,
    ChunkGet,
    ChunkRefused,
    Kind,
    Message,
    Parent,
    RelayHello,
)

#: Seconds that a link to the controller may take to come up, and between two looks whether it has.
LINK_S, _LINK_LOOK_S = 2.0, 0.02


class SourceLost(Exception):
    """Nothing comes from there any more; the message says why."""


class Source(Protocol):
    """Gives chunks that were asked for. Used by one thread, but for ``abort``."""

    @property
    def read(self) -> int:
        """Bytes that came."""

    def ask(self, wanted: ChunkGet) -> None:
        """Ask for a chunk. Raises SourceLost, OSError."""

    def receive(self) -> tuple[Message, bytes | memoryview]:
        """What comes next, and the bytes of a chunk, good until the next call.

        Raises SourceLost, OSError, and RemoteError for what must not come.
        """

    def abort(self) -> None:
        """Wake the thread that uses it."""

    def close(self) -> None:
        """It is used no more."""


def client_context() -> ssl.SSLContext:
    """TLS 1.3; who is at the other end is shown by the pin, not by names and dates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class RelaySource:
    """A relay. ``connect`` before all else."""

    def __init__(self, parent: Parent, pacer: Pacer, patience: Patience) -> None:
        self._parent = parent
        self._pacer = pacer
        self._patience = patience
        self._lock = threading.Lock()
        self._aborted = False
        self._socket: socket.socket | None = None
        self._wire: Wire | None = None
        self._buffer = memoryview(bytearray(CHUNK_BYTES))

    @property
    def read(self) -> int:
        """Bytes that came."""
        return self._wire.read if self._wire is not None else 0

    def connect(self, hello: Callable[[Parent], RelayHello | None]) -> None:
        """Reach the relay, see that it is the one, show a ticket.

        Nothing is said to another certificate than the parent's, and no ticket is asked for before. Raises
        SourceLost, OSError.
        """
        wire = self._wire = self._dial()
        if self._parent.pin:
            wire.start_tls(client_context(), server_side=False)
            if not hmac.compare_digest(wire.peer_fingerprint(), self._parent.pin):
                raise SourceLost("another certificate than this relay's answers there")
        ticket = hello(self._parent)
        if ticket is None:
            raise SourceLost("no ticket for it is left")
        wire.send(ticket)
        wire.allowed = frozenset({Kind.BULK})

    def _dial(self) -> Wire:
        host, port = self._parent.host, self._parent.port
        lost: OSError = OSError(f"no address of {host}")
        for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, proto)
            with self._lock:
                if self._aborted:
                    sock.close()
                    raise SourceLost("it is not wanted any more")
                self._socket = sock
            try:
                sock.settimeout(self._patience.silent_s)
                sock.connect(address)
                return Wire(
                    sock,
                    self._pacer,
                    silent_s=self._patience.silent_s,
                    frame_s=self._patience.frame_s,
                    unsent_s=self._patience.silent_s,
                )
            except OSError as error:
                sock.close()
                lost = error
        raise lost

    def ask(self, wanted: ChunkGet) -> None:
        """See Source."""
        self._connected().send(wanted)

    def receive(self) -> tuple[Message, memoryview]:
        """See Source."""
        return self._connected().receive(self._buffer)

    def _connected(self) -> Wire:
        if self._wire is None:
            raise SourceLost("it is not connected")
        return self._wire

    def abort(self) -> None:
        """See Source."""
        with self._lock:
            self._aborted = True
            if self._wire is not None:
                self._wire.abort()
            elif self._socket is not None:
                shut_down(self._socket)

    def close(self) -> None:
        """See Source."""
        with self._lock:
            if self._wire is not None:
                self._wire.close()
            elif self._socket is not None:
                self._socket.close()


class ControllerSource:
    """The controller. ``ask`` is False while the link to it is down; chunks are handed in by ``give``.

    A link is made when it is first asked for, and waited for a moment: whose parent the controller becomes
    in the middle of a transfer has none yet.
    """

    def __init__(self, ask: Callable[[ChunkGet], bool], silent_s: float, link_s: float = LINK_S) -> None:
        self.read = 0
        self._ask = ask
        self._silent_s = silent_s
        self._link_s = link_s
        self._aborted = threading.Event()
        self._news: queue.SimpleQueue[Chunk | ChunkRefused | None] = queue.SimpleQueue()
        self._asked: set[tuple[bytes, int]] = set()

    def ask(self, wanted: ChunkGet) -> None:
        """See Source."""
        self._asked.add((wanted.blob, wanted.index))
        until = time.monotonic() + self._link_s
        while not self._ask(wanted):
            if self._aborted.wait(_LINK_LOOK_S):
                raise SourceLost("it is not wanted any more")
            if time.monotonic() >= until:
                raise SourceLost("the link to the controller is down")

    def give(self, message: Chunk | ChunkRefused) -> bool:
        """Hand in what came; whether it was asked for here. From any thread."""
        try:
            self._asked.remove((message.blob, message.index))
        except KeyError:
            return False
        self._news.put(message)
        return True

    def receive(self) -> tuple[Message, bytes]:
        """See Source."""
        try:
            message = self._news.get(timeout=self._silent_s)
        except queue.Empty:
            raise SourceLost(f"nothing came for {self._silent_s:g} s") from None
        if message is None:
            raise SourceLost("it is not wanted any more")
        if not isinstance(message, Chunk):
            return message, b""
        self.read += len(message.payload)
        return message, message.payload

    def abort(self) -> None:
        """See Source."""
        self._aborted.set()
        self._news.put(None)

    def close(self) -> None:
        """See Source."""
