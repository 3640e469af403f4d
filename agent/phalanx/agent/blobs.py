"""Blobs on a node: fetched from the controller chunk by chunk, or offered to it from files that lie here.

A chunk is verified against the manifest, which came over the authenticated control channel, before it is
written. A fetch survives a broken connection: it goes on at the last chunk that was verified.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.protocol.blob import Download, Manifest, ManifestBuilder, chunk_length, make_manifest
from phalanx.protocol.errors import ProtocolError
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
    request: int
    download: Download
    fd: int
    done: asyncio.Future[None]
    told: float = 0.0


@dataclass(slots=True)
class BlobStore:
    """Blobs in ``directory``. ``send_bulk`` sends on the bulk link, False when it is down just now.

    ``need_bulk`` brings the bulk link up; ``send`` sends a control message.
    """

    directory: Path
    send: Callable[[Message], None]
    send_bulk: Callable[[Message], bool]
    need_bulk: Callable[[], Awaitable[None]]
    held: dict[bytes, Path] = field(default_factory=dict)
    _builders: dict[bytes, ManifestBuilder] = field(default_factory=dict)
    _manifests: dict[bytes, Manifest] = field(default_factory=dict)
    _fetches: dict[bytes, _Fetch] = field(default_factory=dict)

    def on_chunks(self, page: BlobChunks) -> None:
        """A page of a manifest."""
        builder = self._builders.setdefault(page.blob, ManifestBuilder())
        manifest = builder.add(page)
        if manifest is not None:
            del self._builders[page.blob]
            self._manifests[page.blob] = manifest

    async def fetch(self, message: BlobFetch) -> Path:
        """Get a blob whose manifest came before. Raises BlobError."""
        if message.blob in self.held:
            return self.held[message.blob]
        manifest = self._manifests.get(message.blob)
        if manifest is None or manifest.size != message.size:
            raise BlobError("its manifest did not come before it")
        self._check_room(manifest.size)
        target = self.directory / message.blob.hex()
        part = target.with_suffix(".part")
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            await self._receive(message.request, manifest, fd)
            part.rename(target)
        except OSError as error:
            raise BlobError(f"cannot write {part}: {error.strerror}") from error
        finally:
            os.close(fd)
            part.unlink(missing_ok=True)
        self.held[message.blob] = target
        return target

    def _check_room(self, size: int) -> None:
        stat = os.statvfs(self.directory)
        free = stat.f_bavail * stat.f_frsize
        if size + RESERVE_BYTES > free:
            raise BlobError(
                f"not enough room in {self.directory}: {size} bytes and {RESERVE_BYTES} in reserve are "
                f"needed, {free} are free; set TMPDIR of the agents to a larger disk"
            )

    async def _receive(self, request: int, manifest: Manifest, fd: int) -> None:
        fetch = _Fetch(request, Download(manifest), fd, asyncio.get_running_loop().create_future())
        self._fetches[manifest.blob] = fetch
        try:
            if not fetch.download.complete:
                await self.need_bulk()
                self._ask(fetch)
                await fetch.done
        finally:
            del self._fetches[manifest.blob]

    def _ask(self, fetch: _Fetch) -> None:
        for index in fetch.download.to_ask():
            if not self.send_bulk(ChunkGet(fetch.download.manifest.blob, index)):
                return

    def bulk_is_up(self) -> None:
        """A new bulk link: ask again for what was outstanding."""
        for fetch in self._fetches.values():
            fetch.download.restart()
            self._ask(fetch)

    def on_chunk(self, message: Chunk) -> None:
        """Bytes of a fetch. Raises ProtocolError for a chunk that does not match: the sender is bad."""
        fetch = self._fetches.get(message.blob)
        if fetch is None:
            return
        try:
            offset = fetch.download.on_chunk(message.index, message.payload)
            _write_all(fetch.fd, message.payload, offset)
        except OSError as error:
            words = f"cannot write chunk {message.index}: {error.strerror}"
            self._finish(fetch, BlobError(words))
            return
        except ProtocolError as error:
            self._finish(fetch, BlobError(f"chunk {message.index}: {error}"))
            raise
        self._ask(fetch)
        now = asyncio.get_running_loop().time()
        if now - fetch.told >= PROGRESS_EVERY_S:
            fetch.told = now
            self.send(FetchProgress(fetch.request, fetch.download.received))
        if fetch.download.complete:
            self._finish(fetch, None)

    def on_refused(self, message: ChunkRefused) -> None:
        """The other side cannot give a chunk."""
        fetch = self._fetches.get(message.blob)
        if fetch is not None:
            self._finish(fetch, BlobError(f"the controller refused chunk {message.index}: {message.reason}"))

    @staticmethod
    def _finish(fetch: _Fetch, error: BlobError | None) -> None:
        if fetch.done.done():
            return
        if error is None:
            fetch.done.set_result(None)
        else:
            fetch.done.set_exception(error)

    # --- offering

    async def offer(self, path: Path) -> Manifest:
        """Make a file readable as a blob; its manifest. Raises BlobError."""
        try:
            manifest = await asyncio.to_thread(manifest_of, path)
        except OSError as error:
            raise BlobError(f"cannot read {path.name}: {error.strerror}") from error
        self.held[manifest.blob] = path
        self._manifests[manifest.blob] = manifest
        return manifest

    async def serve(self, message: ChunkGet) -> None:
        """Answer a request for a chunk of what is held."""
        manifest, path = self._manifests.get(message.blob), self.held.get(message.blob)
        if manifest is None or path is None:
            self.send_bulk(ChunkRefused(message.blob, message.index, "not held here"))
            return
        length = chunk_length(manifest.size, message.index)
        try:
            payload = await asyncio.to_thread(_read_at, path, message.index * CHUNK_BYTES, length)
            manifest.verify(message.index, payload)
        except OSError as error:
            reason = as_words(error.strerror or str(error))
            self.send_bulk(ChunkRefused(message.blob, message.index, reason))
        except ProtocolError:
            self.send_bulk(ChunkRefused(message.blob, message.index, "the file changed after it was offered"))
        else:
            self.send_bulk(Chunk(message.blob, message.index, payload))

    def drop(self, blob: bytes) -> None:
        """Forget a blob, and remove its file if it is ours."""
        path = self.held.pop(blob, None)
        self._manifests.pop(blob, None)
        if path is not None and path.parent == self.directory:
            path.unlink(missing_ok=True)


def manifest_of(path: Path) -> Manifest:
    """The manifest of a file, in one pass. Blocks. Raises OSError."""
    with path.open("rb") as file:
        return make_manifest(iter(lambda: file.read(CHUNK_BYTES), b""))


def _read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
