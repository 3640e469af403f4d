"""Which images an engine has under which names, and removing one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.agent.runtimes.images import in_path
from phalanx.protocol.messages import EngineImage

#: How engines write that an image has no name.
_NAMELESS = "<none>:<none>"
#: Characters of a name that are told (messages.EngineImage).
_LONGEST = 256


async def images_of(engine: EngineClient, reference: str) -> list[EngineImage]:
    """The images by name and id; only this one when ``reference`` is not "". Raises EngineError."""
    if not reference:
        return named(await engine.call("list images", engine.api.images.list()))
    try:
        found = await engine.call(f"look at image {reference}", engine.api.images.inspect(in_path(reference)))
    except EngineError as error:
        if error.status == 404:
            return []
        raise
    return [EngineImage(reference[:_LONGEST], str(found["Id"]), _size(found))]


def named(listed: Iterable[Mapping[str, Any]]) -> list[EngineImage]:
    """One entry for each name of each image that GET /images/json shows; an image without a name has one."""
    images = [
        EngineImage(name[:_LONGEST], str(entry["Id"]), _size(entry))
        for entry in listed
        for name in [tag for tag in entry.get("RepoTags") or () if tag != _NAMELESS] or [""]
    ]
    return sorted(images, key=lambda image: (not image.reference, image.reference, image.image_id))


def _size(shown: Mapping[str, Any]) -> int:
    return max(0, int(shown.get("Size") or 0))


async def remove(engine: EngineClient, reference: str) -> None:
    """Take the image out of the engine; one that is not there, or is not named, is fine.

    Raises ImageError when a container uses it, or the engine cannot be asked.
    """
    if not reference:
        return
    try:
        await engine.call(f"remove image {reference}", engine.api.images.delete(in_path(reference)))
    except EngineError as error:
        if error.status == 404:
            return
        raise ImageError(f"cannot remove image {reference}: {error}") from error
