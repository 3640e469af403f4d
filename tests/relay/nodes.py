"""Nodes of one process that relay blobs to each other over real sockets, and those in between who meddle."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.events import Patience, PullEvent
from phalanx.agent.relay.puller import Pull
from phalanx.agent.relay.server import RelayServer
from phalanx.agent.relay.spool import Spool
from phalanx.agent.relay.wire import shut_down
from phalanx.protocol.blob import Manifest, make_manifest
from phalanx.protocol.messages import BulkSecurity, Parent, Stripe
from phalanx.protocol.ticket import Gate, tickets

CHUNK = 64 * 1024
RUN = "run-1"
#: Short, so that a test of what takes too long is not long itself.
BRISK = Patience(silent_s=0.4, controller_silent_s=0.3, retry_s=0.05, claim_s=0.02, progress_s=0.0)

T = TypeVar("T")


@cache
def certificate(number: int = 0) -> tuple[bytes, bytes]:
    """PEM of a certificate and its key, and the certificate's fingerprint; another one for each number."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"relay {number}")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number + 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).digest()


def cut(content: bytes, chunk: int = CHUNK) -> list[bytes]:
    return [content[i : i + chunk] for i in range(0, len(content), chunk)]


def blob_of(chunks: float, chunk: int = CHUNK) -> tuple[bytes, Manifest]:
    """Random content of so many chunks, and its manifest."""
    content = os.urandom(int(chunks * chunk))
    return content, make_manifest(cut(content, chunk), chunk)


def fill(spool: Spool, content: bytes, indexes: Sequence[int] | None = None) -> None:
    """Write chunks of a blob that is ours to write; without ``indexes`` all of them, and finish it."""
    pieces = cut(content, spool.manifest.chunk_bytes)
    for index in range(len(pieces)) if indexes is None else indexes:
        spool.keep(index, pieces[index])
    if indexes is None:
        assert spool.finish()
        spool.settle()


class Fetch:
    """A pull and all that it told."""

    def __init__(self, node: Node, manifests: Sequence[Manifest], **options: Any) -> None:
        self.events: queue.Queue[PullEvent] = queue.Queue()
        self.told: list[PullEvent] = []
        options.setdefault("patience", BRISK)
        self.pull = Pull(
            node.cache,
            options.pop("count", len(manifests)),
            run_id=RUN,
            node=node.name,
            tell=self.events.put,
            opened=node.relay.serve,
            **options,
        )
        for manifest in manifests:
            self.pull.add(manifest)

    def start(self, *stripes: Sequence[Parent]) -> Fetch:
        self.pull.start([Stripe(tuple(parents)) for parents in stripes])
        return self

    def change(self, *stripes: Sequence[Parent]) -> None:
        self.pull.parents_changed([Stripe(tuple(parents)) for parents in stripes])

    def until(self, kind: type[T], which: Callable[[T], bool] = lambda event: True) -> T:
        """The next event of a kind; fails the test when it does not come."""
        while True:
            event = self.events.get(timeout=10)
            self.told.append(event)
            if isinstance(event, kind) and which(event):
                return event

    def all_of(self, kind: type[T]) -> list[T]:
        while not self.events.empty():
            self.told.append(self.events.get())
        return [event for event in self.told if isinstance(event, kind)]


class Node:
    """A node with its cache and, once it is open, its relay."""

    def __init__(self, folder: Path, name: str, number: int = 0, **options: Any) -> None:
        self.name = name
        self.cache = BlobCache(folder / name, 1 << 40, reserve_bytes=0)
        self.key = os.urandom(32)
        self.security = options.pop("security", BulkSecurity.TLS)
        self.pem, self.pin = certificate(number)
        self.relay = RelayServer(Gate(self.key, RUN), self.security, self.pem, bind="127.0.0.1", **options)
        self.port = self.relay.start()
        self._serials = itertools.count(1)
        self.pulls: list[Pull] = []

    def holds(self, content: bytes, manifest: Manifest) -> Spool:
        """Have a blob whole, and serve it."""
        spool = self.cache.open(manifest)
        assert self.cache.claim(spool)
        fill(spool, content)
        self.relay.serve(spool)
        return spool

    def has(self, manifest: Manifest) -> bytes:
        """The content of a blob that lies whole in the cache."""
        path = self.cache.whole(manifest.blob, manifest.size)
        assert path is not None
        return path.read_bytes()

    def for_reader(self, reader: str, count: int = 8, port: int = 0) -> Parent:
        """This node as the parent of another."""
        pin = self.pin if self.security is BulkSecurity.TLS else b""
        papers = tickets(self.key, RUN, reader, self._serials, count)
        return Parent(self.name, "127.0.0.1", port or self.port, pin, papers)

    def fetch(self, *manifests: Manifest, **options: Any) -> Fetch:
        fetch = Fetch(self, manifests, **options)
        self.pulls.append(fetch.pull)
        return fetch

    def stop(self) -> None:
        for pull in self.pulls:
            pull.cancel()
        self.relay.stop()


class Meddler:
    """Stands between a reader and a relay. ``do``: what happens to bytes of the relay from ``after`` on."""

    def __init__(self, port: int, do: Callable[[bytes], bytes | None], after: int) -> None:
        self._to = port
        self._do = do
        self._after = after
        #: bytes of the relay that passed, and in how many pieces
        self.passed = self.words = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                reader, _ = self._listener.accept()
            except OSError:
                return
            relay = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [reader, relay]
            for source, sink, meddle in ((reader, relay, False), (relay, reader, True)):
                self._threads.append(
                    threading.Thread(target=self._pass, args=(source, sink, meddle), daemon=True)
                )
                self._threads[-1].start()

    def _pass(self, source: socket.socket, sink: socket.socket, meddle: bool) -> None:
        try:
            while data := source.recv(16384):
                if meddle:
                    self.passed += len(data)
                    self.words += 1
                    changed = self._do(data) if self.passed > self._after else data
                    if changed is None:
                        break
                    data = changed
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            shut_down(one)

    def stop(self) -> None:
        for one in self._sockets:
            shut_down(one)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


@contextmanager
def meddling(node: Node, do: Callable[[bytes], bytes | None], after: int) -> Iterator[Meddler]:
    """Someone between a node's relay and its readers."""
    meddler = Meddler(node.port, do, after)
    try:
        yield meddler
    finally:
        meddler.stop()


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for what will be true; fails the test when it does not come."""
    by = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < by
        time.sleep(0.005)


def flip(data: bytes) -> bytes:
    """One bit is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def close(data: bytes) -> None:
    """The connection ends."""
    return


def swallow(data: bytes) -> bytes:
    """Nothing comes any more, and nothing breaks."""
    return b""
