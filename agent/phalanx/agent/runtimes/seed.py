"""An engine's image made readable layer by layer: an export on the disk, and where in it each layer lies.

An engine can export an image without some of its layers, or an empty one, and call that a success. So an
export without all of them is refused at once; and every layer that others are to read is read once before,
its digest must be the one that the image's configuration names, and the same pass makes the manifest by which
its chunks are verified on every node.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from phalanx.agent.runtimes import images
from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.cgroup import size
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.agent.runtimes.layers import Span
from phalanx.agent.runtimes.store import diff_ids_of, shown_likeness
from phalanx.protocol.blob import layer_chunk_bytes
from phalanx.protocol.image import (
    ImageContent,
    ImageFormatError,
    ImageTooLarge,
    config_diff_ids,
    layer_pages,
)
from phalanx.protocol.image_index import Held, check_packing, choose, find_images, gunzip
from phalanx.protocol.image_tar import Member, members
from phalanx.protocol.messages import BlobChunks, Layer

_CURE = (
    "the engine lists it but does not hold all of it: remove and pull or build it again on this node, "
    "or let another node be the source"
)


@dataclass(frozen=True, slots=True)
class Seed:
    """An image, and for each of its layers, lowest first, where its bytes are. ``image_id``: the engine's."""

    content: ImageContent
    spans: tuple[Span, ...]
    image_id: str = ""

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk of its layers."""
        return layer_chunk_bytes(self.content.size)


async def seed(engine: EngineClient, reference: str, archive: Path) -> Seed:
    """Export the image to ``archive`` and index it. Raises ImageError; then no file is left.

    Layers that the engine keeps compressed are unpacked beside the archive, under its name and a number.
    """
    try:
        shown = await images.inspect(engine, reference)
        if shown is None:
            raise ImageError(f"cannot export image {reference}: this node's engine does not have it")
        await asyncio.to_thread(_check_disk, archive, reference, int(shown.get("Size") or 0))
        image_id = await images.export(engine, reference, archive)
        found = await asyncio.to_thread(index, archive, reference, diff_ids_of(shown))
        if found.content.likeness != shown_likeness(shown):
            await asyncio.to_thread(remove, archive)
            raise ImageError(
                f"cannot export image {reference}: the name has come to mean another image since; try again"
            )
        return replace(found, image_id=image_id)
    except EngineError as error:
        raise ImageError(f"cannot export image {reference}: {error}") from error
    except ImageTooLarge as error:
        await asyncio.to_thread(remove, archive)
        raise ImageError(f"cannot export image {reference}: {error}") from error
    except ImageFormatError as error:
        await asyncio.to_thread(remove, archive)
        raise ImageError(f"cannot export image {reference}: {error}; {_CURE}") from error
    except OSError as error:
        await asyncio.to_thread(remove, archive)
        raise ImageError(
            f"cannot export image {reference} to {archive}: {error.strerror or error}"
        ) from error


def remove(archive: Path) -> None:
    """Remove a seed's files. Raises OSError."""
    for path in [archive, *archive.parent.glob(f"{archive.name}.layer*")]:
        path.unlink(missing_ok=True)


def _check_disk(archive: Path, reference: str, needed: int) -> None:
    about = os.statvfs(archive.parent)
    free = about.f_bavail * about.f_frsize
    if free < needed:
        raise ImageError(
            f"cannot export image {reference}: it needs {size(needed)} in {archive.parent}, of which "
            f"{size(free)} are free; make room there or let another node be the source"
        )


def index(archive: Path, reference: str, diff_ids: tuple[bytes, ...]) -> Seed:
    """The image with these layers in an uncompressed archive, and where they are. Blocks.

    Raises ImageFormatError, OSError.
    """
    with archive.open("rb") as file:
        found = members(lambda at, count: _pread(file, at, count), os.fstat(file.fileno()).st_size)
        candidates = [
            image
            for image in find_images(found, lambda member: _pread(file, member.offset, member.size))
            if config_diff_ids(image.config) == diff_ids and len(image.layers) == len(diff_ids)
        ]
        if not candidates:
            raise ImageFormatError("its export has not the layers that the engine shows")
        image = choose(candidates, reference) if len(candidates) > 1 else candidates[0]
        return _indexed(file, archive, image, diff_ids)


def _pread(file: BinaryIO, at: int, count: int) -> bytes:
    return os.pread(file.fileno(), count, at)


def _indexed(file: BinaryIO, archive: Path, image: Held, diff_ids: tuple[bytes, ...]) -> Seed:
    found: dict[bytes, Span] = {}
    for number, (diff_id, member) in enumerate(zip(diff_ids, image.layers, strict=True)):
        if diff_id not in found:
            found[diff_id] = _span(file, archive, number, member)
    layers = tuple(Layer(diff_id, found[diff_id].size) for diff_id in diff_ids)
    return Seed(ImageContent(image.config, layers), tuple(found[diff_id] for diff_id in diff_ids))


def pages(found: Seed, place: int) -> Iterator[BlobChunks]:
    """See ``layer_pages``: of one layer, in one pass over it. Each step blocks. Raises OSError when it cannot
    be read."""
    layer, chunks = found.content.layers[place], _chunks(found.spans[place], found.chunk_bytes)
    return layer_pages(layer, chunks, found.chunk_bytes, f"is not what its digest says; {_CURE}")


def _span(file: BinaryIO, archive: Path, number: int, member: Member) -> Span:
    """Where a layer lies: in the archive, or in a file of its own when it is compressed there."""
    if not check_packing(_pread(file, member.offset, 8), member.name):
        return Span(archive, member.offset, member.size)
    path = archive.with_name(f"{archive.name}.layer{number}")
    with path.open("wb") as fresh:
        for piece in gunzip(_chunks(Span(archive, member.offset, member.size), images.BLOCK)):
            fresh.write(piece)
    return Span(path, 0, path.stat().st_size)


def _chunks(span: Span, chunk_bytes: int) -> Iterator[bytes]:
    """The bytes of a span, ``chunk_bytes`` at a time. Raises OSError."""
    with span.path.open("rb") as file:
        file.seek(span.offset)
        left = span.size
        while left and (chunk := file.read(min(chunk_bytes, left))):
            left -= len(chunk)
            yield chunk
