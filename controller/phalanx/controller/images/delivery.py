"""The image's way to the nodes, carried out: what the fleet's ``Imaging`` decides becomes messages here.

Layers lie on the login node (an archive, or what its engine saved) or on the node that seeds them; nodes read
them from one another by the plan. Only digests, parents and tickets come from here, and the bytes for those
who read from the login node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from phalanx.protocol import messages as m
from phalanx.protocol.blob import Manifest, layer_chunk_bytes
from phalanx.protocol.image import ImageFormatError, digest_text

from ..fleet import events as ev
from ..fleet import instructions as ins
from ..fleet.hub import Hub
from ..fleet.shipping import Held, Shipping
from .archive import span_pages
from .digests import made_here, tell_digests
from .login import ImageSourceError
from .pace import Pace
from .planner import CONTROLLER
from .relays import Relays
from .seeded import SeedError
from .sources import Found, Sources

#: Seconds between two looks at who is slow.
LOOK_S = 0.4
#: Bytes per second that a node which reads from the source itself should get. Below half of it another
#: takes its place for a moment, to see whether the node is slow or the source. Any fabric gives more.
EXPECTED = 10e6
#: Seconds after which a node to which nobody gives anything gets new tickets for the same parents.
FRESH_S = 5.0

Progress = Callable[[str, str, int, int], None]


@dataclass(slots=True)
class _Reader:
    """How far a node has come. ``total``: bytes that travel to it."""

    total: int
    began: float
    verified: int = 0
    read: int = 0
    took_s: float = 0.0


@dataclass(slots=True)
class Delivery:
    """One image to the nodes of a run. ``progress(phase, node, done, total)`` is for screens only.

    ``request``: the number of what asks for it; what agents say of another is not for here.
    """

    hub: Hub
    shipping: Shipping
    sources: Sources
    relays: Relays
    record: Callable[[ev.Event], None]
    progress: Progress
    request: int = ev.OWN
    began: float = field(default_factory=time.monotonic)
    _found: Found | None = None
    _parents: ins.Parents = field(default_factory=dict)
    _readers: dict[str, _Reader] = field(default_factory=dict)
    _pace: Pace | None = None
    _looked: float = 0.0
    _slow: frozenset[str] = frozenset()
    _sent_before: int = 0

    def takers(self) -> dict[type[m.Message], Callable[[str, m.Message], None]]:
        """Which messages of agents come here."""
        return {
            m.LayersStatus: self._on_layers,
            m.RelayOpened: self._on_relay,
            m.SyncProgress: self._on_progress,
            m.ParentFailed: self._on_parent_failed,
            m.ImageSeeded: self.sources.on_seeded,
            m.BlobChunks: self.sources.on_chunks,
        }

    # --- what the engine asks for

    async def find(self, wanted: ins.FindImage) -> None:
        """Find out what the image is and where its layers are; an event says so, or why it cannot be had."""
        try:
            if had := await self.sources.found_by_login(wanted):
                self._everywhere(wanted, had)
                return
            found = self._found = await self.sources.find(wanted)
        except (ImageSourceError, ImageFormatError, OSError) as error:
            self.no_source(wanted.reference, str(error))
            return
        self._tell_source(found)

    async def seed_on(self, wanted: ins.SeedOn) -> None:
        """Let another node seed what one that is lost has begun: the same layers, and the digests go on."""
        found = self._found
        if found is None:
            return
        try:
            found = self._found = await self.sources.seed_on(found, wanted.node)
        except ImageSourceError as error:
            self.no_source(found.reference, str(error))
            return
        self._tell_source(found)

    def _tell_source(self, found: Found) -> None:
        content = found.content
        self.record(
            ev.ImageSource(
                found.where,
                found.reference,
                digest_text(content.digest),
                content.size,
                node=found.node,
                layers=tuple(layer.size for layer in content.layers),
                request=self.request,
                likeness=content.likeness.hex(),
                engine_id=found.engine_id,
                repeated=content.repeated,
            )
        )

    def _everywhere(self, wanted: ins.FindImage, image_id: str) -> None:
        """Nothing is to move."""
        where = "every node has it, and the login node"
        self.record(
            ev.ImageSource(
                where,
                wanted.reference,
                image_id,
                0,
                request=self.request,
                likeness=wanted.held,
                engine_id=image_id,
            )
        )

    def no_source(self, reference: str, why: str) -> None:
        """It cannot be had after all."""
        self.record(ev.ImageSource("", reference, "", 0, why, request=self.request))

    def ask_layers(self, wanted: ins.AskLayers) -> None:
        """Ask nodes what they hold of it."""
        if self._found is not None:
            content = self._found.content
            query = m.LayersQuery(self.request, self._found.reference, content.digest, content.layers)
            self.hub.tell(wanted.nodes, query)

    async def open_relays(self, wanted: ins.OpenRelays) -> None:
        """Let nodes serve others."""
        for node in wanted.nodes:
            if port := self.relays.port(node):  # since an earlier image of this run
                self.record(ev.RelayOnNode(node, port, request=self.request))
            else:
                self.hub.tell([node], await asyncio.to_thread(self.relays.open, node))

    async def sync(self, wanted: ins.SyncImage) -> None:
        """Tell nodes what to get from whom, and the digests of every layer as they become known."""
        found = self._found
        if found is None:
            return
        content, now = found.content, time.monotonic()
        self._parents, self._sent_before = dict(wanted.parents), self.shipping.sent
        for node, first in wanted.first.items():
            each_once = {layer.diff_id: layer.size for layer in content.layers[first:]}
            self._readers[node] = _Reader(sum(each_once.values()), now)
            stripes = self.relays.stripes(node, wanted.parents.get(node, ()))
            sync = m.ImageSync(
                self.request,
                found.reference,
                content.config,
                content.layers,
                first,
                stripes,
                self.relays.rate_bytes_s,
                seeded=bool(found.node),
            )
            self.hub.tell([node], sync)
        totals = {node: reader.total for node, reader in self._readers.items()}
        expected = min(EXPECTED, self.relays.rate_bytes_s or EXPECTED)
        self._pace = Pace(totals, layer_chunk_bytes(content.size), wanted.fanout, expected)
        if found.node:
            self.hub.tell([found.node], m.SeedLayers(self.request, min(wanted.first.values(), default=0)))
        await self._tell_digests(found, wanted.first)

    async def _tell_digests(self, found: Found, first: dict[str, int]) -> None:
        """Layer by layer, each to those who lack it."""
        layers = found.content.layers
        begin = min(first.values(), default=0)
        # The last place of each: whoever lacks what is there needs its digests.
        places = {layer.diff_id: place for place, layer in enumerate(layers) if place >= begin}

        def tell(place: int, manifest: Manifest, page: m.BlobChunks) -> None:
            if found.spans:
                span = found.spans[place]
                self.shipping.hold(Held(manifest, span.path, span.offset, paced=True))
            self.hub.tell([node for node, start in first.items() if start <= place], page)

        try:
            # in the order of their first places
            await tell_digests({place: _pages(found, place) for place in places.values()}, tell)
        except* (ImageFormatError, OSError, SeedError) as failed:
            where = (self._found or found).where  # another may seed by now
            words = f"cannot read a layer of {where}: {failed.exceptions[0]}"
            self.no_source(found.reference, words)

    def change_parents(self, wanted: ins.ChangeParents) -> None:
        """Nodes read from others from now on."""
        for node, lists in wanted.parents.items():
            self._parents[node] = lists
            self.hub.tell([node], m.SyncParents(self.request, self.relays.stripes(node, lists)))

    # --- what agents say

    def _on_layers(self, node: str, message: m.Message) -> None:
        if isinstance(message, m.LayersStatus) and message.request == self.request:
            self.record(
                ev.LayersOnNode(
                    node,
                    message.present,
                    message.in_engine,
                    message.in_cache,
                    message.deltas,
                    message.free_bytes,
                    message.engine_free_bytes,
                    message.error,
                    self.request,
                    message.one_disk,
                )
            )

    def _on_relay(self, node: str, message: m.Message) -> None:
        if isinstance(message, m.RelayOpened):
            self.relays.opened(node, message.port)
            self.record(ev.RelayOnNode(node, message.port, message.error, self.request))

    def _on_parent_failed(self, node: str, message: m.Message) -> None:
        if isinstance(message, m.ParentFailed) and message.request == self.request:
            if not message.parent and not any(self._parents.get(node, ())):
                self._give_source(node)
                return
            parent = message.parent or "the login node"
            self.record(ev.ParentLeft(node, parent, message.corrupt, message.reason, self.request))
            if not message.parent and not self._reads_from_here(node):
                asyncio.get_running_loop().call_later(FRESH_S, self._give_tickets, node)

    def _give_source(self, node: str) -> None:
        """Who has no parents and lacks what its cache had reads it from the source. Slow nodes wait on: they
        are to be fed last."""
        if node not in self._slow:
            root = self._found.node if self._found is not None else CONTROLLER
            self.change_parents(ins.ChangeParents({node: ((root,),)}, self.request))

    def _reads_from_here(self, node: str) -> bool:
        """Whether the login node, which asks for no ticket, is among its parents."""
        return any(CONTROLLER in names for names in self._parents.get(node, ()))

    def _give_tickets(self, node: str) -> None:
        """A parent that hangs takes a ticket with every connection: those of a node may all be spent."""
        lists, reader = self._parents.get(node, ()), self._readers.get(node)
        if any(lists) and reader is not None and reader.verified < reader.total:
            self.hub.tell([node], m.SyncParents(self.request, self.relays.stripes(node, lists)))

    def _on_progress(self, node: str, message: m.Message) -> None:
        reader = self._readers.get(node)
        if not isinstance(message, m.SyncProgress) or reader is None or message.request != self.request:
            return
        now = time.monotonic()
        reader.verified, reader.read = min(message.verified, reader.total), message.read
        if reader.verified == reader.total and not reader.took_s:
            reader.took_s = now - reader.began
            if self._found is not None and self._found.node:
                self.record(ev.ImageArrived(node, self.request))
        self.progress("image", node, reader.verified, reader.total)
        self._judge_pace(node, reader.verified, now)

    def _judge_pace(self, node: str, verified: int, now: float) -> None:
        if self._pace is None:
            return
        self._pace.observe(node, now, verified)
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        nearest = {
            node: tuple(stripe[0] for stripe in lists if stripe)
            for node, lists in self._parents.items()
            if any(lists)
        }
        slow = self._pace.slow(nearest, now)
        if slow != self._slow:
            self._slow = slow
            self.record(ev.SlowNodes(tuple(sorted(slow)), self.request))

    # --- the end

    def summed_up(self, ready: ev.ImageReady) -> ev.ImageReady:
        """The event with the figures of the transfer."""
        seconds = round(time.monotonic() - self.began, 3)
        if not self._readers:
            return replace(ready, seconds=seconds)
        slowest, reader = max(self._readers.items(), key=lambda one: (one[1].took_s, one[0]))
        root = self._found.node if self._found else CONTROLLER
        return replace(
            ready,
            seconds=seconds,
            sent_bytes=self.shipping.sent - self._sent_before if root == CONTROLLER else 0,
            read_bytes=sum(one.read for one in self._readers.values()),
            slowest=slowest,
            transfer_s=round(reader.took_s, 3),
        )


def _pages(found: Found, place: int) -> AsyncIterator[m.BlobChunks]:
    """The digests of a layer, as they are made here or by the node that seeds it."""
    content = found.content
    layer = content.layers[place]
    if found.seeded is not None:
        return found.seeded.pages(layer.diff_id)
    return made_here(span_pages(found.spans[place], layer, layer_chunk_bytes(content.size)))


def staging(run_dir: Path, request: int) -> Path:
    """Where what was saved or unpacked for one image of this run lies; gone with the run at the latest."""
    return run_dir / ".images" / str(request)
