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
    """What ``node`` tells of ``content``, kept until it is asked for.

    Raises RemoteError for layers that are too large.
    """

    def __init__(self, node: str, content: ImageContent) -> None:
        self.node, self.content = node, content
        self._coming: dict[bytes, Manifest] = {}
        self._told: dict[bytes, asyncio.Queue[BlobChunks | None]] = {}
        self._error = ""
        chunk_bytes = layer_chunk_bytes(content.size)
        for layer in content.layers:
            if chunk_count(layer.size, chunk_bytes) > MOST_CHUNKS:
                raise RemoteError(f"its layer {layer.diff_id.hex()[:12]} has {layer.size} bytes")
            self._coming[layer.diff_id] = Manifest(layer.diff_id, layer.size, (), chunk_bytes)
            self._told[layer.diff_id] = asyncio.Queue()

    def takes(self, node: str, page: BlobChunks) -> bool:
        """Whether a page is of one of these layers; then it is taken.

        Raises RemoteError for one that does not fit to those before it.
        """
        manifest = self._coming.get(page.blob) if node == self.node else None
        if manifest is None:
            return False
        manifest.add(page)
        self._told[page.blob].put_nowait(page)
        if manifest.whole:
            del self._coming[page.blob]
        return True

    def fail(self, why: str) -> None:
        """No more will come."""
        self._error = why
        for blob in self._coming:
            self._told[blob].put_nowait(None)

    async def pages(self, blob: bytes) -> AsyncIterator[BlobChunks]:
        """The pages of a layer, as they come; for one reader. Raises SeedError when no more will."""
        while page := await self._told[blob].get():
            yield page
            if blob not in self._coming and self._told[blob].empty():
                return
        raise SeedError(self._error)
