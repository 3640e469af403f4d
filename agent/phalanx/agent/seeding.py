"""The layers of an image of this node's engine, taken into its cache, from where other nodes read them."""

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
from phalanx.agent.runtimes.engine import EngineClient
from phalanx.agent.runtimes.images import pull
from phalanx.agent.runtimes.layers import Span
from phalanx.agent.session import Session
from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.messages import ImageSeed, ImageSeeded

#: How long another process may take to make a layer whole that this node is to seed, and between two looks at
#: it, in seconds.
OTHERS_S, LOOK_S = 300.0, 0.2


@dataclass(frozen=True, slots=True)
class _Going:
    request: int
    task: asyncio.Task[object] | None
    called_off: threading.Event


@dataclass(slots=True)
class Seeding:
    """What one session seeds. ``busy``: the engine takes one image in or out at a time."""

    session: Session
    busy: asyncio.Lock
    serve: Callable[[Spool], None]
    _going: _Going | None = None
    _kept: list[tuple[BlobCache, Spool]] = field(default_factory=list)

    async def seed(self, engine: EngineClient, cache: BlobCache, message: ImageSeed) -> None:
        """Do it, and tell the digests, then what the image is. Raises ImageError, BlobError."""
        going = self._going = _Going(message.request, asyncio.current_task(), threading.Event())
        folder = self.session.base / f"seed-{message.request}"
        folder.mkdir(mode=0o700, exist_ok=True)
        archive = folder / "image.tar"
        try:
            async with self.busy:
                if message.pull:
                    await pull(engine, message.reference, message.credentials)
                found = await exported.seed(engine, message.reference, archive)
            spools = await self._taken_in(cache, found, going.called_off)
        except (SpoolError, ProtocolError, OSError) as error:
            raise BlobError(f"cannot keep the layers of {message.reference}: {error}") from error
        finally:
            await asyncio.to_thread(exported.remove, archive)
            self._going = None
        self._tell(message, found)
        with contextlib.suppress(OSError):  # what is not on the disk for sure, the next agent verifies again
            await asyncio.to_thread(settle, spools)

    async def _taken_in(
        self, cache: BlobCache, found: exported.Seed, called_off: threading.Event
    ) -> list[Spool]:
        """Its thread has ended when this has: the files from which it reads are removed then."""
        taking = asyncio.create_task(asyncio.to_thread(take_in, cache, found, called_off.is_set))
        try:
            spools = await asyncio.shield(taking)
        finally:
            called_off.set()
            await asyncio.gather(taking, return_exceptions=True)
        for spool in spools:
            self._kept.append((cache, spool))
            self.serve(spool)
        return spools

    def _tell(self, message: ImageSeed, found: exported.Seed) -> None:
        for manifest in {one.blob: one for one in found.manifests}.values():
            for page in manifest.pages():
                self.session.send(page)
        content = found.content
        seeded = ImageSeeded(
            message.request, message.reference, content.config, content.layers, "", found.image_id
        )
        self.session.send(seeded)

    def stop(self, request: int) -> None:
        """Nobody waits for what is being seeded any more, if it is of this request or an earlier one."""
        going = self._going
        if going is not None and going.request <= request and going.task is not None:
            going.called_off.set()
            going.task.cancel()

    def let_go(self) -> None:
        """What was seeded may be evicted again."""
        while self._kept:
            cache, spool = self._kept.pop()
            cache.close(spool)


def take_in(cache: BlobCache, found: exported.Seed, stopped: Callable[[], bool] = never) -> list[Spool]:
    """Copy a seed's layers into the cache, each verified once more. Blocks.

    Raises SpoolError, OSError, ProtocolError.
    """
    spools = []
    for span, manifest in dict(zip(found.spans, found.manifests, strict=True)).items():
        spool = cache.open(manifest)
        spools.append(spool)
        fill(cache, spool, span, stopped)
    return spools


def fill(cache: BlobCache, spool: Spool, span: Span, stopped: Callable[[], bool] = never) -> None:
    """Make the blob whole, or wait until another process of the user has.

    Raises SpoolError, OSError, ProtocolError; what is there by then is left to whoever goes on with it.
    """
    until = time.monotonic() + OTHERS_S
    while not cache.claim(spool):
        if spool.whole:
            return
        if time.monotonic() > until:
            raise SpoolError(
                f"another run of yours has been writing {spool.path} for {OTHERS_S:g} s; wait for its end"
            )
        _check(stopped)
        spool.wait_complete(LOOK_S)
    try:
        _copy(spool, span, stopped)
        spool.finish()
    except BaseException:
        spool.unclaim()
        raise


def _check(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise SpoolError("it was called off")


def _copy(spool: Spool, span: Span, stopped: Callable[[], bool]) -> None:
    manifest = spool.manifest
    with span.path.open("rb") as file:
        for index in list(spool.missing(0, 1)):
            payload = os.pread(file.fileno(), manifest.length(index), span.offset + manifest.offset(index))
            _check(stopped)
            spool.keep(index, payload)


def settle(spools: list[Spool]) -> None:
    """Have them on the disk for sure. Blocks. Raises OSError."""
    for spool in spools:
        spool.settle()
