"""An image into an engine layer by layer, each as soon as it is here, believed only once verified.

No engine takes a layer alone. So layer k goes in as the last of an image that has the first k and a tag of
ours; its archive holds that one layer, because an engine skips those that it has under the same chain. The
last goes in with the real configuration, under such a tag too: a name means what it meant until the image is
verified (the containerd store names an image before it unpacks it). An interrupted load keeps what it has put
in, and what it has left is known by its tag and label.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.agent.runtimes import images, verify
from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.protocol.image import ImageContent, ImageFormatError, check_tagged
from phalanx.protocol.image_archive import archive
from phalanx.protocol.messages import Layer

#: What a layer takes of the engine's disk while it is put in: as it comes, and unpacked.
_COPIES = 2


@dataclass(frozen=True, slots=True)
class Span:
    """Where the bytes of a layer's uncompressed tar are."""

    path: Path
    offset: int
    size: int


async def load_layers(
    engine: EngineClient, content: ImageContent, reference: str, first: int, spans: Sequence[Span]
) -> None:
    """Put in the layers from ``first`` on that lie at ``spans``, on top of those below them, which the engine
    has; the last of all makes it the image, to which ``verify.finish`` gives its name.

    Several at once cost an engine less than one after another. Raises ImageError. Only for an engine whose
    store takes deltas.
    """
    count = first + len(spans)
    part = content if count == len(content.layers) else content.prefix(count)
    carried = range(first, count)
    places = {content.layers[index].diff_id: span for index, span in zip(carried, spans, strict=True)}
    await _load(engine, part, content.partial_tag(count), reference, carried, places)


async def load_config(engine: EngineClient, content: ImageContent, reference: str) -> None:
    """Make the image of layers that the engine has all. Raises ImageError.

    An image that is there already is not loaded again (moby issue 53561: the containerd store would keep a
    second, untagged one).
    """
    if not await verify.present(engine, content, reference):
        await _load(engine, content, _whole(content), reference, [], {})


async def load_all(
    engine: EngineClient, content: ImageContent, reference: str, files: Sequence[Span]
) -> None:
    """Put the image in at once, with all its layers; ``files`` as ``content.layers``. Raises ImageError."""
    spans = {layer.diff_id: span for layer, span in zip(content.layers, files, strict=True)}
    await _load(engine, content, _whole(content), reference, range(len(content.layers)), spans)


def _whole(content: ImageContent) -> str:
    """The tag of an image that is in, until it is verified and gets its own."""
    return content.partial_tag(len(content.layers))


async def _load(
    engine: EngineClient,
    part: ImageContent,
    name: str,
    reference: str,
    carried: Collection[int],
    spans: Mapping[bytes, Span],
) -> None:
    try:
        check_tagged(reference)
        await asyncio.to_thread(_check_files, spans.values())
        async with engine.loading:
            await images.check_disk(engine, _COPIES * sum(span.size for span in spans.values()), reference)
            before = await images.dangling(engine)
            try:
                await _post(engine, part, name, carried, spans)
            except (EngineError, OSError):
                await verify.remove_dangling(engine, part, before)
                raise
    except (EngineError, OSError, ImageFormatError) as error:
        raise ImageError(f"cannot load image {reference}: {_of_layers(part, carried)}{error}") from error


def _of_layers(part: ImageContent, carried: Collection[int]) -> str:
    """Which layers it was about, counted from one; "" for the whole image."""
    numbers = sorted(carried)
    if len(numbers) == 1:
        return f"layer {numbers[0] + 1} ({part.diff_ids[numbers[0]].hex()[:12]}): "
    whole = len(numbers) in (0, len(part.layers))
    return "" if whole else f"layers {numbers[0] + 1} to {numbers[-1] + 1}: "


def _check_files(spans: Collection[Span]) -> None:
    for span in spans:
        there = span.path.stat().st_size - span.offset
        if there < span.size:
            raise OSError(f"{span.path} holds {max(there, 0)} of the {span.size} bytes of a layer")


async def _post(
    engine: EngineClient,
    part: ImageContent,
    name: str,
    carried: Collection[int],
    spans: Mapping[bytes, Span],
) -> None:
    """Send the archive, after which the engine must show what was in it.

    The client library takes an engine that dies for the end of its answer, and an engine answers 200 before
    it knows: a body that ends without an error proves nothing. Raises EngineError.
    """
    async with engine.speaking(f"load {name}", images.STALL_S) as scope:
        blocks = _blocks(part, name, carried, spans, scope)
        try:
            async for line in engine.api.images.import_image(blocks, stream=True):
                images.postpone(scope)
                _check(line)
        except ValueError as error:  # half a line: the engine went away in the middle of it
            raise EngineError(f"cannot load {name}: the engine's answer breaks off") from error
    if not await verify.right(engine, part, name):
        raise EngineError(
            f"cannot load {name}: the engine does not show it afterwards; see whether it was restarted"
        )


def _check(line: Any) -> None:
    """Raises EngineError for a line of the engine's answer that says that the load has failed."""
    found = line if isinstance(line, Mapping) else {}
    text = str(found.get("stream") or found.get("status") or "").strip()
    failed = found.get("error") or found.get("errorDetail")
    if failed or "Error unpacking" in text:  # the containerd store says so and goes on
        raise EngineError(f"the engine says: {failed or text}")


async def _blocks(
    part: ImageContent,
    name: str,
    carried: Collection[int],
    spans: Mapping[bytes, Span],
    scope: asyncio.Timeout,
) -> AsyncIterator[bytes]:
    small: list[bytes] = []
    for piece in archive(part, name, carried):
        if not isinstance(piece, Layer):
            small.append(piece)
            continue
        yield b"".join(small)
        small.clear()
        async for block in _read(spans[piece.diff_id]):
            yield block
            images.postpone(scope)
    yield b"".join(small)


async def _read(span: Span) -> AsyncIterator[bytes]:
    descriptor = await asyncio.to_thread(os.open, span.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at, end = span.offset, span.offset + span.size
        while at < end:
            block = await asyncio.to_thread(os.pread, descriptor, min(images.BLOCK, end - at), at)
            if not block:
                raise OSError(f"{span.path} ends in the middle of a layer")
            at += len(block)
            yield block
    finally:
        os.close(descriptor)
