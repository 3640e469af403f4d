"""Where the image comes from, best first: the archive that was named, the login node's engine, a node whose
engine has it, an archive in MAD_DOCKER_BUILDS, and last a registry, from which one node pulls it for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.protocol.blob import Manifest
from phalanx.protocol.image import ImageContent
from phalanx.protocol.messages import ImageSeed, ImageSeeded, Message

from ..fleet.hub import Hub
from ..fleet.instructions import FindImage
from ..fleet.pulling import Pulling
from .archive import Span, open_content
from .login import ImageSourceError, save_from_login
from .staging import Stage

#: Folder of archives that madengine's users share, and how an image is called there.
BUILDS = "MAD_DOCKER_BUILDS"


@dataclass(frozen=True, slots=True)
class Found:
    """An image and where its layers are: in files of this machine (``spans``), or on a node that has told
    their ``manifests``. ``where``: in words."""

    reference: str
    where: str
    content: ImageContent
    spans: tuple[Span, ...] = ()
    manifests: tuple[Manifest, ...] = ()
    node: str = ""


def shared_archive(environ: Mapping[str, str], reference: str) -> Path | None:
    """The archive of an image in MAD_DOCKER_BUILDS, None when there is none.

    Named as madengine names it: the reference with ``/`` and ``:`` made ``_``, and ``.tar``.
    """
    folder = environ.get(BUILDS, "")
    if not folder:
        return None
    path = Path(folder) / f"{reference.replace('/', '_').replace(':', '_')}.tar"
    return path if path.is_file() else None


@dataclass(slots=True)
class Sources:
    """Finds an image for a run. ``folder`` holds what was saved or unpacked for it."""

    hub: Hub
    pulling: Pulling
    folder: Path
    environ: Mapping[str, str]
    _seeded: asyncio.Future[tuple[str, ImageSeeded]] | None = field(default=None)
    _asked: int = 0

    async def find(self, wanted: FindImage) -> Found:
        """The image. Raises ImageSourceError naming what was looked at, ImageFormatError or OSError."""
        if wanted.archive:
            return await self._archive(wanted.reference, Path(wanted.archive))
        try:
            saved = await self._login(wanted.reference)
        except (ImageSourceError, OSError):
            if not wanted.node:
                raise
            saved = None  # the login node's engine cannot give it, but a node has it
        if saved is not None:
            return saved
        if wanted.node:
            return await self._seed(wanted, wanted.node, pull=False)
        shared = shared_archive(self.environ, wanted.reference)
        if shared is not None:
            return await self._archive(wanted.reference, shared)
        return await self._pull(wanted)

    async def _archive(self, reference: str, path: Path) -> Found:
        stage = Stage(self.folder)
        opening = asyncio.create_task(
            asyncio.to_thread(open_content, path, reference, stage), name="image archive"
        )
        try:
            content = await asyncio.shield(opening)
        finally:
            stage.called_off.set()
            # Until its thread has ended something might be written into the folder, which is to be removed.
            await asyncio.gather(opening, return_exceptions=True)
        return Found(reference, f"archive {path}", content.image, content.spans)

    async def _login(self, reference: str) -> Found | None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        archive = self.folder / "saved.tar"
        if not await save_from_login(reference, archive):
            return None
        found = await self._archive(reference, archive)
        return Found(reference, "engine of the login node", found.content, found.spans)

    async def _pull(self, wanted: FindImage) -> Found:
        """One node pulls it for all."""
        try:
            return await self._seed(wanted, wanted.nodes[0], pull=True)
        except ImageSourceError as error:
            raise ImageSourceError(
                f"cannot get the image {wanted.reference}: no node has it, the login node's engine does not "
                f"have it (or there is none), no archive was named, and pulling it failed ({error}); give "
                "one with --image-archive, or log the engine of that node in to the registry"
            ) from error

    async def _seed(self, wanted: FindImage, node: str, *, pull: bool) -> Found:
        self._seeded = asyncio.get_running_loop().create_future()
        self._asked = wanted.request
        self.hub.tell([node], ImageSeed(wanted.request, wanted.reference, pull))
        who, seeded = await self._seeded
        if seeded.error:
            raise ImageSourceError(f"{node}: {seeded.error}")
        content = ImageContent(seeded.config, seeded.layers)
        # Each digest is told, and given out, once; an image may have the same layer twice.
        digests = dict.fromkeys(layer.diff_id for layer in content.layers)
        manifests = {digest: self.pulling.manifest(who, digest) for digest in digests}
        told = [manifests[layer.diff_id] for layer in content.layers]
        known = tuple(
            manifest
            for manifest, layer in zip(told, content.layers, strict=True)
            if manifest is not None and manifest.size == layer.size
        )
        if len(known) != len(told):
            raise ImageSourceError(f"{node} did not tell the digests of every layer")
        where = f"a registry, pulled by node {node}" if pull else f"engine of node {node}"
        return Found(wanted.reference, where, content, manifests=known, node=node)

    def on_seeded(self, node: str, message: Message) -> None:
        """A node has its image ready to be read, or cannot."""
        waiting = self._seeded
        if waiting is None or waiting.done():
            return
        if isinstance(message, ImageSeeded) and message.request == self._asked:
            waiting.set_result((node, message))
