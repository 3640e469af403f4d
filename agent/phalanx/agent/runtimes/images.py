"""Images in and out of an engine, believed only once verified.

An engine answers 200 to a load and says in the body that it failed; it can list an image that it cannot
export; a full disk leaves untagged parts. Each of these is an ImageError here, with the node cleaned.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.cgroup import size
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.protocol.image import full_name
from phalanx.protocol.messages import Credentials

#: What a load needs beyond the archive, for the engine's own books and blocks that are not full.
DISK_FACTOR = 1.1

#: A load or export that moves nothing for this long, in seconds, has failed; 40 GB may go on for an hour.
STALL_S = 300.0

#: Bytes that are read and sent at a time.
BLOCK = 1 << 20


async def inspect(engine: EngineClient, reference: str) -> dict[str, Any] | None:
    """What the engine shows of an image, None when it has none. Raises EngineError."""
    asking = engine.api.images.inspect(in_path(reference))
    try:
        shown: dict[str, Any] = await engine.call(f"look at image {reference}", asking)
    except EngineError as error:
        if error.status == 404:
            return None
        raise
    return shown


async def image_id(engine: EngineClient, reference: str) -> str:
    """The id under which the engine has the image, "" when it has none. Raises EngineError."""
    shown = await inspect(engine, reference)
    return str(shown["Id"]) if shown is not None else ""


async def storage(engine: EngineClient) -> tuple[str, float]:
    """Where the engine keeps images, and the bytes free there; without end when it is not on this node."""
    info = await engine.call("ask for its storage", engine.api.system.info())
    root = str(info.get("DockerRootDir") or "")
    return root, await asyncio.to_thread(_free, root) if engine.url.startswith("unix:") else math.inf


def _free(root: str) -> float:
    try:
        about = os.statvfs(root)
    except OSError:
        return math.inf
    return about.f_bavail * about.f_frsize


async def check_disk(engine: EngineClient, bytes_needed: int, reference: str) -> None:
    """Raises ImageError when the engine's disk cannot take that many bytes and its own books on them."""
    needed = int(bytes_needed * DISK_FACTOR)
    root, free = await storage(engine)
    if free < needed:
        raise ImageError(
            f"cannot load image {reference}: it needs {size(needed)} under {root}, of which "
            f"{size(int(free))} are free; remove unused images (docker image prune) or use another node"
        )


def postpone(scope: asyncio.Timeout) -> None:
    """Something has moved: the stall is counted from now."""
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time() + STALL_S)


def in_path(reference: str) -> str:
    """A reference as a part of a path of the engine's API."""
    return quote(reference, safe="/:@")


def split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag; a colon before a slash is a port."""
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        return reference, "latest"
    return repository, tag


async def dangling(engine: EngineClient) -> set[str]:
    """Ids of images without a tag. Raises EngineError."""
    listed = await engine.call("list untagged images", engine.api.images.list(filters={"dangling": ["true"]}))
    return {str(entry["Id"]) for entry in listed}


async def pull(engine: EngineClient, reference: str, shown: Credentials | None = None) -> None:
    """Let the engine get the image from its registry, which is ``shown`` these credentials.

    Raises ImageError in the engine's own words.
    """
    try:
        async with engine.speaking(f"pull {reference}", STALL_S) as scope:
            # Beside credentials the client library wants the registry in words.
            name = reference if shown is None else full_name(reference)
            pulling = engine.api.images.pull(name, auth=_auth(shown), stream=True)
            async for line in pulling:
                postpone(scope)
                if failed := line.get("error"):
                    raise ImageError(f"cannot pull image {reference}: {failed}")
    except EngineError as error:
        raise ImageError(f"cannot pull image {reference}: {error}") from error


def _auth(shown: Credentials | None) -> dict[str, str] | None:
    if shown is None:
        return None
    if shown.token:
        return {"identitytoken": shown.token}
    return {"username": shown.username, "password": shown.password}


async def export(engine: EngineClient, reference: str, archive: Path) -> str:
    """Write a docker-archive of the image; its id. The file is there only if it is whole."""
    fresh = archive.with_name(archive.name + ".part")
    try:
        found = await image_id(engine, reference)
        if not found:
            raise ImageError(f"cannot export image {reference}: this node's engine does not have it")
        await _get(engine, reference, fresh)
        await asyncio.to_thread(check_archive, fresh)
        fresh.replace(archive)
        return found
    except EngineError as error:
        raise ImageError(
            f"cannot export image {reference}: {error}; the engine lists it but does not hold all of it: "
            "remove and pull or build it again"
        ) from error
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ImageError(f"cannot export image {reference} to {archive}: {error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()


async def _get(engine: EngineClient, reference: str, fresh: Path) -> None:
    with fresh.open("wb") as handle:
        async with (
            engine.speaking(f"export {reference}", STALL_S) as scope,
            engine.api.images.export_image(in_path(reference)) as content,
        ):
            async for block in content.iter_chunked(BLOCK):
                await asyncio.to_thread(handle.write, block)
                postpone(scope)


def check_archive(archive: Path) -> None:
    """Walk the members to the end. Raises ValueError or tarfile.TarError when some of it is missing."""
    with tarfile.open(archive) as members:
        names = members.getnames()
    if "manifest.json" not in names and "index.json" not in names:
        raise ValueError("the engine sent no image: its archive has no manifest")


def engine_kind(version: dict[str, Any]) -> str:
    """docker or podman, by the answer to GET /version."""
    parts = [str(part.get("Name", "")).lower() for part in version.get("Components") or []]
    return "podman" if any("podman" in name for name in parts) else "docker"
