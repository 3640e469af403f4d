"""What an engine already has of an image, and what kind of store it keeps it in.

Both are asked through the images' lists of layers, the only thing that all engines show alike. The containerd
store also lists images of which it has only the names; those count for nothing.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phalanx.agent.runtimes import images
from phalanx.agent.runtimes.engine import PING_S, EngineClient, EngineError
from phalanx.protocol.image import (
    CONTAINERD_STORE,
    PARTIAL,
    ImageFormatError,
    chain_ids,
    digest_bytes,
    digest_text,
    leading_held,
    likeness,
)

#: Bytes free where that cannot be known (messages.LayersStatus).
UNKNOWN_BYTES = 2**63 - 1
#: Images looked at at the same time; the client library's connections to a local socket are a hundred.
_AT_ONCE = 8
#: First versions that take archives without the layers that they have: in the graph-driver store (older ones
#: than 20.10 were not tried), and in the containerd store (25 imports with WithSkipMissing, 24 does not).
_DELTAS, _DELTAS_CONTAINERD = (20, 10), (25, 0)
#: The API from which on the containerd store says of an image what of it is on the node.
_SAYS_MANIFESTS = (1, 47)


@dataclass(frozen=True, slots=True)
class Store:
    """``deltas``: takes archives without the layers that it has. ``says_manifests``: shows what is there."""

    kind: str
    containerd: bool
    deltas: bool
    says_manifests: bool

    @property
    def lists_broken(self) -> bool:
        """Whether an image that could not be unpacked looks like any other: a part of one, whose load may
        have failed, is then no proof of its layers."""
        return self.containerd and not self.says_manifests


@dataclass(frozen=True, slots=True)
class Held:
    """``present``: the reference means just this image. ``in_engine``: leading layers that need not come.

    ``engine_free_bytes``: where the engine keeps images, below ``engine_root``; UNKNOWN_BYTES and "" when
    that is not on this node.
    """

    present: bool
    in_engine: int
    deltas: bool
    engine_free_bytes: int
    engine_root: str = ""

    @property
    def first(self) -> int:
        """The first layer that it must be given."""
        return self.in_engine if self.deltas else 0


async def store_of(engine: EngineClient) -> Store:
    """Ask the engine what it is. Raises EngineError."""
    version: dict[str, Any] = await engine.call("ask for its version", engine.api.version(), PING_S)
    info: dict[str, Any] = await engine.call("ask for its storage", engine.api.system.info())
    return read_store(version, info)


def read_store(version: Mapping[str, Any], info: Mapping[str, Any]) -> Store:
    """The store by the answers to GET /version and GET /info; what cannot be read of a version is old."""
    kind = images.engine_kind(dict(version))
    containerd = CONTAINERD_STORE in [list(row) for row in info.get("DriverStatus") or []]
    first = _DELTAS_CONTAINERD if containerd else _DELTAS
    deltas = kind == "docker" and _numbers(version.get("Version")) >= first
    return Store(kind, containerd, deltas, _numbers(version.get("ApiVersion")) >= _SAYS_MANIFESTS)


def _numbers(version: object) -> tuple[int, int]:
    found = re.match(r"(\d{1,6})\.(\d{1,6})", str(version))
    return (int(found[1]), int(found[2])) if found else (0, 0)


async def held(engine: EngineClient, reference: str, config_digest: bytes, diff_ids: Sequence[bytes]) -> Held:
    """What the engine has of the image. Raises EngineError.

    ``present`` needs an engine that calls images by the digest of their configuration; the containerd store
    does not, and there ``layers.present`` can tell once the configuration is here.
    """
    store = await store_of(engine)
    present = same_id(await images.image_id(engine, reference), digest_text(config_digest))
    root, free = await images.storage(engine)
    known, root = (UNKNOWN_BYTES, "") if math.isinf(free) else (int(free), root)
    if present:
        return Held(True, len(diff_ids), store.deltas, known, root)
    count = leading_held(diff_ids, await have_chains(engine, store)) if store.deltas else 0
    return Held(False, count, store.deltas, known, root)


async def have_chains(engine: EngineClient, store: Store) -> set[bytes]:
    """The chains of layers that the engine's images have. Raises EngineError.

    Images that are removed meanwhile, or that say nothing usable of their layers, are left out.
    """
    asked = {"manifests": "true"} if store.containerd and store.says_manifests else {}
    listed = await engine.call("list images", engine.api.images.list(**asked))
    sound = [entry for entry in listed if not (store.lists_broken and _is_part(entry))]
    ids = {str(entry["Id"]) for entry in sound if not asked or unpacked(entry)}
    shown = await _each(engine, ids)
    return {chain for one in shown.values() for chain in _chains(one)}


async def likenesses(engine: EngineClient, ids: Iterable[str]) -> dict[str, bytes | None]:
    """By id, of images that the engine has; without those of which it cannot say what they are."""
    shown = await _each(engine, ids, tolerant=True)
    return {image_id: shown_likeness(one) for image_id, one in shown.items()}


async def _each(
    engine: EngineClient, ids: Iterable[str], *, tolerant: bool = False
) -> dict[str, dict[str, Any]]:
    """What the engine shows of these images; without those that are removed meanwhile, and when ``tolerant``
    without those that it cannot show."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def look(image_id: str) -> dict[str, Any] | None:
        async with gate:
            try:
                return await images.inspect(engine, image_id)
            except EngineError:
                if tolerant:
                    return None
                raise

    try:
        async with asyncio.TaskGroup() as group:
            tasks = {one: group.create_task(look(one), name=f"look at {one}") for one in set(ids)}
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return {one: shown for one, task in tasks.items() if (shown := task.result()) is not None}


def _is_part(entry: Mapping[str, Any]) -> bool:
    """Whether an image has no name but that of one on its way."""
    names = [str(name).rpartition("/")[2] for name in entry.get("RepoTags") or ()]
    return all(name.startswith(f"{PARTIAL}:") for name in names)


def unpacked(entry: Mapping[str, Any]) -> bool:
    """Whether containers could run an image that the containerd store lists: its layers are laid out."""
    sizes = [
        ((manifest.get("ImageData") or {}).get("Size") or {}).get("Unpacked") or 0
        for manifest in entry.get("Manifests") or []
    ]
    return any(size > 0 for size in sizes)


def _chains(shown: Mapping[str, Any]) -> tuple[bytes, ...]:
    try:
        return chain_ids(diff_ids_of(shown))
    except ImageFormatError:
        return ()


@dataclass(frozen=True, slots=True)
class Named:
    """What an engine has under a name: see messages.ImageStatus."""

    image_id: str = ""
    likeness: bytes | None = None
    by_manifest: bool = False


async def under(engine: EngineClient, reference: str) -> Named:
    """What the engine has under a reference; what the containerd store lists and could not run is nothing.

    Raises EngineError.
    """
    shown = await images.inspect(engine, reference)
    if shown is None:
        return Named()
    image_id, store = str(shown["Id"]), await store_of(engine)
    if store.containerd and store.says_manifests:
        # All of them: a filter by name knows an image by its familiar name alone, not by ids or whole names.
        listed = await engine.call("list images", engine.api.images.list(manifests="true"))
        entries = [entry for entry in listed if entry["Id"] == image_id]
        if entries and not any(map(unpacked, entries)):
            return Named()
    return Named(image_id, shown_likeness(shown), store.containerd)


def shown_likeness(shown: Mapping[str, Any]) -> bytes | None:
    """Of an image as an engine shows it; None when it says nothing usable of the layers."""
    try:
        diff_ids = diff_ids_of(shown)
    except ImageFormatError:
        return None
    return likeness(shown.get("Architecture"), shown.get("Os"), shown.get("Config"), diff_ids)


def diff_ids_of(shown: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The layers of an image that the engine shows. Raises ImageFormatError."""
    named = (shown.get("RootFS") or {}).get("Layers") or []
    return tuple(digest_bytes(text) for text in named)


def same_id(one: str, other: str) -> bool:
    """Whether two ids are the same; older podman writes them without the name of the hash."""
    return one.removeprefix("sha256:") == other.removeprefix("sha256:")
