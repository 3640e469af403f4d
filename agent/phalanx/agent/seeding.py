"""The layers of an image of this node's engine, taken into its cache, from where other nodes read them.

Others read a layer while it is still being read here: what it is is known as soon as it is exported, and the
digests of its chunks are told as they are made. Layers that nobody lacks are not read at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from phalanx.agent.blobs import BlobError
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.spool import Spool, SpoolError, never
from phalanx.agent.runtimes import seed as exported
from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.engine import EngineClient
from phalanx.agent.runtimes.images import pull
from phalanx.agent.session import Session
from phalanx.protocol.blob import Manifest
from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.image import ImageFormatError
from phalanx.protocol.messages import BlobChunks, ImageSeed, ImageSeeded, SeedLayers

#: How long another process may take to make a layer whole that this node is to seed, and between two looks at
#: it, in seconds.
OTHERS_S, LOOK_S = 300.0, 0.2

#: Tells others of a page of digests, whose chunks can be read from now on; from any thread.
Tell = Callable[[BlobChunks], None]


@dataclass(frozen=True, slots=True)
class _Going:
    """A seed on its way. ``first``: the first layer that others are to read, once it is known."""

    request: int
    task: asyncio.Task[object] | None
    first: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    called_off: threading.Event = field(default_factory=threading.Event)

    def call_off(self) -> None:
        self.called_off.set()
        if self.task is not None:
            self.task.cancel()


@dataclass(slots=True)
class Seeding:
    """What one session seeds. ``busy``: the engine takes one image in or out at a time."""

    session: Session
    busy: asyncio.Lock
    serve: Callable[[Spool], None]
    _going: _Going | None = None
    _kept: list[tuple[BlobCache, Spool]] = field(default_factory=list)

    async def seed(self, engine: EngineClient, cache: BlobCache, message: ImageSeed) -> None:
        """Export it and tell what it is; then take in the layers that others need, and tell their digests.

        They stay open until ``end``; when it fails, they are left to other processes at once.
        Raises ImageError, BlobError.
        """
        going = self._going = _Going(message.request, asyncio.current_task())
        folder = self.session.base / f"seed-{message.request}"
        folder.mkdir(mode=0o700, exist_ok=True)
        archive = folder / "image.tar"
        try:
            async with self.busy:
                if message.pull:
                    await pull(engine, message.reference, message.credentials)
                found = await exported.seed(engine, message.reference, archive)
            self._tell(message, found)
            spools = await self._taken_in(cache, found, await going.first, going.called_off)
        except ImageFormatError as error:
            raise ImageError(f"cannot export image {message.reference}: {error}") from error
        except (SpoolError, ProtocolError, OSError) as error:
            raise BlobError(f"cannot keep the layers of {message.reference}: {error}") from error
        finally:
            await asyncio.to_thread(exported.remove, archive)
            if self._going is going:
                self._going = None
        with contextlib.suppress(OSError):  # what is not on the disk for sure, the next agent verifies again
            await asyncio.to_thread(settle, spools)

    def _tell(self, message: ImageSeed, found: exported.Seed) -> None:
        content = found.content
        seeded = ImageSeeded(
            message.request, message.reference, content.config, content.layers, "", found.image_id
        )
        self.session.send(seeded)

    async def _taken_in(
        self, cache: BlobCache, found: exported.Seed, first: int, called_off: threading.Event
    ) -> list[Spool]:
        """Its thread has ended when this has: the files from which it reads are removed then."""
        spools = await asyncio.to_thread(open_all, cache, found, first)
        for spool in spools.values():
            self._kept.append((cache, spool))
            self.serve(spool)
        loop = asyncio.get_running_loop()

        def tell(page: BlobChunks) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and who would be told with it
                loop.call_soon_threadsafe(self.session.send, page)

        taking = asyncio.create_task(
            asyncio.to_thread(take_in, cache, found, spools, tell, called_off.is_set), name="layers of a seed"
        )
        whole = False
        try:
            await asyncio.shield(taking)
            whole = True
        finally:
            called_off.set()
            await asyncio.gather(taking, return_exceptions=True)
            if not whole:
                self._close_all()
        return list(spools.values())

    def begin(self, message: SeedLayers) -> None:
        """Which layers others need is known."""
        going = self._going
        if going is not None and going.request == message.request and not going.first.done():
            going.first.set_result(message.first)

    def stop(self, request: int) -> None:
        """Nobody waits for what is being seeded any more, if it is of this request or an earlier one."""
        if self._going is not None and self._going.request <= request:
            self._going.call_off()

    async def end(self) -> None:
        """What is being seeded ends, and what was seeded may be evicted again."""
        going = self._going
        if going is not None and going.task is not None:
            going.call_off()
            await asyncio.gather(going.task, return_exceptions=True)
        self._close_all()

    def _close_all(self) -> None:
        while self._kept:
            cache, spool = self._kept.pop()
            cache.close(spool)


def open_all(cache: BlobCache, found: exported.Seed, first: int) -> dict[int, Spool]:
    """The layers from index ``first`` on, each once, by its first place. Blocks."""
    places: dict[bytes, int] = {}
    for place, layer in enumerate(found.content.layers[first:], first):
        places.setdefault(layer.diff_id, place)
    layers = found.content.layers
    return {
        place: cache.open(Manifest(diff_id, layers[place].size, (), found.chunk_bytes))
        for diff_id, place in places.items()
    }


def take_in(
    cache: BlobCache,
    found: exported.Seed,
    spools: dict[int, Spool],
    tell: Tell,
    stopped: Callable[[], bool] = never,
) -> None:
    """Copy layers of a seed into the cache, one after another. Blocks.

    Raises SpoolError, OSError, ProtocolError.
    """
    for place, spool in spools.items():
        fill(cache, spool, found, place, tell, stopped)


def fill(
    cache: BlobCache,
    spool: Spool,
    found: exported.Seed,
    place: int,
    tell: Tell,
    stopped: Callable[[], bool] = never,
) -> None:
    """Make the layer at ``place`` whole, or wait until another process of the user has; tell its digests.

    Raises SpoolError, OSError, ProtocolError; what is there by then is left to whoever goes on with it.
    """
    until = time.monotonic() + OTHERS_S
    while not cache.claim(spool) and not spool.whole:
        if time.monotonic() > until:
            raise SpoolError(
                f"another run of yours has been writing {spool.path} for {OTHERS_S:g} s; wait for its end"
            )
        _check(stopped)
        spool.wait_complete(LOOK_S)
    try:
        for page in exported.pages(found, place):
            spool.manifest.add(page)
            _copy(spool, found, place, page, stopped)
            tell(page)
        if spool.writing and not spool.finish(stopped, trusted=True):
            _check(stopped)
            raise SpoolError(
                f"another run of yours has replaced {spool.path} and not ended; bring it again then"
            )
    except BaseException:
        spool.unclaim()
        raise


def _check(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise SpoolError("it was called off")


def _copy(
    spool: Spool, found: exported.Seed, place: int, page: BlobChunks, stopped: Callable[[], bool]
) -> None:
    """Keep the chunks of a page that are not there yet."""
    span, manifest = found.spans[place], spool.manifest
    with span.path.open("rb") as file:
        for index in range(page.first, page.first + len(page.digests)):
            _check(stopped)
            if not spool.has(index):
                at = span.offset + manifest.offset(index)
                spool.keep(index, os.pread(file.fileno(), manifest.length(index), at))


def settle(spools: list[Spool]) -> None:
    """Have them on the disk for sure. Blocks. Raises OSError."""
    for spool in spools:
        spool.settle()
