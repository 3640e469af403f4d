"""The digests of layers, told while they are made: nodes read a layer from its first page on.

Several layers are hashed at a time, in threads (those of a node, by that node); they are told one after the
other, in the order in which nodes read them. So a node knows all of a layer before anything of the next:
every node fetches in the same order, and none waits for a chunk that its parent puts off for others.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import sleep
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic

from phalanx.protocol.blob import Manifest, with_page
from phalanx.protocol.messages import BlobChunks

#: Layers that are hashed at a time: a core has two digests to make of every byte (about 0.7 GB/s).
HASHERS = max(1, min(4, (os.cpu_count() or 1) // 2))
#: Rest from telling, in times of what it took. A page costs the loop 13 us a node (measured): each of 10,000
#: nodes thus hears twice a second, of more at a time, and heartbeats have their turn.
REST = 4.0

#: Tells one page of the layer at a place; its manifest so far, which grows.
Tell = Callable[[int, Manifest, BlobChunks], None]


@dataclass(slots=True)
class _Layer:
    """A layer and what is known of it."""

    place: int
    pages: AsyncIterator[BlobChunks]
    manifest: Manifest | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def make(self, turn: asyncio.Semaphore) -> None:
        """Take its pages as they are made."""
        async with turn:
            async for page in self.pages:
                self.manifest = with_page(self.manifest, page)
                self.news.set()

    async def tell(self, tell: Tell) -> None:
        """Tell what is known, until all is; what was made meanwhile goes in few pages."""
        told, begun = 0, False  # an empty layer has a page, too
        while not (begun and self.manifest and self.manifest.whole and told == self.manifest.count):
            await self.news.wait()
            self.news.clear()
            if self.manifest is not None:
                began = monotonic()
                for page in self.manifest.pages(told):
                    tell(self.place, self.manifest, page)
                told, begun = len(self.manifest.digests), True
                await sleep(REST * (monotonic() - began))


async def made_here(pages: Iterator[BlobChunks]) -> AsyncIterator[BlobChunks]:
    """The pages of a layer that lies here, one at a time: called off, the thread ends with its page."""
    while (page := await asyncio.to_thread(next, pages, None)) is not None:
        yield page


async def tell_digests(pages: Mapping[int, AsyncIterator[BlobChunks]], tell: Tell) -> None:
    """Tell the digests of the layer at each place, in the order of ``pages``, as they are made.

    Raises an ExceptionGroup of what making them raises; the last page of that layer is not told.
    """
    turn = asyncio.Semaphore(HASHERS)
    layers = [_Layer(place, made) for place, made in pages.items()]
    async with asyncio.TaskGroup() as tasks:
        for layer in layers:
            tasks.create_task(layer.make(turn), name=f"digests of layer {layer.place}")
        for layer in layers:
            await layer.tell(tell)
