"""Files from the nodes into the run directory: offered by digest, read chunk by chunk, kept only when whole.

What a node offers is what a workload wrote: names are checked, sizes are bounded, and a file appears under
its name only after its last byte is verified and synced.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from phalanx.protocol.blob import Download, Manifest, ManifestBuilder
from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.messages import BlobChunks, Chunk, ChunkGet, ChunkRefused, FileOffer, Message

from .events import Event, FileCollected
from .hub import Hub

#: Largest file that is taken from a node, in bytes, and files of one node and case.
FILE_BYTES = 512 * 1024 * 1024
MOST_FILES = 2000
#: A chunk that does not come is an error after this long, in seconds.
CHUNK_WITHIN_S = 60.0


class BadOffer(Exception):
    """An offer that is not taken; the message says why."""


def kept_path(node: str, case: str, offered: str, *, single_case: bool) -> PurePosixPath:
    """Where an offered file goes, relative to the run directory.

    Raises BadOffer for a name that is absolute, leads out, or holds what no file name should.
    """
    path = PurePosixPath(offered)
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or len(parts) > 32:
        raise BadOffer(f"{offered!r} is not a relative path")
    if not offered.isprintable() or any(len(part.encode()) > 255 for part in parts):
        raise BadOffer(f"{offered!r} holds characters or names that are not allowed")
    folder = PurePosixPath("results", node)
    return (folder if single_case else folder / case.replace("/", "_")) / path


@dataclass(slots=True)
class _Pull:
    offer: FileOffer
    download: Download
    fd: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class Pulling:
    """Incoming files of a run."""

    hub: Hub
    run_dir: Path
    single_case: bool
    record: Callable[[Event], None]
    _builders: dict[tuple[str, bytes], ManifestBuilder] = field(default_factory=dict)
    _manifests: dict[tuple[str, bytes], Manifest] = field(default_factory=dict)
    _queues: dict[str, asyncio.Queue[FileOffer | Callable[[], None]]] = field(default_factory=dict)
    _current: dict[str, _Pull] = field(default_factory=dict)

    def on_chunks(self, node: str, message: Message) -> None:
        """A page of a manifest from a node. Raises ProtocolError for pages that do not fit."""
        if not isinstance(message, BlobChunks):
            return
        key = (node, message.blob)
        manifest = self._builders.setdefault(key, ManifestBuilder()).add(message)
        if manifest is not None:
            del self._builders[key]
            self._manifests[key] = manifest

    def manifest(self, node: str, blob: bytes) -> Manifest | None:
        """The manifest that a node sent for a blob."""
        return self._manifests.get((node, blob))

    def on_offer(self, node: str, message: Message, spawn: Callable[..., object]) -> None:
        """A node offers a file of a case."""
        if isinstance(message, FileOffer):
            self._queue(node, spawn).put_nowait(message)

    def after_offers(self, node: str, call: Callable[[], None], spawn: Callable[..., object]) -> None:
        """Call once everything that the node has offered so far is in."""
        self._queue(node, spawn).put_nowait(call)

    def _queue(
        self, node: str, spawn: Callable[..., object]
    ) -> asyncio.Queue[FileOffer | Callable[[], None]]:
        queue = self._queues.get(node)
        if queue is None:
            queue = self._queues[node] = asyncio.Queue()
            spawn(self._take_all(node, queue), name=f"files from {node}")
        return queue

    async def _take_all(self, node: str, queue: asyncio.Queue[FileOffer | Callable[[], None]]) -> None:
        while True:
            item = await queue.get()
            if not isinstance(item, FileOffer):
                item()
                continue
            try:
                kept = await self._take(node, item)
                error = ""
            except (BadOffer, ProtocolError, OSError) as trouble:
                kept, error = "", str(trouble) or f"no chunk within {CHUNK_WITHIN_S:g} s"
            self.record(FileCollected(item.case, node, item.path, item.size, item.blob.hex(), kept, error))

    async def _take(self, node: str, offer: FileOffer) -> str:
        """Get one file; its path relative to the run directory."""
        relative = kept_path(node, offer.case, offer.path, single_case=self.single_case)
        if offer.size > FILE_BYTES:
            raise BadOffer(f"{offer.size} bytes, {FILE_BYTES} allowed")
        target = self.run_dir / relative
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self.fetch(node, offer, target)
        return str(relative)

    async def fetch(self, node: str, offer: FileOffer, target: Path) -> None:
        """Get a blob of a node into a file. Raises BadOffer, ProtocolError or OSError."""
        manifest = self._manifests.pop((node, offer.blob), None)
        if manifest is None or manifest.size != offer.size:
            raise BadOffer("its manifest did not come before it")
        part = target.with_name(target.name[:200] + ".part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            await self._receive(node, offer, manifest, fd)
            await asyncio.to_thread(os.fsync, fd)
            part.replace(target)
        finally:
            os.close(fd)
            part.unlink(missing_ok=True)

    async def _receive(self, node: str, offer: FileOffer, manifest: Manifest, fd: int) -> None:
        pull = _Pull(offer, Download(manifest), fd, asyncio.get_running_loop().create_future())
        if pull.download.complete:
            return
        self._current[node] = pull
        try:
            self._ask(node, pull)
            seen = -1
            while not pull.done.done():
                if seen == pull.download.have:
                    raise BadOffer(f"no chunk within {CHUNK_WITHIN_S:g} s")
                seen = pull.download.have
                await asyncio.wait([pull.done], timeout=CHUNK_WITHIN_S)
            pull.done.result()
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
        """Bytes of the file that is being read from a node."""
        pull = self._current.get(node)
        if not isinstance(message, Chunk) or pull is None or message.blob != pull.download.manifest.blob:
            return
        try:
            offset = pull.download.on_chunk(message.index, message.payload)
            _write_all(pull.fd, message.payload, offset)
        except (ProtocolError, OSError) as error:
            self._over(pull, error)
            return
        self._ask(node, pull)
        if pull.download.complete:
            self._over(pull, None)

    def on_refused(self, node: str, message: Message) -> None:
        """The node cannot give a chunk."""
        pull = self._current.get(node)
        if isinstance(message, ChunkRefused) and pull is not None:
            self._over(pull, BadOffer(message.reason))

    @staticmethod
    def _over(pull: _Pull, error: Exception | None) -> None:
        if pull.done.done():
            return
        if error is None:
            pull.done.set_result(None)
        else:
            pull.done.set_exception(error)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
