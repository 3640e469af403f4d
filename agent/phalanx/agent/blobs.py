"""Blobs on a node: fetched from the controller chunk by chunk, or offered to it from files that lie here.

A chunk is verified against the manifest, which came over the authenticated control channel, before it is
written. A fetch survives a broken connection: it goes on at the last chunk that was verified. Digests and
disks are worked on in threads, so that no heartbeat waits for them.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.agent.beneath import open_beneath
from phalanx.protocol.blob import (
    WINDOW,
    ChunkMismatch,
    Download,
    Manifest,
    make_manifest,
    with_page,
)
from phalanx.protocol.errors import ProtocolError, RemoteError
from phalanx.protocol.messages import (
    CHUNK_BYTES,
    BlobChunks,
    BlobFetch,
    Chunk,
    ChunkGet,
    ChunkRefused,
    FetchProgress,
    Message,
)
from phalanx.protocol.schema import as_words

#: Bytes that a fetch leaves free on the disk it writes to.
RESERVE_BYTES = 64 * 1024 * 1024
#: Seconds between two progress messages of a fetch.
PROGRESS_EVERY_S = 0.5


class BlobError(Exception):
    """A blob cannot be had; the message says why."""


@dataclass(slots=True)
class _Fetch:
    """A fetch in progress. ``news``: chunks, refusals, and None for a new bulk link, in their order.

    ``anew``: there is a new link, and nothing is asked of it before the news of the old one are through.
    """

    request: int
    download: Download
    fd: int
    news: asyncio.Queue[Chunk | ChunkRefused | None] = field(default_factory=asyncio.Queue)
    anew: bool = False
    told: float = 0.0


@dataclass(slots=True)
class BlobStore:
    """Blobs in ``directory``. ``send_bulk`` sends on the bulk link, False when it is down just now.

    ``need_bulk`` brings the bulk link up; ``send`` sends a control message. ``held``: what was fetched.
    Two cases may fetch or offer the same bytes: they are there until the last of them lets go.
    """

    directory: Path
    send: Callable[[Message], None]
    send_bulk: Callable[[Message], bool]
    need_bulk: Callable[[], Awaitable[None]]
    held: dict[bytes, Path] = field(default_factory=dict)
    _coming: dict[bytes, Manifest] = field(default_factory=dict)
    _manifests: dict[bytes, Manifest] = field(default_factory=dict)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _fetches: dict[bytes, _Fetch] = field(default_factory=dict)
    _turns: dict[bytes, asyncio.Lock] = field(default_factory=dict)
    _offered: dict[bytes, list[tuple[Path, str]]] = field(default_factory=dict)
    _users: Counter[bytes] = field(default_factory=Counter)

    def on_chunks(self, page: BlobChunks) -> None:
        """A page of a manifest. Raises RemoteError for pages that do not fit together."""
        manifest = self._coming[page.blob] = with_page(self._coming.get(page.blob), page)
        if manifest.whole:
            self._manifests[page.blob] = self._coming.pop(page.blob)
        self._more.set()

    def expect_anew(self, blobs: Iterable[bytes]) -> None:
        """New manifests of these will come: another image may have a layer in chunks of another size."""
        for blob in blobs:
            self._manifests.pop(blob, None)
            self._coming.pop(blob, None)

    async def manifest(self, blob: bytes) -> Manifest:
        """The manifest of a blob, waited for until its first page is here; the others are added to it."""
        while (found := self._coming.get(blob) or self._manifests.get(blob)) is None:
            await self.more()
        return found

    async def more(self) -> None:
        """Wait until a page of any manifest comes."""
        self._more.clear()
        await self._more.wait()

    async def fetch(self, message: BlobFetch) -> Path:
        """Get a blob whose manifest came before, for one user more. Raises BlobError."""
        async with self._turns.setdefault(message.blob, asyncio.Lock()):
            if message.blob not in self.held:
                self.held[message.blob] = await self._fetch(message)
            self._users[message.blob] += 1
            return self.held[message.blob]

    async def _fetch(self, message: BlobFetch) -> Path:
        manifest = self._manifests.get(message.blob)
        if manifest is None or manifest.size != message.size:
            raise BlobError("its manifest did not come before it")
        target = self.directory / message.blob.hex()
        part = target.with_suffix(".part")
        try:
            self._check_room(manifest.size)
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                await self._receive(_Fetch(message.request, Download(manifest), fd))
                part.rename(target)
            finally:
                os.close(fd)
                part.unlink(missing_ok=True)
        except OSError as error:
            raise BlobError(f"cannot write {part}: {error.strerror}") from error
        return target

    def _check_room(self, size: int) -> None:
        stat = os.statvfs(self.directory)
        free = stat.f_bavail * stat.f_frsize
        if size + RESERVE_BYTES > free:
            raise BlobError(
                f"not enough room in {self.directory}: {size} bytes and {RESERVE_BYTES} in reserve are "
                f"needed, {free} are free; set TMPDIR of the agents to a larger disk"
            )

    async def _receive(self, fetch: _Fetch) -> None:
        """Ask for chunks and write them until all are there. Raises BlobError, OSError."""
        download = fetch.download
        blob = download.manifest.blob
        self._fetches[blob] = fetch
        try:
            if not download.complete:
                await self.need_bulk()
                self._ask(fetch)
            while not download.complete:
                await self._take(fetch, await fetch.news.get())
        except ProtocolError as error:
            raise BlobError(str(error)) from error
        finally:
            del self._fetches[blob]

    async def _take(self, fetch: _Fetch, news: Chunk | ChunkRefused | None) -> None:
        if news is None:
            fetch.download.restart()
            fetch.anew = False
        elif isinstance(news, ChunkRefused):
            raise BlobError(f"the controller refused chunk {news.index}: {news.reason}")
        else:
            writing = asyncio.ensure_future(asyncio.to_thread(_keep, fetch.download, fetch.fd, news))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait([writing])  # the descriptor is closed after this
                raise
            self._tell_progress(fetch)
        self._ask(fetch)

    def _tell_progress(self, fetch: _Fetch) -> None:
        now = asyncio.get_running_loop().time()
        if now - fetch.told >= PROGRESS_EVERY_S:
            fetch.told = now
            self.send(FetchProgress(fetch.request, fetch.download.received))

    def _ask(self, fetch: _Fetch) -> None:
        if fetch.anew:
            return
        for index in fetch.download.to_ask():
            if not self.send_bulk(ChunkGet(fetch.download.manifest.blob, index)):
                return  # all of them are asked for again on the next link

    def bulk_is_up(self) -> None:
        """A new bulk link: ask again for what was outstanding."""
        for fetch in self._fetches.values():
            fetch.anew = True
            fetch.news.put_nowait(None)

    def on_chunk(self, message: Chunk | ChunkRefused) -> None:
        """Bytes of a fetch, or that the other side cannot give them. Raises RemoteError for a flood."""
        fetch = self._fetches.get(message.blob)
        if fetch is None:
            return
        if fetch.news.qsize() > 2 * WINDOW:
            raise RemoteError("more chunks than were asked for")
        fetch.news.put_nowait(message)

    # --- offering

    async def offer(self, folder: Path, name: str) -> Manifest:
        """Make a file of a folder readable as a blob; its manifest. Raises BlobError."""
        try:
            manifest = await asyncio.to_thread(manifest_of, folder, name)
        except OSError as error:
            raise BlobError(f"cannot read it: {error.strerror}") from error
        self._offered.setdefault(manifest.blob, []).append((folder, name))
        self._manifests[manifest.blob] = manifest
        return manifest

    async def serve(self, message: ChunkGet) -> None:
        """Answer a request for a chunk of what is offered or held."""
        manifest, place = self._manifests.get(message.blob), self._place(message.blob)
        if manifest is None or place is None or message.index >= len(manifest.digests):
            self.send_bulk(ChunkRefused(message.blob, message.index, "not held here"))
            return
        try:
            payload = await asyncio.to_thread(_read_chunk, place, manifest, message.index)
        except OSError as error:
            reason = as_words(error.strerror or str(error))
            self.send_bulk(ChunkRefused(message.blob, message.index, reason))
        except ProtocolError:
            self.send_bulk(ChunkRefused(message.blob, message.index, "the file changed after it was offered"))
        else:
            self.send_bulk(Chunk(message.blob, message.index, payload=payload))

    def _place(self, blob: bytes) -> tuple[Path, str] | None:
        held = self.held.get(blob)
        if held is not None:
            return held.parent, held.name
        offered = self._offered.get(blob)
        return offered[-1] if offered else None

    def drop(self, blob: bytes) -> None:
        """One user less of a blob that was fetched: after the last, forget it and remove its file."""
        self._users[blob] -= 1
        if self._users[blob] > 0:
            return
        del self._users[blob]
        path = self.held.pop(blob, None)  # its manifest stays: who comes next may have sent it already
        if path is not None:
            path.unlink(missing_ok=True)

    def forget(self, base: Path) -> None:
        """Offer nothing any more of what lies below ``base``."""
        for blob, places in list(self._offered.items()):
            left = [place for place in places if not place[0].is_relative_to(base)]
            if left:
                self._offered[blob] = left
                continue
            del self._offered[blob]
            if blob not in self.held:
                self._manifests.pop(blob, None)


def manifest_of(folder: Path, name: str) -> Manifest:
    """The manifest of a file, in one pass. Blocks. Raises OSError."""
    with os.fdopen(open_beneath(folder, name), "rb") as file:
        return make_manifest(iter(lambda: file.read(CHUNK_BYTES), b""))


def _read_chunk(place: tuple[Path, str], manifest: Manifest, index: int) -> bytes:
    """A chunk, verified. Raises OSError, or RemoteError when the file has changed."""
    with os.fdopen(open_beneath(*place), "rb") as file:
        payload = os.pread(file.fileno(), manifest.length(index), manifest.offset(index))
    manifest.verify(index, payload)
    return payload


def _keep(download: Download, fd: int, chunk: Chunk) -> None:
    """Verify a chunk and write it. Raises ChunkMismatch, OSError."""
    try:
        offset = download.on_chunk(chunk.index, chunk.payload)
    except ChunkMismatch:
        raise
    except RemoteError:
        return  # nobody waits for it: it was asked for by a fetch that failed since
    view = memoryview(chunk.payload)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
