"""Images on this node: what it holds of one, a relay for others, and getting it in, layer by layer.

A layer is loaded into the engine while the next one is on the wire, and both are given on to other nodes
while they come. The controller says what to get from whom; whether the image is there the engine must show.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.agent.blobs import BlobError
from phalanx.agent.relay.cache import BlobCache, Lease
from phalanx.agent.relay.place import PlaceRefused, cache_place
from phalanx.agent.relay.server import RelayServer
from phalanx.agent.relay.spool import Spool
from phalanx.agent.runtimes import inventory, leftovers, pins, store
from phalanx.agent.runtimes.base import ImageError, RuntimeUnavailable
from phalanx.agent.runtimes.docker import DockerRuntime
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.agent.runtimes.parts import Parts, share
from phalanx.agent.seeding import Seeding
from phalanx.agent.session import Session, Work, owner_of
from phalanx.agent.syncing import Syncing
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.image import ImageContent
from phalanx.protocol.messages import (
    Chunk,
    ChunkRefused,
    ImageQuery,
    ImageSeed,
    ImagesQuery,
    ImagesStatus,
    ImageStatus,
    ImageSync,
    LayersQuery,
    LayersStatus,
    RelayOpen,
    RelayOpened,
    SeedLayers,
    Stripe,
    SyncParents,
    SyncStop,
)
from phalanx.protocol.schema import as_words
from phalanx.protocol.ticket import Gate

#: Share of its disk that the cache may take.
CACHE_SHARE = 0.5
#: Images of an engine that one answer names (messages.ImagesStatus).
MOST_IMAGES = 500
#: How long an agent that is called off takes for removing parts of an image from its engine, in seconds.
CLEAN_S = 5.0
#: How often, and how many seconds apart: an engine ends a load that it has whole, though nobody listens.
CLEAN_TIMES, CLEAN_AGAIN_S = 4, 0.4
#: Words of engines that refuse a layer for what it is: the graph-driver store's, then the containerd store's.
_OF_LAYERS = ("diffID", "digest", "unpack")


@dataclass(slots=True)
class Imaging:
    """The images of one session. ``engine_busy``: an engine takes one image in or out at a time."""

    session: Session
    runtime: Callable[[], DockerRuntime]
    engine_busy: asyncio.Lock
    _cache: BlobCache | None = None
    _relay: RelayServer | None = None
    _spools: list[Spool] = field(default_factory=list)
    _leases: list[Lease] = field(default_factory=list)
    _leased_for: int = 0
    _syncing: Syncing | None = None
    _going: tuple[int, asyncio.Task[object] | None] | None = None
    _stopped: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _parents_told: dict[int, tuple[Stripe, ...]] = field(default_factory=dict)
    _parts: Parts | None = None
    _unfinished: ImageContent | None = None
    _pins: list[str] = field(default_factory=list)
    _seeding: Seeding = field(init=False)

    def __post_init__(self) -> None:
        self._seeding = Seeding(self.session, self.engine_busy, self.serve)

    # --- what it holds

    async def status(self, message: ImageQuery) -> None:
        """Answer what the engine has under a name."""
        self._tell(message, await store.under(self._engine, message.reference))

    def _tell(self, message: ImageQuery | ImageSync, named: store.Named) -> None:
        told = ImageStatus(
            message.request, message.reference, named.image_id, "", named.likeness, named.by_manifest
        )
        self.session.send(told)

    async def query(self, message: LayersQuery) -> None:
        """Answer what of the image is here, once what an earlier one has left is removed.

        The layers that are told of stay until they are used: nobody is told to give them to this node.
        """
        async with self._turn:
            cache = await self._open_cache()
            await self._share_parts(cache, message.config)
            diff_ids = [layer.diff_id for layer in message.layers]
            held = await store.held(self._engine, message.reference, message.config, diff_ids)
            self._release()
            leases = await asyncio.to_thread(
                lambda: [cache.lease(layer.diff_id, layer.size) for layer in message.layers]
            )
            if held.present:
                self._let_go()
            else:
                self._leases = [lease for lease in leases if lease is not None]
                self._leased_for = message.request
        whole = tuple(index for index, lease in enumerate(leases) if lease is not None)
        wanted = [message.layers[index].diff_id for index in whole if index >= held.first]
        free = await asyncio.to_thread(cache.free_bytes, wanted)
        one_disk = await asyncio.to_thread(cache.on_disk_of, held.engine_root)
        self.session.send(
            LayersStatus(
                message.request,
                held.present,
                held.in_engine,
                whole,
                held.deltas,
                free,
                held.engine_free_bytes,
                one_disk=one_disk,
            )
        )

    async def inventory(self, message: ImagesQuery) -> None:
        """Answer which images are here and what is cached, after removing what is not wanted any more."""
        cache = await self._open_cache()
        freed, error = 0, ""
        if message.prune:
            freed = await asyncio.to_thread(cache.prune)
            try:
                await leftovers.remove_leftovers(self._engine, cache.folder.parent, at_once=True)
                await inventory.remove(self._engine, message.reference)
            except (EngineError, ImageError) as failed:
                error = as_words(str(failed))
        images = await inventory.images_of(self._engine, message.reference)
        layers, taken = await asyncio.to_thread(cache.kept)
        told = tuple(images[:MOST_IMAGES])
        more = len(images) - len(told)
        self.session.send(ImagesStatus(message.request, told, more, layers, taken, freed, error))

    @property
    def _engine(self) -> EngineClient:
        return self.runtime().client

    async def _open_cache(self) -> BlobCache:
        """The node's cache of layers, made anew when someone has deleted it. Raises BlobError."""
        if self._cache is None or not await asyncio.to_thread(self._cache.folder.is_dir):
            try:
                self._cache = await asyncio.to_thread(_make_cache, cache_place(os.environ, os.geteuid()))
            except PlaceRefused as error:
                raise BlobError(str(error)) from error
            except OSError as error:
                raise BlobError(f"cannot keep layers of images: {error}") from error
        return self._cache

    def _release(self) -> None:
        """The layers that were told of are in use by now, or nobody wants them."""
        while self._leases:
            self._leases.pop().release()

    # --- for other nodes

    async def open_relay(self, message: RelayOpen) -> None:
        """Serve others from now on, at the address over which the controller is reached."""
        if self._relay is not None:  # it is asked a second time
            self.session.send(RelayOpened(message.request, self._relay.port, ""))
            return
        try:
            relay = RelayServer(
                Gate(message.ticket_key, self.session.bootstrap.run_id),
                message.security,
                message.certificate,
                bind=self.session.links.address,
                rate_bytes_s=message.rate_bytes_s,
            )
            port = await asyncio.to_thread(relay.start)
        except OSError as error:
            raise BlobError(f"cannot serve layers to other nodes: {error}") from error
        self._relay = relay
        for spool in self._spools:
            relay.serve(spool)
        self.session.send(RelayOpened(message.request, port, ""))

    def serve(self, spool: Spool) -> None:
        """Give a blob on to others, as far as it is there."""
        self._spools.append(spool)
        if self._relay is not None:
            self._relay.serve(spool)

    async def seed(self, message: ImageSeed) -> None:
        """Put the layers of an image of this engine into the cache, from where others read them."""
        async with self._turn:
            await self._end_earlier()
            cache = await self._open_cache()
            if message.request <= self._stopped:
                return
        try:
            await self._seeding.seed(self._engine, cache, message)
        except BaseException:
            self._withdraw_all()  # it is closed: who reads from here goes to another
            raise

    def seed_layers(self, message: SeedLayers) -> None:
        """Which of them others lack is known."""
        self._seeding.begin(message)

    # --- getting it

    def sync(self, message: ImageSync) -> Work:
        """Get the image and load it; answered with what the engine shows then. One after another."""
        # At once: the digests of its layers come right behind it.
        self.session.blobs.expect_anew(layer.diff_id for layer in message.layers)
        return self._in_turn(message)

    async def _in_turn(self, message: ImageSync) -> None:
        async with self._turn:
            await self._end_earlier()
            self._going = message.request, asyncio.current_task()
            try:
                if message.request > self._stopped:
                    await self._sync(message)
            finally:
                self._going = None
                self._release()

    async def stop(self, message: SyncStop) -> None:
        """Nobody waits for this image any more, nor for one before it: end what is done for it."""
        self._stopped = max(self._stopped, message.request)
        self._seeding.stop(message.request)
        if self._going is not None:
            request, task = self._going
            if request <= message.request and task is not None:
                task.cancel()
        async with self._turn:
            await self._end_earlier()
            await self._clean_up()
            if self._leased_for <= message.request:
                self._release()

    async def _end_earlier(self) -> None:
        """An image that was brought before is given out no more."""
        if self._syncing is not None:
            await asyncio.to_thread(self._syncing.close)
            self._syncing = None
        self._withdraw_all()
        await self._seeding.end()

    def _withdraw_all(self) -> None:
        if self._relay is not None:
            for spool in self._spools:
                self._relay.withdraw(spool.manifest.blob)
        self._spools.clear()

    async def _sync(self, message: ImageSync) -> None:
        try:
            content = ImageContent(message.config, message.layers)
        except RemoteError as error:
            raise BlobError(f"cannot load {message.reference}: {error}") from error
        cache = await self._open_cache()
        syncing = self._syncing = Syncing(self.session, cache, message, content, self.serve)
        told, self._parents_told = self._parents_told.get(message.request), {}
        if told is not None:
            syncing.change_parents(told)
        parts, self._unfinished = await self._share_parts(cache, content.digest), content
        try:
            image_id = await syncing.run(self._engine, self.engine_busy)
            await self._pin(image_id)
        except (RuntimeUnavailable, BlobError, OSError) as error:
            await asyncio.to_thread(syncing.cancel)
            with contextlib.suppress(RuntimeUnavailable):  # the cause is what matters
                await parts.clean(self._engine, content)
            self._let_go()
            if isinstance(error, OSError):
                raise BlobError(f"cannot load {message.reference}: {error}") from error
            if isinstance(error, ImageError) and (damaged := await _damaged(cache, content, str(error))):
                await self._end_earlier()  # what it had of them is no more
                raise ImageError(f"{error}; {damaged}") from error
            raise
        self._let_go()
        by_manifest = (await store.store_of(self._engine)).containerd
        self._tell(message, store.Named(image_id, content.likeness, by_manifest))

    async def _share_parts(self, cache: BlobCache, digest: bytes) -> Parts:
        """From the moment at which it is said what is here, nobody may take it away. Raises BlobError."""
        if self._parts is not None and self._parts.digest == digest:
            return self._parts
        self._let_go()
        try:
            self._parts = await share(cache.folder.parent, digest)
        except OSError as error:
            raise BlobError(f"cannot keep layers of images: {error}") from error
        return self._parts

    def _let_go(self) -> None:
        if self._parts is not None:
            self._parts.release()
        self._parts = self._unfinished = None

    async def _pin(self, image_id: str) -> None:
        """Keep what was brought from a prune of others until this agent leaves, or its lease is over.

        Raises ImageError when that shows that the image has not come.
        """
        labels = pins.pin_labels(owner_of(self.session), str(self.session.lease_file), time.time())
        name, why = await pins.pin_brought(self._engine, image_id, labels)
        if name:
            self._pins.append(name)
        else:
            self.session.notice(f"{why}; a prune before it is used would remove it")

    def change_parents(self, message: SyncParents) -> None:
        """Read from others from now on; said before the sync has begun, it holds from its beginning."""
        if self._syncing is not None and self._syncing.message.request == message.request:
            self._syncing.change_parents(message.stripes)
        elif message.request > self._stopped:
            self._parents_told[message.request] = message.stripes

    def takes(self, message: Chunk | ChunkRefused) -> bool:
        """Whether what came over the bulk link is for the image; then it is taken."""
        return self._syncing is not None and self._syncing.takes(message)

    async def _clean_up(self) -> None:
        """Remove what a sync that was called off in the middle has left in the engine."""
        parts, content = self._parts, self._unfinished
        if parts is not None and content is not None:
            with contextlib.suppress(RuntimeUnavailable, TimeoutError):
                async with asyncio.timeout(CLEAN_S):
                    for _ in range(CLEAN_TIMES):
                        await parts.clean(self._engine, content)
                        await asyncio.sleep(CLEAN_AGAIN_S)
        self._let_go()

    async def close(self) -> None:
        """End every thread and let go of images; what was got stays in the cache."""
        for name in self._pins:
            # What stays the janitor removes once its lease is over.
            with contextlib.suppress(RuntimeUnavailable):
                await pins.unpin(self._engine, name)
        await self._clean_up()
        self._release()
        await self._seeding.end()
        if self._syncing is not None:
            await asyncio.to_thread(self._syncing.close)
        if self._relay is not None:
            await asyncio.to_thread(self._relay.stop)


async def _damaged(cache: BlobCache, content: ImageContent, error: str) -> str:
    """Why the cache made an engine refuse an image, once what is bad in it is removed; "" when it did not."""
    if not any(word in error for word in _OF_LAYERS):
        return ""
    try:
        damaged = await asyncio.to_thread(cache.drop_damaged, content.diff_ids)
    except OSError:
        return ""  # the engine's own words are what there is to say
    which = ", ".join(digest.hex()[:12] for digest in damaged)
    words = "the node's disk had damaged layers in the cache"
    return f"{words} ({which}), which are removed: bring the image again" if damaged else ""


def _make_cache(place: Path) -> BlobCache:
    place.parent.mkdir(parents=True, exist_ok=True)
    about = os.statvfs(place.parent)
    return BlobCache(place, int(about.f_blocks * about.f_frsize * CACHE_SHARE))
