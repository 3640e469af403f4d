"""Blobs from the login node to the nodes: image archives, workspaces, the engine's client.

A blob is read once for its digests; nodes then ask for chunks. Chunks of one node go out one after another
and only as its socket takes them, for a bounded number of nodes at a time: memory does not grow with the
fleet, and the link is full long before. Layers of images keep to a rate if there is one, as relays do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from phalanx.protocol.blob import WINDOW, Manifest, make_manifest
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.messages import (
    CHUNK_BYTES,
    BlobFetch,
    BlobHave,
    Chunk,
    ChunkGet,
    ChunkRefused,
    FetchProgress,
    Message,
)
from phalanx.protocol.packing import Packing
from phalanx.protocol.rate import Bucket
from phalanx.protocol.schema import as_words

from .events import OWN, BlobFetched, Event
from .hub import Hub
from .packed import chunk_of
from .session import Session

Progress = Callable[[str, str, int, int], None]
Spawn = Callable[..., object]

#: Nodes that are being written to at one time: each holds up to three chunks in memory.
AT_ONCE = 32
#: Chunks that a node may have asked for, over all of its fetches.
MOST_ASKED = 16 * WINDOW
#: Longest wait for the rate between two chunks to a node, in seconds: half of what readers of layers bear
#: without one (the agents' Patience). With very many readers at a very low rate it is passed rather.
LONGEST_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Shipment:
    purpose: str
    manifest: Manifest
    image: int
    case: str


@dataclass(frozen=True, slots=True)
class Held:
    """A blob that nodes can read: bytes of a file from ``offset`` on. ``paced``: it keeps to the rate."""

    manifest: Manifest
    path: Path
    offset: int = 0
    paced: bool = False


@dataclass(slots=True)
class Shipping:
    """Outgoing blobs. ``progress(phase, node, done, total)`` is for screens only.

    ``rate_bytes_s``: most bytes a second of paced blobs, to all nodes together; 0 for no limit.
    """

    hub: Hub
    record: Callable[[Event], None]
    progress: Progress
    rate_bytes_s: int = 0
    #: bytes of chunks that went to nodes
    sent: int = 0
    _manifests: dict[Path, Manifest] = field(default_factory=dict)
    _held: dict[bytes, Held] = field(default_factory=dict)
    _shipments: dict[int, _Shipment] = field(default_factory=dict)
    _asked: dict[str, deque[ChunkGet]] = field(default_factory=dict)
    _rules: WeakKeyDictionary[Session, Packing] = field(default_factory=WeakKeyDictionary)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _next: int = 1
    _bucket: Bucket | None = None

    def __post_init__(self) -> None:
        self._bucket = Bucket(self.rate_bytes_s, time.monotonic()) if self.rate_bytes_s else None

    async def ship(
        self, purpose: str, path: Path, nodes: tuple[str, ...], image: int = OWN, case: str = ""
    ) -> None:
        """Bring a file to nodes; an event for each says how that went.

        ``image``: the request it is for; ``case``: whose workspace it is.
        """
        try:
            known = self._manifests.get(path)
            manifest = known if known is not None else await asyncio.to_thread(manifest_of, path)
        except OSError as error:
            words = f"cannot read {path}: {error.strerror}"
            for node in nodes:
                self.record(BlobFetched(node, purpose, "", 0, words, image, case))
            return
        self._manifests[path] = manifest
        self.hold(Held(manifest, path))
        request, self._next = self._next, self._next + 1
        self._shipments[request] = _Shipment(purpose, manifest, image, case)
        for page in manifest.pages():
            self.hub.tell(nodes, page)
        self.hub.tell(nodes, BlobFetch(request, manifest.blob, manifest.size))

    def hold(self, held: Held) -> None:
        """Let nodes that know of it read a blob."""
        self._held[held.manifest.blob] = held

    def on_have(self, node: str, message: Message) -> None:
        """A node has a blob, or cannot have it."""
        if not isinstance(message, BlobHave):
            return
        shipment = self._shipments.get(message.request)
        if shipment is not None:
            blob = shipment.manifest.blob.hex()
            size, image, case = shipment.manifest.size, shipment.image, shipment.case
            self.record(BlobFetched(node, shipment.purpose, blob, size, message.error, image, case))

    def on_progress(self, node: str, message: Message) -> None:
        """Verified bytes of a fetch so far."""
        if isinstance(message, FetchProgress) and message.request in self._shipments:
            shipment = self._shipments[message.request]
            done = min(message.received, shipment.manifest.size)
            self.progress(shipment.purpose, node, done, shipment.manifest.size)

    # --- chunks

    def on_chunk_get(self, node: str, message: Message, spawn: Spawn) -> None:
        """A node asks for a chunk; one task per node answers in order, while there is something to answer.

        Raises RemoteError for a node that asks for more than it can use.
        """
        if not isinstance(message, ChunkGet):
            return
        asked = self._asked.get(node)
        if asked is None:
            self._asked[node] = deque([message])
            spawn(self._serve(node), name=f"chunks to {node}")
        elif len(asked) >= MOST_ASKED:
            raise RemoteError(f"it asks for more than {MOST_ASKED} chunks at a time")
        else:
            asked.append(message)

    async def _serve(self, node: str) -> None:
        asked = self._asked[node]
        ahead: Chunk | ChunkRefused | None = None
        try:
            while asked:
                wanted = asked.popleft()
                session = self.hub.bulk_of(node)
                if session is None:
                    asked.clear()  # it asks again on its next bulk connection
                    ahead = None
                    continue
                async with self._room:
                    answer = ahead or await self._prepared(wanted, session)
                    ahead = None
                    await session.bulk_room()
                    session.send(answer)
                    self.sent += len(answer.payload) if isinstance(answer, Chunk) else 0
                    if asked:  # the next is read, and packed, while this one is on its way
                        ahead = await self._prepared(asked[0], session)
                    await session.bulk_room()
                if wait := self._wait_after(answer):
                    await asyncio.sleep(wait)
        finally:
            del self._asked[node]

    def _wait_after(self, answer: Chunk | ChunkRefused) -> float:
        """Seconds until the node may get its next chunk, so that all nodes together keep to the rate."""
        if self._bucket is None or not isinstance(answer, Chunk) or not self._held[answer.blob].paced:
            return 0.0
        return min(LONGEST_WAIT_S, self._bucket.take(len(answer.payload), time.monotonic()))

    def _rule_of(self, session: Session) -> Packing:
        return self._rules.setdefault(session, Packing())

    async def _prepared(self, wanted: ChunkGet, session: Session) -> Chunk | ChunkRefused:
        rule = self._rule_of(session)
        rule.saw(session.sent())
        return await asyncio.to_thread(self._answer, wanted, rule)

    def _answer(self, wanted: ChunkGet, rule: Packing) -> Chunk | ChunkRefused:
        held = self._held.get(wanted.blob)
        if held is None or wanted.index >= len(held.manifest.digests):
            return ChunkRefused(wanted.blob, wanted.index, "not held here")
        length, offset = held.manifest.length(wanted.index), held.offset + held.manifest.offset(wanted.index)
        try:
            with held.path.open("rb") as file:
                payload = os.pread(file.fileno(), length, offset)
        except OSError as error:
            return ChunkRefused(wanted.blob, wanted.index, as_words(f"cannot read it: {error.strerror}"))
        if len(payload) != length:
            return ChunkRefused(wanted.blob, wanted.index, "the file was cut short after it was read")
        return chunk_of(wanted, payload, rule)


def manifest_of(path: Path) -> Manifest:
    """The manifest of a file, in one pass. Blocks. Raises OSError."""
    with path.open("rb") as file:
        return make_manifest(iter(lambda: file.read(CHUNK_BYTES), b""))
