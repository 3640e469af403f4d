"""Gives chunks of this node's blobs to readers that the controller has sent, also while a blob still comes.

One thread for each reader: a slow one fills its own socket and delays nobody else. Strangers hold little, for
a short time, and are the first to go when there are many.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

from phalanx.agent.relay.packer import Packer
from phalanx.agent.relay.rate import Pacer
from phalanx.agent.relay.spool import Spool, SpoolError
from phalanx.agent.relay.strangers import Strangers
from phalanx.agent.relay.wire import Unread, Wire, shut_down
from phalanx.protocol.errors import ProtocolError, RemoteError
from phalanx.protocol.messages import (
    BulkSecurity,
    Chunk,
    ChunkGet,
    ChunkRefused,
    Kind,
    RelayHello,
    RelayWait,
)
from phalanx.protocol.schema import as_words
from phalanx.protocol.ticket import Gate

#: Readers served at a time: a planner gives a node four children or so, each with a few stripes.
MOST_READERS = 64
#: Seconds between two RelayWait of a reader whose chunk is not there yet.
WAIT_EVERY_S = 1.0
#: Seconds after which the port is looked at again when a connection could not be taken.
_ACCEPT_AGAIN_S = 0.1
#: Seconds for which a reader waits for a blob that is not served yet: it may have been told of it first.
UNKNOWN_S = 5.0
#: Longest time that a reader may take no byte, in seconds.
UNSENT_S = 10.0


def server_context(certificate: bytes) -> ssl.SSLContext:
    """TLS 1.3 with a PEM of certificate and key, which never lie in a file. Raises OSError for a bad PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    memory = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(memory, certificate)
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
    return context


def listening(bind: str) -> socket.socket:
    """A socket at a free port of one address, or of all of the node's when ``bind`` is empty."""
    if bind:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        return socket.create_server((bind, 0), family=family, backlog=128)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
    return socket.create_server(("", 0), backlog=128)


@dataclass(slots=True)
class _Served:
    """What is given out, and to whom; under one lock."""

    spools: dict[bytes, Spool] = field(default_factory=dict)
    readers: set[Wire] = field(default_factory=set)
    threads: set[threading.Thread] = field(default_factory=set)
    stopped: bool = False


class RelayServer:
    """A relay. ``certificate`` is for BulkSecurity.TLS; ``rate_bytes_s`` caps what goes out to all together.

    Raises OSError when the certificate cannot be used.
    """

    def __init__(
        self,
        gate: Gate,
        security: BulkSecurity,
        certificate: bytes,
        *,
        bind: str = "",
        rate_bytes_s: int = 0,
        unsent_s: float = UNSENT_S,
        unknown_s: float = UNKNOWN_S,
        wait_every_s: float = WAIT_EVERY_S,
        strangers: Strangers | None = None,
    ) -> None:
        self._gate = gate
        self._context = server_context(certificate) if security is BulkSecurity.TLS else None
        self._bind = bind
        self._pacer = Pacer(rate_bytes_s)
        self._rate_bytes_s = rate_bytes_s
        self._unsent_s = unsent_s
        self._unknown_s = unknown_s
        self._wait_every_s = wait_every_s
        self._strangers = strangers or Strangers()
        self._served = _Served()
        self._lock = threading.Condition()
        self.port = 0
        self._socket: socket.socket | None = None
        self._accepting = threading.Thread(target=self._accept, name="relay: new readers", daemon=True)

    def start(self) -> int:
        """Listen; the port. Raises OSError."""
        self._socket = listening(self._bind)
        self.port = int(self._socket.getsockname()[1])
        self._accepting.start()
        return self.port

    def serve(self, spool: Spool) -> None:
        """Give this blob out from now on, what is there of it."""
        with self._lock:
            self._served.spools[spool.manifest.blob] = spool
            self._lock.notify_all()

    def withdraw(self, blob: bytes) -> None:
        """Give this blob out no more."""
        with self._lock:
            spool = self._served.spools.pop(blob, None)
        if spool is not None:
            spool.wake()

    def stop(self) -> None:
        """Close the port and every connection, and wait for the threads."""
        with self._lock:
            self._served.stopped = True
            self._lock.notify_all()
            wires = [*self._served.readers, *self._strangers.all()]
            spools = list(self._served.spools.values())
            threads = list(self._served.threads)
        self._pacer.stop()
        if self._socket is not None:
            shut_down(self._socket)
            self._accepting.join()
            self._socket.close()
        for wire in wires:
            wire.abort()
        for spool in spools:
            spool.wake()
        for thread in threads:
            thread.join()

    # --- new ones

    def _accept(self) -> None:
        listener = self._socket
        while listener is not None and not self._served.stopped:
            with self._lock:
                late = self._strangers.late(time.monotonic())
                listener.settimeout(self._strangers.look_after_s)
            for wire in late:
                wire.abort()
            try:
                sock, address = listener.accept()
            except TimeoutError:
                continue  # time to look for strangers who are late
            except OSError:
                # closed by stop(); else a connection that ended while it waited, or no descriptor is left
                self._pacer.pause(_ACCEPT_AGAIN_S)
            else:
                self._take(sock, str(address[0]))

    def _take(self, sock: socket.socket, source: str) -> None:
        try:
            wire = Wire(sock, self._pacer, unsent_s=self._unsent_s)
        except OSError:
            sock.close()  # it is gone again
            return
        thread = threading.Thread(target=self._attend, args=(wire,), name=f"relay: {source}", daemon=True)
        with self._lock:
            if self._served.stopped:
                wire.close()
                return
            pushed_out = self._strangers.add(wire, source, time.monotonic())
            self._served.threads.add(thread)
        for other in pushed_out:
            other.abort()
        try:
            thread.start()
        except RuntimeError:  # no more threads are allowed: this one is turned away, those that are here stay
            with self._lock:
                self._strangers.discard(wire)
                self._served.threads.discard(thread)
            wire.close()

    def _attend(self, wire: Wire) -> None:
        """The life of a connection, in a thread of its own."""
        try:
            if self._context is not None:
                wire.start_tls(self._context, server_side=True)
            self._admit(wire)
            self._answer_all(wire)
        except (OSError, ProtocolError):
            pass  # it left, was too slow, or breaks the rules: its connection ends, no other
        finally:
            with self._lock:
                self._strangers.discard(wire)
                self._served.readers.discard(wire)
                self._served.threads.discard(threading.current_thread())
            wire.close()

    def _admit(self, wire: Wire) -> None:
        hello, _ = wire.receive()
        if not isinstance(hello, RelayHello):
            raise RemoteError("it did not say who it is")
        wire.keep_alive()
        with self._lock:
            self._gate.admit(hello)
            self._strangers.discard(wire)
            if len(self._served.readers) >= MOST_READERS:
                raise RemoteError("there are too many readers")
            self._served.readers.add(wire)
        wire.allowed = frozenset({Kind.BULK})

    # --- those who proved themselves

    def _answer_all(self, wire: Wire) -> None:
        with contextlib.closing(Packer(wire.sent, self._least_s, wire.hold_back)) as packer:
            get = None
            while not self._served.stopped:
                get = self._answer(wire, get or self._asked(wire), packer)

    def _least_s(self) -> float:
        """Seconds that a byte takes to a reader by the cap on the rate."""
        return len(self._served.readers) / self._rate_bytes_s if self._rate_bytes_s else 0.0

    def _asked(self, wire: Wire) -> ChunkGet:
        get, _ = wire.receive()
        if not isinstance(get, ChunkGet):
            raise RemoteError(f"a reader does not send {type(get).__name__}")
        return get

    def _answer(self, wire: Wire, get: ChunkGet, packer: Packer) -> ChunkGet | None:
        """Answer one request, however long it takes until the chunk is there; the next if it was read."""
        until = time.monotonic() + self._unknown_s
        while (spool := self._await_chunk(get)) is None:
            if self._served.stopped:
                return None
            if self._spool(get) is None and time.monotonic() >= until:
                wire.send(ChunkRefused(get.blob, get.index, "not held here"))
                return None
            wire.send(RelayWait(get.blob, get.index))
        following = None
        try:
            span = spool.span(get.index)
            packed = packer.pack(get, span)
            following = self._look_ahead(wire, packer)
            if packed:
                wire.send_packed(Chunk(get.blob, get.index, packed=True), packed)
            else:
                wire.send_chunk(Chunk(get.blob, get.index), *span)
        except (SpoolError, Unread) as error:
            wire.send(ChunkRefused(get.blob, get.index, as_words(str(error))))
        return following

    def _look_ahead(self, wire: Wire, packer: Packer) -> ChunkGet | None:
        """Where chunks go packed, the next request if it is here: packing begins before this one is sent."""
        if not (packer.on and wire.waiting()):
            return None
        get = self._asked(wire)
        spool = self._spool(get)
        if spool is not None and spool.has(get.index):
            with contextlib.suppress(SpoolError):  # it was withdrawn just now
                packer.begin(get, spool.span(get.index))
        return get

    def _await_chunk(self, get: ChunkGet) -> Spool | None:
        """The spool with the chunk, waiting a little for both."""
        with self._lock:
            self._lock.wait_for(
                lambda: self._spool(get) or self._served.stopped, min(self._wait_every_s, self._unknown_s)
            )
        spool = self._spool(get)
        return (
            spool
            if spool is not None and spool.wait_for(get.index, self._wait_every_s, self._is_stopped)
            else None
        )

    def _is_stopped(self) -> bool:
        return self._served.stopped

    def _spool(self, get: ChunkGet) -> Spool | None:
        spool = self._served.spools.get(get.blob)
        return spool if spool is not None and get.index < spool.manifest.count else None
