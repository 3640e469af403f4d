"""The digests of an image's layers as the node tells them that seeds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from phalanx.protocol.blob import Manifest, chunk_count, layer_chunk_bytes
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.image import ImageContent
from phalanx.protocol.messages import BlobChunks

from ..fleet.pulling import MOST_CHUNKS


class SeedError(Exception):
    """The node cannot go on giving the image. The message is the node's own."""


class SeededLayers:
    """What ``node`` tells of ``content``, kept until it is asked for; another may go on with it.

    Raises RemoteError for layers that are too large.
    """

    def __init__(self, node: str, content: ImageContent) -> None:
        self.content = content
        self._told: dict[bytes, asyncio.Queue[BlobChunks | None]] = {}
        self._known: dict[bytes, int] = {}
        self._through: set[bytes] = set()
        self._error = ""
        self._chunk_bytes = layer_chunk_bytes(content.size)
        for layer in content.layers:
            if chunk_count(layer.size, self._chunk_bytes) > MOST_CHUNKS:
                raise RemoteError(f"its layer {layer.diff_id.hex()[:12]} has {layer.size} bytes")
            self._told[layer.diff_id], self._known[layer.diff_id] = asyncio.Queue(), 0
        self.go_on(node)

    def go_on(self, node: str) -> None:
        """This node gives the layers from now on. It tells all digests; known ones are let fall."""
        self.node = node
        self._coming = {
            layer.diff_id: Manifest(layer.diff_id, layer.size, (), self._chunk_bytes)
            for layer in self.content.layers
        }

    def takes(self, node: str, page: BlobChunks) -> bool:
        """Whether a page is of one of these layers; then it is taken.

        Raises RemoteError for one that does not fit to those before it.
        """
        manifest = self._coming.get(page.blob) if node == self.node else None
        if manifest is None:
            return False
        manifest.add(page)
        if manifest.whole:
            del self._coming[page.blob]
        self._pass_on(manifest)
        return True

    def _pass_on(self, manifest: Manifest) -> None:
        """Give what is new of a layer to its reader; of an empty one, the page without digests once."""
        blob, known = manifest.blob, len(manifest.digests)
        if blob in self._through or (known <= self._known[blob] and manifest.count):
            return
        for page in manifest.pages(self._known[blob]):
            self._told[blob].put_nowait(page)
        self._known[blob] = known
        if manifest.whole:
            self._through.add(blob)

    def fail(self, why: str) -> None:
        """No more will come."""
        self._error = why
        for blob in self._told.keys() - self._through:
            self._told[blob].put_nowait(None)

    async def pages(self, blob: bytes) -> AsyncIterator[BlobChunks]:
        """The pages of a layer, as they come; for one reader. Raises SeedError when no more will."""
        while page := await self._told[blob].get():
            yield page
            if blob in self._through and self._told[blob].empty():
                return
        raise SeedError(self._error)
