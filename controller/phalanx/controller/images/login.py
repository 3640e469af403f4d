"""The login node's own engine as a source of images, where it has one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

#: How long the login node's engine may take to answer at all, in seconds; a hung one counts as none.
ENGINE_S = 10.0


class ImageSourceError(Exception):
    """The image cannot be had; the message says what was looked at."""


@asynccontextmanager
async def login_engine() -> AsyncIterator[Any]:
    """The login node's engine, or None when there is none that answers."""
    import aiodocker

    url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        docker = aiodocker.Docker(url=url)
    except ValueError:
        yield None
        return
    try:
        async with asyncio.timeout(ENGINE_S):
            await docker.version()
    except (aiodocker.DockerError, OSError):  # a TimeoutError is an OSError
        await docker.close()
        yield None
        return
    try:
        yield docker
    finally:
        await docker.close()


async def save_from_login(reference: str, archive: Path) -> bool:
    """Save the image of the login node's engine; False when it has no engine or not this image.

    Raises ImageSourceError when the engine lists the image and cannot give it.
    """
    import aiodocker

    async with login_engine() as docker:
        if docker is None:
            return False
        try:
            async with asyncio.timeout(ENGINE_S):
                await docker.images.inspect(reference)
        except (aiodocker.DockerError, OSError):
            return False
        try:
            with archive.open("wb") as file:
                async with docker.images.export_image(reference) as stream:
                    async for data in stream.iter_chunked(1 << 20):
                        await asyncio.to_thread(file.write, data)
        except (aiodocker.DockerError, OSError) as error:
            raise ImageSourceError(
                f"cannot save {reference} from the login node's engine: {error}"
            ) from error
    return True
