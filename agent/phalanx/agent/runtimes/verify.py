"""Whether an engine has an image, really: what it lists is compared with what the image is.

And what is left of one on its way is removed, known by tag and label; images of others are never touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from phalanx.agent.runtimes import images
from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.agent.runtimes.store import diff_ids_of, same_id, shown_likeness
from phalanx.protocol.image import PARTIAL, PARTIAL_LABEL, ImageContent, ImageFormatError, digest_text
from phalanx.protocol.image_archive import manifest_digest


async def present(engine: EngineClient, content: ImageContent, reference: str) -> str:
    """The engine's id of the image when ``reference`` means it already, else "". Raises ImageError."""
    try:
        shown = await images.inspect(engine, reference)
        return str(shown["Id"]) if shown and _is(shown, content) else ""
    except EngineError as error:
        raise ImageError(f"cannot look at image {reference}: {error}") from error


async def finish(engine: EngineClient, content: ImageContent, reference: str) -> str:
    """The engine's id of the image, once ``reference`` means it and nothing on the way is left.

    The layers that the engine shows must be those of the configuration, and its id the digest of that. The
    containerd store calls an image by its manifest: there the id must be that of the manifest made here, or
    what containers are told (command, environment, labels ...) the same. Raises ImageError.
    """
    try:
        if not await right(engine, content, reference):
            await _tag(engine, content, reference)
        image_id = await present(engine, content, reference)
        if not image_id:
            raise ImageError(
                f"cannot load image {reference}: the engine does not show it with the layers and the "
                f"configuration {digest_text(content.digest)[:19]} afterwards; send it again"
            )
        await _remove_tagged(engine, content.partial_mark)
        return image_id
    except EngineError as error:
        raise ImageError(f"cannot load image {reference}: {error}") from error


async def clean(engine: EngineClient, content: ImageContent) -> None:
    """Remove what is on the way of this image, after a failure. Images of others stay. Raises ImageError."""
    await remove_parts(engine, content.partial_mark)


async def remove_parts(engine: EngineClient, mark: str) -> None:
    """Remove what is on the way of the image with this ``partial_mark``. Raises ImageError."""
    try:
        await _remove_tagged(engine, mark)
        label = f"{PARTIAL_LABEL}={mark}"
        listing = engine.api.images.list(filters={"dangling": ["true"], "label": [label]})
        for entry in await engine.call("list parts of an image", listing):
            await _delete(engine, str(entry["Id"]))
    except EngineError as error:
        raise ImageError(f"cannot remove the parts of an image: {error}") from error


async def _tag(engine: EngineClient, content: ImageContent, reference: str) -> None:
    for name in _names(content):
        if await right(engine, content, name):
            repository, tag = images.split_reference(reference)
            await engine.call(f"tag {reference}", engine.api.images.tag(name, repository, tag=tag))
            return


async def right(engine: EngineClient, content: ImageContent, reference: str) -> bool:
    """Whether ``reference`` means the image. Raises EngineError."""
    shown = await images.inspect(engine, reference)
    return shown is not None and _is(shown, content)


def _names(content: ImageContent) -> tuple[str, str]:
    """Ids by which an engine may know the image: that of the graph-driver store, then of containerd's."""
    return digest_text(content.digest), digest_text(manifest_digest(content))


def _is(shown: Mapping[str, Any], content: ImageContent) -> bool:
    """Whether what the engine shows is the image."""
    try:
        if diff_ids_of(shown) != content.diff_ids:
            return False
    except ImageFormatError:
        return False
    if any(same_id(str(shown.get("Id")), name) for name in _names(content)):
        return True
    # an image that came to the containerd store from elsewhere; another graph-driver id is another image
    return "Descriptor" in shown and shown_likeness(shown) == content.likeness


async def _remove_tagged(engine: EngineClient, mark: str) -> None:
    ours = f"{PARTIAL}:{mark}-"
    listed = await engine.call("list images", engine.api.images.list())
    for tag in [tag for entry in listed for tag in entry.get("RepoTags") or []]:
        if tag.rpartition("/")[2].startswith(ours):
            await _delete(engine, tag)


async def remove_dangling(engine: EngineClient, content: ImageContent, before: set[str]) -> None:
    """Of what this load has made and left without a name, what can only be its own."""
    with contextlib.suppress(EngineError):  # the load's own error is the one to tell
        for found in (await images.dangling(engine) - before) & set(_names(content)):
            await _delete(engine, found)


async def _delete(engine: EngineClient, name: str) -> None:
    remove = engine.api.images.delete(images.in_path(name), noprune=True)
    try:
        await engine.call(f"remove {name}", remove)
    except EngineError as error:
        if error.status != 404:
            raise
