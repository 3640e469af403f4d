"""The login node's own engine as a source of images, where it has one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.protocol.image import CONTAINERD_STORE, ImageFormatError, digest_bytes, likeness

from .staging import LOOK_PIECES, PIECE_BYTES, check_room

#: How long the login node's engine may take to answer at all, in seconds; a hung one counts as none.
ENGINE_S = 10.0


class ImageSourceError(Exception):
    """The image cannot be had; the message says what was looked at."""


def _engine_errors() -> tuple[type[Exception], ...]:
    """What the client raises for a URL that it cannot use, an engine that goes away, or a wrong answer."""
    import aiodocker
    import aiohttp

    # A TimeoutError is an OSError.
    return (aiodocker.DockerError, aiohttp.ClientError, OSError, ValueError, TypeError, KeyError)


@asynccontextmanager
async def login_engine() -> AsyncIterator[Any]:
    """The login node's engine, or None when there is none that answers."""
    import aiodocker

    url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        docker = aiodocker.Docker(url=url)
    except _engine_errors():
        yield None
        return
    try:
        async with asyncio.timeout(ENGINE_S):
            await docker.version()
    except _engine_errors():
        await docker.close()
        yield None
        return
    try:
        yield docker
    finally:
        await docker.close()


@dataclass(frozen=True, slots=True)
class LoginImage:
    """An image of the login node's engine, as messages.ImageStatus tells of one of a node."""

    image_id: str
    likeness: bytes
    by_manifest: bool


async def on_login(reference: str) -> LoginImage | None:
    """What the login node's engine has under the name, None when it has no engine or nothing of that name."""
    async with login_engine() as docker:
        if docker is None:
            return None
        try:
            async with asyncio.timeout(ENGINE_S):
                shown = await docker.images.inspect(reference)
                info = await docker.system.info()
            layers = [digest_bytes(text) for text in shown["RootFS"]["Layers"]]
            mark = likeness(shown["Architecture"], shown["Os"], shown["Config"], layers)
            by_manifest = CONTAINERD_STORE in [list(row) for row in info["DriverStatus"] or ()]
            return LoginImage(str(shown["Id"]), mark, by_manifest)
        except ImageFormatError:
            return None
        except _engine_errors():
            return None


async def save_from_login(reference: str, archive: Path) -> None:
    """Save an image that the login node's engine lists. Raises ImageSourceError when it cannot give it."""
    async with login_engine() as docker:
        try:
            if docker is None:
                raise OSError("it answers no more")
            await _export(docker, reference, archive)
        except _engine_errors() as error:
            await asyncio.to_thread(archive.unlink, missing_ok=True)
            raise ImageSourceError(
                f"cannot save {reference} from the login node's engine: {error}"
            ) from error


async def _export(docker: Any, reference: str, archive: Path) -> None:
    """Write what the engine saves; a disk that others use is not filled to its end. Raises OSError."""
    words = f"no room for it in {archive.parent}; make room there"
    number = 0
    with archive.open("wb") as file:
        async with docker.images.export_image(reference) as stream:
            async for data in stream.iter_chunked(PIECE_BYTES):
                if number % LOOK_PIECES == 0:
                    check_room(archive.parent, words)
                number += 1
                await asyncio.to_thread(file.write, data)
