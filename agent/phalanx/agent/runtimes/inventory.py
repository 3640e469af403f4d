"""Which images an engine has under which names, and removing one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from phalanx.agent.runtimes import images
from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.agent.runtimes.store import likenesses, shown_likeness, store_of
from phalanx.protocol.messages import EngineImage

#: How engines write that an image has no name.
_NAMELESS = "<none>:<none>"
#: Characters of a name that are told (messages.EngineImage).
_LONGEST = 256


async def images_of(engine: EngineClient, reference: str) -> list[EngineImage]:
    """The images by name and id; only this one when ``reference`` is not "". Raises EngineError."""
    by_manifest = (await store_of(engine)).containerd
    if reference:
        found = await images.inspect(engine, reference)
        if found is None:
            return []
        image_id, mark = str(found["Id"]), shown_likeness(found)
        return [EngineImage(reference[:_LONGEST], image_id, _size(found), mark, by_manifest)]
    listed = await engine.call("list images", engine.api.images.list())
    known = await likenesses(engine, [str(entry["Id"]) for entry in listed])
    return named(listed, known, by_manifest=by_manifest)


def named(
    listed: Iterable[Mapping[str, Any]], known: Mapping[str, bytes | None], *, by_manifest: bool = False
) -> list[EngineImage]:
    """One entry for each name of each image that GET /images/json shows; an image without a name has one."""
    found = [
        EngineImage(name[:_LONGEST], str(entry["Id"]), _size(entry), known.get(str(entry["Id"])), by_manifest)
        for entry in listed
        for name in [tag for tag in entry.get("RepoTags") or () if tag != _NAMELESS] or [""]
    ]
    return sorted(found, key=lambda image: (not image.reference, image.reference, image.image_id))


def _size(shown: Mapping[str, Any]) -> int:
    return max(0, int(shown.get("Size") or 0))


async def remove(engine: EngineClient, reference: str) -> None:
    """Take the image out of the engine; one that is not there, or is not named, is fine.

    Raises ImageError when a container uses it, or the engine cannot be asked.
    """
    if not reference:
        return
    try:
        await engine.call(f"remove image {reference}", engine.api.images.delete(images.in_path(reference)))
    except EngineError as error:
        if error.status == 404:
            return
        raise ImageError(f"cannot remove image {reference}: {error}") from error
