"""Blobs: bytes known by digest, moved in chunks that are verified before they are written or passed on.

The manifest (size, digest of the whole, digest of each chunk) comes over the authenticated control
channel; the chunks may come from anywhere. The reader asks for a few chunks at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import RemoteError
from .messages import CHUNK_BYTES, CHUNKS_PER_PAGE, BlobChunks

#: Chunks asked for at a time: two on the wire while two are written.
WINDOW = 4
#: Fewest bytes of a layer's chunk.
LAYER_CHUNK_MIN = 256 * 1024


class ChunkMismatch(RemoteError):
    """A chunk whose bytes are not what the manifest says; its sender is not to be used again."""


def chunk_count(size: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Chunks of a blob of ``size`` bytes; an empty blob has none."""
    return -(-size // chunk_bytes)


def chunk_length(size: int, index: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Bytes of chunk ``index`` of a blob of ``size`` bytes."""
    return min(chunk_bytes, size - index * chunk_bytes)


def layer_chunk_bytes(total: int) -> int:
    """Bytes of a chunk for the layers of an image of ``total`` bytes.

    A relay passes a chunk on when it is whole, so each node of a chain adds the time of one chunk: 1/256 of
    the image keeps eight nodes within 3 % of one link's time, and the digests of an image at 8 KiB until
    chunks are as large as they get. It follows from the image alone: what a node has kept of it stays usable.
    """
    power = 1 << max(1, total // 256).bit_length() - 1
    return min(CHUNK_BYTES, max(LAYER_CHUNK_MIN, power))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a blob is: sha256 of the whole, its size, the sha256 of each chunk."""

    blob: bytes
    size: int
    digests: tuple[bytes, ...]
    chunk_bytes: int = CHUNK_BYTES

    def pages(self) -> list[BlobChunks]:
        """The messages that carry it; one, without digests, for an empty blob."""
        starts = range(0, max(1, len(self.digests)), CHUNKS_PER_PAGE)
        return [
            BlobChunks(
                self.blob,
                self.size,
                first,
                self.digests[first : first + CHUNKS_PER_PAGE],
                self.chunk_bytes,
            )
            for first in starts
        ]

    def offset(self, index: int) -> int:
        """Where chunk ``index`` begins."""
        return index * self.chunk_bytes

    def length(self, index: int) -> int:
        """Bytes of chunk ``index``."""
        return chunk_length(self.size, index, self.chunk_bytes)

    def verify(self, index: int, payload: bytes | memoryview) -> None:
        """Raises ChunkMismatch when ``payload`` is not chunk ``index``."""
        if not 0 <= index < len(self.digests) or len(payload) != self.length(index):
            raise ChunkMismatch(f"chunk {index} of {len(self.digests)} has {len(payload)} bytes")
        if hashlib.sha256(payload).digest() != self.digests[index]:
            raise ChunkMismatch(f"chunk {index} does not match its digest")


def make_manifest(chunks: Iterable[bytes], chunk_bytes: int = CHUNK_BYTES) -> Manifest:
    """The manifest of a blob given as its chunks, each of ``chunk_bytes`` but the last."""
    whole = hashlib.sha256()
    digests: list[bytes] = []
    size = 0
    for chunk in chunks:
        whole.update(chunk)
        digests.append(hashlib.sha256(chunk).digest())
        size += len(chunk)
    return Manifest(whole.digest(), size, tuple(digests), chunk_bytes)


@dataclass(slots=True)
class ManifestBuilder:
    """Puts the pages of a manifest together, in order."""

    _digests: list[bytes] = field(default_factory=list)
    _of: tuple[bytes, int, int] | None = None

    def add(self, page: BlobChunks) -> Manifest | None:
        """The manifest once its last page is in. Raises RemoteError for pages that do not fit together."""
        if page.first == 0:
            self._digests, self._of = [], (page.blob, page.size, page.chunk_bytes)
        if (page.blob, page.size, page.chunk_bytes) != self._of or page.first != len(self._digests):
            raise RemoteError(f"manifest page from chunk {page.first} on does not fit the one before")
        self._digests.extend(page.digests)
        count = chunk_count(page.size, page.chunk_bytes)
        if len(self._digests) > count or (not page.digests and count):
            raise RemoteError(f"{len(self._digests)} chunk digests for a blob of {count} chunks")
        if len(self._digests) < count:
            return None
        return Manifest(page.blob, page.size, tuple(self._digests), page.chunk_bytes)


@dataclass(slots=True)
class Download:
    """A fetch in progress. ``have``: chunks that are verified and written, in order from the start."""

    manifest: Manifest
    have: int = 0
    asked: int = 0
    _early: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.asked = max(self.asked, self.have)

    def to_ask(self) -> list[int]:
        """Indexes to ask for now, so that at most WINDOW are outstanding; each is given once."""
        end = min(len(self.manifest.digests), self.have + WINDOW)
        wanted = list(range(self.asked, end))
        self.asked = max(self.asked, end)
        return wanted

    def on_chunk(self, index: int, payload: bytes) -> int:
        """Verify a chunk; the offset at which to write it.

        Raises ChunkMismatch, or RemoteError for one that was not asked for.
        """
        if not self.have <= index < self.asked or index in self._early:
            raise RemoteError(f"chunk {index} was not asked for")
        self.manifest.verify(index, payload)
        self._early.add(index)
        while self.have in self._early:
            self._early.remove(self.have)
            self.have += 1
        return self.manifest.offset(index)

    def restart(self) -> None:
        """A new connection: what is outstanding is asked for again."""
        self.asked = self.have
        self._early.clear()

    @property
    def received(self) -> int:
        """Bytes that are verified and written from the start on."""
        return min(self.manifest.size, self.manifest.offset(self.have))

    @property
    def complete(self) -> bool:
        """Whether every chunk is there."""
        return self.have == len(self.manifest.digests)
