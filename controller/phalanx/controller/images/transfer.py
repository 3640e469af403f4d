"""The image's way to the login node's disk, from where it is shipped: archive, login engine, or a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.messages import FileOffer, ImageExport, ImageExported

from ..fleet.events import Event, ImageSource
from ..fleet.hub import Hub
from ..fleet.instructions import PrepareImage
from ..fleet.pulling import BadOffer, Pulling
from .source import Archive, ImageSourceError, inspect_archive, save_from_login


class ImageTransfer:
    """Makes the archive that nodes get. ``folder`` holds what was saved for this run only."""

    def __init__(self, hub: Hub, pulling: Pulling, record: Callable[[Event], None], folder: Path) -> None:
        self._hub = hub
        self._pulling = pulling
        self._record = record
        self._folder = folder
        self._exported: asyncio.Future[tuple[str, ImageExported]] | None = None
        self.archive = Path()

    async def prepare(self, wanted: PrepareImage) -> None:
        """Find the image; an event says where it comes from, or why it cannot be had."""
        try:
            where, archive = await self._find(wanted)
        except (ImageSourceError, BadOffer, ProtocolError, OSError) as error:
            self._record(ImageSource("", wanted.reference, "", 0, str(error)))
            return
        self.archive = archive.path
        self._record(ImageSource(where, wanted.reference, archive.image_id, archive.size))

    async def _find(self, wanted: PrepareImage) -> tuple[str, Archive]:
        if wanted.archive:
            path = Path(wanted.archive)
            return f"archive {path}", await asyncio.to_thread(inspect_archive, path, wanted.reference)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        target = self._folder / "image.tar"
        saved = await save_from_login(wanted.reference, target)
        if saved is not None:
            return "engine of the login node", saved
        if wanted.node:
            return f"engine of node {wanted.node}", await self._from_node(wanted, target)
        raise ImageSourceError(
            f"cannot get the image {wanted.reference}: no node has it, the login node's engine does not "
            "have it (or there is none), and no archive was named; give one with --image-archive"
        )

    async def _from_node(self, wanted: PrepareImage, target: Path) -> Archive:
        self._exported = asyncio.get_running_loop().create_future()
        self._hub.tell([wanted.node], ImageExport(1, wanted.reference))
        node, exported = await self._exported
        if exported.error:
            raise ImageSourceError(f"{node}: {exported.error}")
        offer = FileOffer(1, "", "image.tar", exported.size, exported.blob)
        await self._pulling.fetch(node, offer, target)
        return Archive(target, exported.image_id, (wanted.reference,))

    def on_exported(self, node: str, message: ImageExported) -> None:
        """A node has its archive ready, or cannot make it."""
        if self._exported is not None and not self._exported.done():
            self._exported.set_result((node, message))
