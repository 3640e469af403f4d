"""Where the image comes from, best first: the archive that was named, the login node's engine, a node whose
engine has it, an archive in MAD_DOCKER_BUILDS, and last a registry, from which one node pulls it for all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from phalanx.protocol.errors import RemoteError
from phalanx.protocol.image import ImageContent, digest_text
from phalanx.protocol.image_index import is_named
from phalanx.protocol.messages import BlobChunks, Credentials, ImageSeed, ImageSeeded, Message

from ..fleet.hub import Hub
from ..fleet.instructions import FindImage
from ..fleet.pulling import Pulling
from .archive import Span, open_content
from .credentials import credentials
from .login import ImageSourceError, LoginImage, on_login, save_from_login
from .seeded import SeededLayers
from .staging import PIECE_BYTES, Stage, check_room, write

#: Folder of archives that madengine's users share, and how an image is called there.
BUILDS = "MAD_DOCKER_BUILDS"


@dataclass(frozen=True, slots=True)
class Found:
    """An image and where its layers are: in files of this machine (``spans``), or on a node that seeds them.
    ``where``: in words. ``engine_id``: what the engine calls it that gives it. ``names``: what an archive
    calls it."""

    reference: str
    where: str
    content: ImageContent
    spans: tuple[Span, ...] = ()
    seeded: SeededLayers | None = None
    engine_id: str = ""
    names: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        """The node that seeds it, "" for none."""
        return self.seeded.node if self.seeded is not None else ""


def shared_place(environ: Mapping[str, str], reference: str) -> Path | None:
    """Where the archive of an image is or would be in MAD_DOCKER_BUILDS, None without such a folder.

    Named as madengine names it: the reference with ``/`` and ``:`` made ``_``, and ``.tar``.
    """
    folder = environ.get(BUILDS, "")
    return Path(folder) / f"{reference.replace('/', '_').replace(':', '_')}.tar" if folder else None


def _share(archive: Path, shared: Path) -> None:
    """Have an archive in the shared folder as well, where it appears whole; the run keeps its own. Blocks.

    Raises OSError.
    """
    part = shared.with_name(f".{shared.name}.{os.getpid()}")
    try:
        try:
            part.hardlink_to(archive)
        except OSError:  # another disk, or one without links
            with archive.open("rb") as source:
                pieces = iter(lambda: source.read(PIECE_BYTES), b"")
                write(pieces, part, lambda: check_room(part.parent, f"no room for it in {part.parent}"))
        part.chmod(0o644)  # it is for all who share the folder
        part.replace(shared)
    finally:
        part.unlink(missing_ok=True)


def _is(content: ImageContent, known: LoginImage) -> bool:
    """Whether it is the image of the login node's engine."""
    if known.by_manifest:
        return content.likeness == known.likeness
    return digest_text(content.digest) == known.image_id


def _layers(node: str, seeded: ImageSeeded) -> SeededLayers:
    """Raises ImageSourceError for an image that cannot be given, RemoteError for one that cannot be."""
    if seeded.error:
        raise ImageSourceError(seeded.error)
    return SeededLayers(node, ImageContent(seeded.config, seeded.layers))


def _moved(span: Span, archive: Path, shared: Path) -> Span:
    return replace(span, path=shared) if span.path == archive else span


@dataclass(slots=True)
class Sources:
    """Finds an image for a run. ``folder`` holds what was saved or unpacked for it."""

    hub: Hub
    pulling: Pulling
    folder: Path
    environ: Mapping[str, str]
    _seeded: asyncio.Future[tuple[ImageSeeded, SeededLayers]] | None = None
    _layers: SeededLayers | None = None
    _asked: int = 0

    async def find(self, wanted: FindImage) -> Found:
        """The image. Raises ImageSourceError naming what was looked at, ImageFormatError or OSError."""
        if wanted.archive:
            return await self._archive(wanted.reference, Path(wanted.archive))
        try:
            saved = await self._login(wanted.reference, wanted.image_id)
        except (ImageSourceError, OSError):
            if not wanted.node:
                raise
            saved = None  # the login node's engine cannot give it, but a node has it
        if saved is not None:
            return saved
        if wanted.node:
            return await self._seed(wanted, wanted.node, pull=False)
        shared = shared_place(self.environ, wanted.reference)
        if shared is None or not await asyncio.to_thread(shared.is_file):
            return await self._pull(wanted)
        try:
            return await self._shared(wanted, shared)
        except (ImageSourceError, OSError) as error:  # someone may be writing it just now
            return await self._pull(wanted, str(error))

    async def found_by_login(self, wanted: FindImage) -> str:
        """The login node's engine's id of what all nodes have already, if it is what is wanted; else ""."""
        if not wanted.held or wanted.archive:
            return ""
        known = await on_login(wanted.reference)
        if known is None or known.likeness.hex() != wanted.held:
            return ""
        return known.image_id if wanted.image_id in ("", known.image_id) else ""

    async def _shared(self, wanted: FindImage, shared: Path) -> Found:
        """The image of the shared archive, if that is what is wanted: two references may share its name.

        By its id, or by the names that the archive has for it; one without any is what it is called. Raises
        ImageSourceError, OSError.
        """
        found = await self._archive(wanted.reference, shared)
        if wanted.image_id:
            if digest_text(found.content.digest) != wanted.image_id:
                raise ImageSourceError(f"{shared} holds another image than the one that was built")
        elif found.names and not is_named(found.names, wanted.reference):
            raise ImageSourceError(f"{shared} holds {', '.join(found.names[:3])}, not {wanted.reference}")
        return found

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
        return Found(reference, f"archive {path}", content.image, content.spans, names=content.tags)

    async def _login(self, reference: str, wanted: str) -> Found | None:
        """What the login node's engine has; saved, unless the shared folder has just this image already.

        None when it has none, or another than the one of the id ``wanted``.
        """
        known = await on_login(reference)
        if known is None or (wanted and known.image_id != wanted):
            return None
        shared = shared_place(self.environ, reference)
        same = await self._archived(reference, shared) if shared is not None else None
        if same is not None and _is(same.content, known):
            where = f"archive {shared}, the image of the login node's engine"
            return replace(same, where=where, engine_id=known.image_id)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        archive, where = self.folder / "saved.tar", "engine of the login node"
        await save_from_login(reference, archive)
        found = await self._archive(reference, archive)
        if not _is(found.content, known):
            raise ImageSourceError(
                f"cannot save {reference} from the login node's engine: the name has come to mean another "
                "image meanwhile; try again"
            )
        if shared is not None:
            try:
                await asyncio.to_thread(_share, archive, shared)
                where = f"{where}, kept as {shared}"
                found = replace(found, spans=tuple(_moved(span, archive, shared) for span in found.spans))
            except OSError as error:
                where = f"{where} (it cannot be kept as {shared}: {error.strerror or error})"
        return replace(found, where=where, engine_id=known.image_id)

    async def _archived(self, reference: str, shared: Path) -> Found | None:
        """The image of the shared archive; None when it is not there, or not whole."""
        try:
            return await self._archive(reference, shared)
        except (ImageSourceError, OSError):
            return None

    async def _pull(self, wanted: FindImage, passed_over: str = "") -> Found:
        """One node pulls it for all. ``passed_over``: why the shared archive is not what is wanted."""
        try:
            shown = await credentials(self.environ, wanted.reference)
            found = await self._seed(wanted, wanted.nodes[0], pull=True, shown=shown)
            return replace(found, where=f"{found.where} ({passed_over})") if passed_over else found
        except ImageSourceError as error:
            archive = f"{passed_over}, " if passed_over else ""
            if wanted.image_id:
                raise ImageSourceError(
                    f"cannot get the image {wanted.reference} as it was built ({wanted.image_id[:19]}): "
                    "neither a node nor the login node's engine has it (the name may mean another by now), "
                    f"{archive}and pulling failed ({error}); build it again, or say --image to run what has "
                    "the name"
                ) from error
            raise ImageSourceError(
                f"cannot get the image {wanted.reference}: no node has it, the login node's engine does not "
                f"have it (or there is none), no archive was named, {archive}and pulling it failed "
                f"({error}); give one with --image-archive, or log in to its registry here (docker login)"
            ) from error

    async def _seed(
        self, wanted: FindImage, node: str, *, pull: bool, shown: Credentials | None = None
    ) -> Found:
        self._asked = wanted.request
        seeded, layers = await self._told_by(node, ImageSeed(wanted.request, wanted.reference, pull, shown))
        where = f"a registry, pulled by node {node}" if pull else f"engine of node {node}"
        return Found(wanted.reference, where, layers.content, seeded=layers, engine_id=seeded.image_id)

    async def _told_by(self, node: str, message: ImageSeed) -> tuple[ImageSeeded, SeededLayers]:
        if self._seeded is not None:
            self._seeded.cancel()  # who was asked before is lost, and will not answer
        self._seeded, self._layers = asyncio.get_running_loop().create_future(), None
        self.hub.tell([node], message)
        return await self._seeded

    async def seed_on(self, found: Found, node: str) -> Found:
        """The image that a lost node has begun to seed, seeded by another. Raises ImageSourceError."""
        seeded, layers = await self._told_by(node, ImageSeed(self._asked, found.reference))
        if found.seeded is None or layers.content.layers != found.content.layers:
            raise ImageSourceError(f"{node}: its engine gives other layers than those that were begun with")
        found.seeded.go_on(node)
        self._layers = found.seeded
        return replace(found, where=f"engine of node {node}", engine_id=seeded.image_id)

    def on_seeded(self, node: str, message: Message) -> None:
        """A node has exported its image, or cannot give it, or not all of it after all."""
        waiting = self._seeded
        if not isinstance(message, ImageSeeded) or message.request != self._asked or waiting is None:
            return
        if waiting.done():
            if message.error and self._layers is not None and self._layers.node == node:
                self._layers.fail(message.error)
            return
        try:
            # at once: digests may come before anyone asks for them
            self._layers = _layers(node, message)
        except (ImageSourceError, RemoteError) as error:
            waiting.set_exception(ImageSourceError(f"{node}: {error}"))
        else:
            waiting.set_result((message, self._layers))

    def on_chunks(self, node: str, message: Message) -> None:
        """Digests from a node: of a layer that it seeds, or of a file. Raises RemoteError."""
        layers = self._layers
        if isinstance(message, BlobChunks) and not (layers is not None and layers.takes(node, message)):
            self.pulling.on_chunks(node, message)
