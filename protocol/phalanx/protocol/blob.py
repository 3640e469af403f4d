"""Blobs: bytes known by digest, moved in chunks that are verified before they are written or passed on.

The manifest (size, digest of the whole, digest of each chunk) comes over the authenticated control
channel, in pages that may still be made while chunks of the first are read; the chunks may come from
anywhere. The reader asks for a few chunks at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .errors import RemoteError
from .messages import CHUNK_BYTES, CHUNKS_PER_PAGE, BlobChunks

#: Chunks asked for at a time: two on the wire while two are written.
WINDOW = 4
#: Fewest bytes of a layer's chunk.
LAYER_CHUNK_MIN = 256 * 1024
#: Bytes of a blob after which the digests of what was read so far are told: 0.1 s of hashing, and 220
#: messages for a layer of 14 GB.
PAGE_BYTES = 64 * 1024 * 1024


class ChunkMismatch(RemoteError):
    """A chunk whose bytes are not what the manifest says; its sender is not to be used again."""


class BlobMismatch(RemoteError):
    """Bytes that are not the blob of that digest."""


def chunk_count(size: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Chunks of a blob of ``size`` bytes; an empty blob has none."""
    return -(-size // chunk_bytes)


def chunk_length(size: int, index: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Bytes of chunk ``index`` of a blob of ``size`` bytes."""
    return min(chunk_bytes, size - index * chunk_bytes)


def layer_chunk_bytes(total: int) -> int:
    """Bytes of a chunk for the layers of an image of ``total`` bytes.

    A relay passes a chunk on when it is whole, so each node of a chain adds the time of one chunk: 1/512 of
    the image keeps eight nodes within 2 % of one link's time, and the digests of an image at 16 KiB until
    chunks are as large as they get. It follows from the image alone: what a node has kept of it stays usable.
    """
    power = 1 << max(1, total // 512).bit_length() - 1
    return min(CHUNK_BYTES, max(LAYER_CHUNK_MIN, power))


@dataclass(slots=True)
class Manifest:
    """What a blob is: sha256 of the whole, its size, the sha256 of each chunk.

    Digests may be told page by page while they are made: those that are known are the first ones, and only
    become more. A chunk whose digest is not known is not to be asked for or taken. Any thread may read it
    while one adds pages.
    """

    blob: bytes
    size: int
    digests: tuple[bytes, ...]
    chunk_bytes: int = CHUNK_BYTES

    @property
    def count(self) -> int:
        """Chunks of the blob, whether their digests are known or not."""
        return chunk_count(self.size, self.chunk_bytes)

    @property
    def whole(self) -> bool:
        """Whether every digest is known."""
        return len(self.digests) == self.count

    def add(self, page: BlobChunks) -> None:
        """Take the next page. Raises RemoteError for one that does not fit; then nothing has changed."""
        of = page.blob, page.size, page.chunk_bytes
        if of != (self.blob, self.size, self.chunk_bytes) or page.first != len(self.digests):
            raise RemoteError(f"manifest page from chunk {page.first} on does not fit the one before")
        known = len(self.digests) + len(page.digests)
        if known > self.count or (not page.digests and self.count):
            raise RemoteError(f"{known} chunk digests for a blob of {self.count} chunks")
        self.digests += page.digests

    def pages(self, first: int = 0) -> list[BlobChunks]:
        """The messages that carry the digests known from chunk ``first`` on; one, without digests, for an
        empty blob."""
        known = self.digests
        return [
            BlobChunks(self.blob, self.size, start, known[start : start + CHUNKS_PER_PAGE], self.chunk_bytes)
            for start in range(first, max(1, len(known)), CHUNKS_PER_PAGE)
        ]

    def offset(self, index: int) -> int:
        """Where chunk ``index`` begins."""
        return index * self.chunk_bytes

    def length(self, index: int) -> int:
        """Bytes of chunk ``index``."""
        return chunk_length(self.size, index, self.chunk_bytes)

    def verify(self, index: int, payload: bytes | memoryview) -> None:
        """Raises ChunkMismatch when ``payload`` is not chunk ``index``, or that cannot be known yet."""
        if not 0 <= index < len(self.digests) or len(payload) != self.length(index):
            known = len(self.digests)
            raise ChunkMismatch(f"chunk {index} has {len(payload)} bytes; the digests of {known} are known")
        if hashlib.sha256(payload).digest() != self.digests[index]:
            raise ChunkMismatch(f"chunk {index} does not match its digest")


def with_page(manifest: Manifest | None, page: BlobChunks) -> Manifest:
    """The manifest with its next page; with a first page, a new one. Raises RemoteError as ``add`` does."""
    if manifest is None or page.first == 0:
        manifest = Manifest(page.blob, page.size, (), page.chunk_bytes)
    manifest.add(page)
    return manifest


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


def make_pages(
    blob: bytes, size: int, chunks: Iterable[bytes], chunk_bytes: int = CHUNK_BYTES
) -> Iterator[BlobChunks]:
    """The manifest of a blob that should be ``blob``, page by page while its chunks are read.

    The last page comes only once the whole was seen to be right: without it no reader has all of the blob.
    Raises BlobMismatch in its place.
    """
    whole = hashlib.sha256()
    count, most = chunk_count(size, chunk_bytes), min(CHUNKS_PER_PAGE, max(1, PAGE_BYTES // chunk_bytes))
    digests: list[bytes] = []
    first = read = 0
    for chunk in chunks:
        whole.update(chunk)
        digests.append(hashlib.sha256(chunk).digest())
        read += len(chunk)
        if len(digests) == most and first + most < count:
            yield BlobChunks(blob, size, first, tuple(digests), chunk_bytes)
            first, digests = first + most, []
    if (whole.digest(), read) != (blob, size):
        raise BlobMismatch(f"{read} bytes of {size} do not match the digest of the whole")
    yield BlobChunks(blob, size, first, tuple(digests), chunk_bytes)


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
        return self.have == self.manifest.count
