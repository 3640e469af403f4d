"""Files from the nodes into the run directory: offered by digest, read chunk by chunk, kept only when whole.

What a node offers is what a workload wrote: names are checked, sizes are bounded, and a file appears under
its name only after its last byte is verified and synced. It grows in a folder of its own meanwhile, so that
no name of one file can hit another.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from phalanx.protocol.blob import (
    WINDOW,
    ChunkMismatch,
    Download,
    Manifest,
    chunk_count,
    with_page,
)
from phalanx.protocol.errors import ProtocolError, RemoteError
from phalanx.protocol.messages import (
    CHUNK_BYTES,
    BlobChunks,
    Chunk,
    ChunkGet,
    ChunkRefused,
    FileOffer,
    Message,
)

from ..logs.paths import safe
from .events import Event, FileCollected
from .hub import Hub

#: Largest file that is taken from a node, in bytes, and files of one node and case.
FILE_BYTES = 512 * 1024 * 1024
MOST_FILES = 2000
#: Largest blob of any kind: what a manifest may claim, so that its digests fit into memory.
BLOB_BYTES = 1024**4
MOST_CHUNKS = BLOB_BYTES // CHUNK_BYTES
#: Manifests that a node may send ahead of their use.
MOST_MANIFESTS = 2 * MOST_FILES
#: Nodes of which files are read at one time: each holds up to WINDOW chunks in memory and a file open.
AT_ONCE = 32
#: A chunk that does not come is an error after this long, in seconds.
CHUNK_WITHIN_S = 60.0
#: Where files grow until they are whole, below the run directory.
INCOMING = ".incoming"


class BadOffer(Exception):
    """An offer that is not taken; the message says why."""


def kept_path(node: str, case: str, offered: str, *, single_case: bool) -> PurePosixPath:
    """Where an offered file goes, relative to the run directory; folders are named as those of the logs.

    Raises BadOffer for a name that is absolute, leads out, or holds what no file name should.
    """
    path = PurePosixPath(offered)
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or len(parts) > 32:
        raise BadOffer(f"{offered!r} is not a relative path")
    if not offered.isprintable() or any(len(part.encode("utf-8", "replace")) > 255 for part in parts):
        raise BadOffer(f"{offered!r} holds characters or names that are not allowed")
    folder = PurePosixPath("results", safe(node))
    return (folder if single_case else folder / safe(case)) / path


@dataclass(slots=True)
class _Pull:
    download: Download
    arrived: asyncio.Queue[Chunk | BadOffer] = field(default_factory=asyncio.Queue)


@dataclass(frozen=True, slots=True)
class _Offered:
    offer: FileOffer
    manifest: Manifest | None


@dataclass(slots=True)
class Pulling:
    """Incoming files of a run."""

    hub: Hub
    run_dir: Path
    single_case: bool
    record: Callable[[Event], None]
    _coming: dict[tuple[str, bytes], Manifest] = field(default_factory=dict)
    _manifests: dict[str, dict[bytes, Manifest]] = field(default_factory=dict)
    _waiting: dict[str, deque[_Offered | Callable[[], None]]] = field(default_factory=dict)
    _current: dict[str, _Pull] = field(default_factory=dict)
    _kept: dict[PurePosixPath, bytes] = field(default_factory=dict)
    _count: Counter[tuple[str, str]] = field(default_factory=Counter)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    # --- what is offered

    def on_chunks(self, node: str, message: Message) -> None:
        """A page of a manifest from a node. Raises ProtocolError for pages that do not fit."""
        if not isinstance(message, BlobChunks):
            return
        known = self._manifests.setdefault(node, {})
        chunks = chunk_count(message.size, message.chunk_bytes)
        if chunks > MOST_CHUNKS or len(known) >= MOST_MANIFESTS:
            raise RemoteError(f"{len(known)} manifests are held, this one is for {message.size} bytes")
        key = (node, message.blob)
        manifest = self._coming[key] = with_page(self._coming.get(key), message)
        if manifest.whole:
            known[message.blob] = self._coming.pop(key)

    def on_offer(self, node: str, message: Message, spawn: Callable[..., object]) -> None:
        """A node offers a file of a case."""
        if isinstance(message, FileOffer):
            # The manifest came just before, and is used as it is now: the same content may come twice.
            manifest = self._manifests.get(node, {}).get(message.blob)
            self._enqueue(node, _Offered(message, manifest), spawn)

    def after_offers(self, node: str, call: Callable[[], None], spawn: Callable[..., object]) -> None:
        """Call once everything that the node has offered so far is in."""
        self._manifests.pop(node, None)
        self._enqueue(node, call, spawn)

    def _enqueue(self, node: str, item: _Offered | Callable[[], None], spawn: Callable[..., object]) -> None:
        waiting = self._waiting.get(node)
        if waiting is not None:
            waiting.append(item)
            return
        self._waiting[node] = deque([item])
        spawn(self._take_all(node), name=f"files from {node}")

    async def _take_all(self, node: str) -> None:
        """Everything that waits, one after another; over when nothing does."""
        waiting = self._waiting[node]
        try:
            while waiting:
                item = waiting.popleft()
                if isinstance(item, _Offered):
                    self.record(await self._answer(node, item))
                else:
                    item()
        finally:
            del self._waiting[node]

    # --- one file

    async def _answer(self, node: str, offered: _Offered) -> FileCollected:
        offer = offered.offer
        try:
            kept, error = await self._take(node, offered), ""
        except OSError as trouble:
            kept, error = "", f"cannot write it on the login node: {trouble.strerror or trouble}"
        except (BadOffer, ProtocolError) as trouble:
            kept, error = "", str(trouble)
        return FileCollected(offer.case, node, offer.path, offer.size, offer.blob.hex(), kept, error)

    async def _take(self, node: str, offered: _Offered) -> str:
        """Get one file; its path relative to the run directory."""
        offer = offered.offer
        relative = kept_path(node, offer.case, offer.path, single_case=self.single_case)
        if offer.size > FILE_BYTES:
            raise BadOffer(f"{offer.size} bytes, {FILE_BYTES} allowed")
        if relative in self._kept:
            if self._kept[relative] == offer.blob:
                return str(relative)
            raise BadOffer(f"another file was kept as {relative} already")
        self._count[node, offer.case] += 1
        if self._count[node, offer.case] > MOST_FILES:
            raise BadOffer(f"more than {MOST_FILES} files")
        target = self.run_dir / relative
        await asyncio.to_thread(target.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        async with self._room:
            await self._fetch(node, offer, offered.manifest, target)
        self._kept[relative] = offer.blob
        return str(relative)

    async def _fetch(self, node: str, offer: FileOffer, manifest: Manifest | None, target: Path) -> None:
        if manifest is None or manifest.size != offer.size:
            raise BadOffer("its manifest did not come before it")
        folder = self.run_dir / INCOMING
        folder.mkdir(mode=0o700, exist_ok=True)
        part = folder / secrets.token_hex(8)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                await self._receive(node, manifest, fd)
            finally:
                os.close(fd)
            await asyncio.to_thread(_keep, part, target)
        finally:
            part.unlink(missing_ok=True)

    async def _receive(self, node: str, manifest: Manifest, fd: int) -> None:
        pull = self._current[node] = _Pull(Download(manifest))
        try:
            self._ask(node, pull)
            while not pull.download.complete:
                chunk = await _next_chunk(pull)
                try:
                    offset = pull.download.on_chunk(chunk.index, chunk.payload)
                except ChunkMismatch:
                    raise
                except RemoteError:
                    continue  # answered twice: once before the bulk connection broke, once after
                await _write(fd, chunk.payload, offset)
                self._ask(node, pull)
        finally:
            del self._current[node]

    def _ask(self, node: str, pull: _Pull) -> None:
        for index in pull.download.to_ask():
            if not self.hub.tell_bulk(node, ChunkGet(pull.download.manifest.blob, index)):
                return

    def bulk_is_up(self, node: str) -> None:
        """The node has a new bulk connection: ask again for what is outstanding."""
        pull = self._current.get(node)
        if pull is not None:
            pull.download.restart()
            self._ask(node, pull)

    def on_chunk(self, node: str, message: Message) -> None:
        """Bytes of the file that is being read from a node. Raises RemoteError for a flood of them."""
        if isinstance(message, Chunk):
            self._arrived(node, message.blob, message)

    def on_refused(self, node: str, message: Message) -> None:
        """The node cannot give a chunk. Raises RemoteError for a flood of such words."""
        if isinstance(message, ChunkRefused):
            self._arrived(node, message.blob, BadOffer(message.reason))

    def _arrived(self, node: str, blob: bytes, what: Chunk | BadOffer) -> None:
        """Hand it to the file that is being read; what was asked for an earlier one is let fall."""
        pull = self._current.get(node)
        if pull is None or blob != pull.download.manifest.blob:
            return
        if pull.arrived.qsize() >= 2 * WINDOW:
            raise RemoteError("more chunks than were asked for")
        pull.arrived.put_nowait(what)


async def _next_chunk(pull: _Pull) -> Chunk:
    try:
        async with asyncio.timeout(CHUNK_WITHIN_S):
            arrived = await pull.arrived.get()
    except TimeoutError:  # our own deadline: a queue is no socket
        raise BadOffer(f"no chunk within {CHUNK_WITHIN_S:g} s") from None
    if isinstance(arrived, BadOffer):
        raise arrived
    return arrived


async def _write(fd: int, data: bytes, offset: int) -> None:
    """Write in a thread, and wait for it also when cancelled: the file is closed right after."""
    work = asyncio.ensure_future(asyncio.to_thread(_write_all, fd, data, offset))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _keep(part: Path, target: Path) -> None:
    """Give a whole file its name, for good: it is synced, and so is the folder that names it."""
    _sync(part)
    part.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
