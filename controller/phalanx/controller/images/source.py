"""Where the image comes from, made into an archive that can be read on the login node.

Best first: the archive that the user named, the login node's engine, a node whose engine has it. The id of
an image is the digest of its configuration, which an archive shows without any engine.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Bytes of manifest.json that are read of an archive.
MANIFEST_BYTES = 4 * 1024 * 1024


class ImageSourceError(Exception):
    """The image cannot be had; the message says what was looked at."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A docker-archive on the login node."""

    path: Path
    image_id: str
    tags: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return self.path.stat().st_size


def inspect_archive(path: Path, reference: str) -> Archive:
    """What a docker-archive holds under ``reference``, or its only image. Blocks.

    Raises ImageSourceError naming the file and what it does hold.
    """
    try:
        with tarfile.open(path, "r:*") as tar:
            entries = _manifest(tar, path)
    except (OSError, tarfile.TarError) as error:
        raise ImageSourceError(f"cannot read the image archive {path}: {error}") from error
    chosen = [entry for entry in entries if reference in (entry.get("RepoTags") or ())]
    if not chosen and len(entries) == 1:
        chosen = entries
    if not chosen:
        held = sorted(tag for entry in entries for tag in entry.get("RepoTags") or ())
        raise ImageSourceError(f"{path} does not hold {reference}; it holds {', '.join(held) or 'no names'}")
    config = str(chosen[0]["Config"])
    digest = config.rsplit("/", 1)[-1].removesuffix(".json")
    return Archive(path, f"sha256:{digest}", tuple(chosen[0].get("RepoTags") or ()))


def _manifest(tar: tarfile.TarFile, path: Path) -> list[dict[str, Any]]:
    try:
        member = tar.getmember("manifest.json")
        file = tar.extractfile(member)
        entries = json.loads(file.read(MANIFEST_BYTES)) if file else None
    except (KeyError, ValueError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "Config" in e for e in entries):
        raise ImageSourceError(
            f"{path} is not a docker archive (no manifest.json); make it with `docker save`"
        )
    return entries


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
        await docker.version()
    except (aiodocker.DockerError, OSError):
        await docker.close()
        yield None
        return
    try:
        yield docker
    finally:
        await docker.close()


async def save_from_login(reference: str, archive: Path) -> Archive | None:
    """Save the image of the login node's engine; None when it has no engine or not this image.

    Raises ImageSourceError when the engine lists the image and cannot give it.
    """
    import aiodocker

    async with login_engine() as docker:
        if docker is None:
            return None
        try:
            image_id = str((await docker.images.inspect(reference))["Id"])
        except aiodocker.DockerError:
            return None
        try:
            with archive.open("wb") as file:
                async with docker.images.export_image(reference) as stream:
                    async for data in stream.iter_chunked(1 << 20):
                        file.write(data)
        except (aiodocker.DockerError, OSError) as error:
            raise ImageSourceError(
                f"cannot save {reference} from the login node's engine: {error}"
            ) from error
    return Archive(archive, image_id, (reference,))
