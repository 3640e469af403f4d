"""One image on its way into the engine: what the data plane tells, what is loaded, what the controller hears.

The pull runs in threads and tells by callbacks; here, on the loop, layers are loaded in their order as soon
as each is whole. Another transfer of the node may bring some of them: what the engine has by then is not
loaded again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.agent.blobs import BlobError
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.descriptor import open_own
from phalanx.agent.relay.events import (
    BlobComplete,
    ParentLost,
    Progress,
    PullComplete,
    PullEvent,
    PullFailed,
    Starved,
)
from phalanx.agent.relay.puller import Pull
from phalanx.agent.relay.spool import Spool
from phalanx.agent.runtimes import layers, store, verify
from phalanx.agent.runtimes.engine import EngineClient
from phalanx.agent.runtimes.layers import Span
from phalanx.agent.session import Session
from phalanx.agent.starvation import Starvation
from phalanx.protocol.blob import Manifest
from phalanx.protocol.image import ImageContent
from phalanx.protocol.messages import (
    Chunk,
    ChunkGet,
    ChunkRefused,
    ImageSync,
    ParentFailed,
    Stripe,
    SyncProgress,
)
from phalanx.protocol.schema import as_words

#: Seconds between two looks whether the node has CPU time to spare for a load.
LOOK_S = 0.25
#: How long a node that reads from the controller waits for its bulk link before it begins, in seconds.
BULK_S = 3.0
#: Seconds between two looks whether another run has done with the engine.
LOCK_LOOK_S = 0.1


@dataclass(slots=True)
class Syncing:
    """The sync that ``message`` asks for. ``serve``: gives a blob on to other nodes while it comes."""

    session: Session
    cache: BlobCache
    message: ImageSync
    content: ImageContent
    serve: Callable[[Spool], None]
    _stripes: tuple[Stripe, ...] = ()
    _pull: Pull | None = None
    _paths: dict[bytes, Path] = field(default_factory=dict)
    _trouble: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _loaded: int = 0
    _verified: int = 0
    _read: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def __post_init__(self) -> None:
        self._stripes = self.message.stripes

    async def run(self, engine: EngineClient, busy: asyncio.Lock) -> str:
        """Get and load what is missing; the engine's id of the image. Raises ImageError, BlobError."""
        wanted = list(dict.fromkeys(layer.diff_id for layer in self.content.layers[self.message.first :]))
        await self._begin(len(wanted))
        adding = asyncio.create_task(self._add(wanted), name="digests of layers")
        try:
            if (await store.store_of(engine)).deltas:
                await self._load_as_they_come(engine, busy)
            else:
                await self._load_all(engine, busy)
            async with self._alone(busy):
                if self.message.first == len(self.content.layers):
                    await layers.load_config(engine, self.content, self.message.reference)
                return await verify.finish(engine, self.content, self.message.reference)
        finally:
            adding.cancel()
            await asyncio.gather(adding, return_exceptions=True)
            self._tell_progress()

    async def _begin(self, count: int) -> None:
        """Be ready to read so many layers."""
        self._pull = self._make_pull(count)
        if any(stripe.parents and not stripe.parents[0].node for stripe in self._stripes):
            with contextlib.suppress(TimeoutError):  # it is told then that nothing comes from there
                async with asyncio.timeout(BULK_S):
                    await self.session.links.need_bulk()
        first = self._stripes
        await asyncio.to_thread(self._pull.start, first)
        if self._stripes is not first:  # others were named while it started
            self._pull.parents_changed(self._stripes)

    async def _add(self, wanted: list[bytes]) -> None:
        """Read each layer as soon as its first digests are here: the next are made meanwhile."""
        try:
            for diff_id in wanted:
                await self._follow(await self.session.blobs.manifest(diff_id))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for the layers for ever
            self._trouble = str(error) or type(error).__name__
            self._news.set()

    async def _follow(self, manifest: Manifest) -> None:
        """Read a layer until its last digest is known; no digest of the next one is told before."""
        if self._pull is None:
            return
        await asyncio.to_thread(self._pull.add, manifest)
        self._pull.more_known()  # some may have come while it was added
        while not manifest.whole:
            await self.session.blobs.more()
            self._pull.more_known()

    def _make_pull(self, count: int) -> Pull:
        return Pull(
            self.cache,
            count,
            run_id=self.session.bootstrap.run_id,
            node=self.session.identity.node,
            tell=lambda event: self._call(self._heard, event),
            ask=self._ask,
            opened=lambda spool: self._call(self.serve, spool),
            rate_bytes_s=self.message.rate_bytes_s,
            trusted=not self.message.seeded,
        )

    # --- from the pull's threads

    def _call(self, function: Callable[..., object], *given: object) -> None:
        """Have something done on the loop; nothing is done any more once that has ended."""
        try:
            self._loop.call_soon_threadsafe(function, *given)
        except RuntimeError:
            return

    def _ask(self, wanted: ChunkGet) -> bool:
        """Ask the controller for a chunk; False while there is no link for that, which is then made."""
        link = self.session.links.bulk
        if link is None or not link.is_open:
            self._call(self.session.links.want_bulk)
            return False
        self._call(self.session.send_bulk, wanted)
        return True

    # --- on the loop

    def _heard(self, event: PullEvent) -> None:
        request = self.message.request
        match event:
            case BlobComplete():
                self._paths[event.blob] = event.path
            case Progress():
                self._verified, self._read = event.verified, event.read
                self._tell_progress()
            case ParentLost():
                self.session.send(ParentFailed(request, event.node, event.corrupt, as_words(event.reason)))
            case Starved():
                words = f"nobody gives anything: {event.reason}"
                self.session.send(ParentFailed(request, "", False, as_words(words)))
            case PullFailed():
                self._trouble = event.reason
            case PullComplete():
                pass
        self._news.set()

    def _tell_progress(self) -> None:
        self.session.send(SyncProgress(self.message.request, self._verified, self._read, self._loaded))

    async def _whole(self, diff_id: bytes) -> Path:
        """Where a layer lies, once it is whole. Raises BlobError when it never will be."""
        while diff_id not in self._paths:
            if self._trouble:
                raise BlobError(f"cannot get {self.message.reference}: {self._trouble}")
            self._news.clear()
            await self._news.wait()
        return self._paths[diff_id]

    # --- into the engine

    async def _load_as_they_come(self, engine: EngineClient, busy: asyncio.Lock) -> None:
        """Each layer in its order, with those above it that are whole by then."""
        place = self.message.first
        while place < len(self.content.layers):
            await self._whole(self.content.layers[place].diff_id)
            await self._turn()
            async with self._alone(busy) as waited:
                if waited:
                    place = max(place, await self._taken(engine))
                spans = self._ready(place)
                if spans:
                    await layers.load_layers(engine, self.content, self.message.reference, place, spans)
            place += len(spans)
            self._loaded = place - self.message.first
            self._tell_progress()

    def _ready(self, place: int) -> list[Span]:
        """The layers from ``place`` on that are whole, without a gap."""
        spans: list[Span] = []
        for layer in self.content.layers[place:]:
            if layer.diff_id not in self._paths:
                break
            spans.append(Span(self._paths[layer.diff_id], 0, layer.size))
        return spans

    async def _taken(self, engine: EngineClient) -> int:
        """How many leading layers the engine has got from someone else meanwhile; the last makes the image,
        and is loaded in any case."""
        content = self.content
        found = await store.held(engine, self.message.reference, content.digest, content.diff_ids)
        return min(found.in_engine, len(content.layers) - 1)

    async def _turn(self) -> None:
        """While CPUs are short and bytes still come, a layer waits: others wait for bytes, nobody for it."""
        starvation = Starvation()
        starvation.look(self._loop.time())
        while not (self._all_here or self._trouble):
            # Not all at the same moment: nodes that share a machine or a disk would begin together.
            await asyncio.sleep(LOOK_S * random.uniform(0.5, 2.0))  # noqa: S311 - no secret
            if not starvation.look(self._loop.time()):
                return

    @property
    def _all_here(self) -> bool:
        return all(layer.diff_id in self._paths for layer in self.content.layers[self.message.first :])

    async def _load_all(self, engine: EngineClient, busy: asyncio.Lock) -> None:
        """For an engine that wants every layer in one archive."""
        spans = [Span(await self._whole(layer.diff_id), 0, layer.size) for layer in self.content.layers]
        async with self._alone(busy):
            await layers.load_all(engine, self.content, self.message.reference, spans)
        self._loaded = len(spans)

    @asynccontextmanager
    async def _alone(self, busy: asyncio.Lock) -> AsyncIterator[bool]:
        """One load at a time on this node, other runs of the user included; whether one had to wait."""
        async with busy:
            path = self.cache.folder.parent / "engine.lock"
            file, waited = open_own(path, os.O_RDWR | os.O_CREAT), False
            # A thread that waited for the lock would keep a cancelled agent from its end.
            while not file.lock(fcntl.LOCK_EX):
                waited = True
                await asyncio.sleep(LOCK_LOOK_S)
            try:
                yield waited
            finally:
                file.unlock()

    # --- for the session

    def change_parents(self, stripes: tuple[Stripe, ...]) -> None:
        """Read from others from now on."""
        self._stripes = stripes
        if self._pull is not None:
            self._pull.parents_changed(stripes)

    def takes(self, message: Chunk | ChunkRefused) -> bool:
        """Whether a chunk of the controller is of this image; then it is taken."""
        if self._pull is None or all(layer.diff_id != message.blob for layer in self.content.layers):
            return False
        self._pull.on_chunk(message)
        return True

    def cancel(self) -> None:
        """End the threads; what is there is still given on. Blocks shortly."""
        if self._pull is not None:
            self._pull.cancel()

    def close(self) -> None:
        """End the threads; what was got stays. Blocks shortly."""
        if self._pull is not None:
            self._pull.close()
