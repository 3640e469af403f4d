"""Where the image comes from, made into an archive that can be read on the login node.

Best first: the archive that the user named, the login node's engine, a node whose engine has it. The id of
an image is the digest of its configuration, which an archive shows without any engine.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Bytes of manifest.json that are read of an archive.
MANIFEST_BYTES = 4 * 1024 * 1024
#: How long the login node's engine may take to answer at all, in seconds; a hung one counts as none.
ENGINE_S = 10.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: What the tar, gzip, bzip2 and xz readers raise for bytes that are none of theirs.
_UNREADABLE = (OSError, tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError)


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
    except _UNREADABLE as error:
        raise ImageSourceError(f"cannot read the image archive {path}: {error}") from error
    chosen = [entry for entry in entries if reference in entry.tags]
    if not chosen and len(entries) == 1:
        chosen = entries
    if not chosen:
        held = sorted(tag for entry in entries for tag in entry.tags)
        raise ImageSourceError(f"{path} does not hold {reference}; it holds {', '.join(held) or 'no names'}")
    return Archive(path, f"sha256:{chosen[0].config}", chosen[0].tags)


@dataclass(frozen=True, slots=True)
class _Entry:
    config: str
    tags: tuple[str, ...]


def _manifest(tar: tarfile.TarFile, path: Path) -> list[_Entry]:
    document = _json_member(tar, "manifest.json")
    if document is None and _json_member(tar, "index.json") is not None:
        raise ImageSourceError(
            f"{path} is an OCI layout and no docker archive, which engines may not load; convert it with "
            f"`skopeo copy oci-archive:{path} docker-archive:image.tar:NAME:TAG`"
        )
    entries = [_entry(entry) for entry in document] if isinstance(document, list) else []
    if not entries or None in entries:
        raise ImageSourceError(
            f"{path} is not a docker archive (no usable manifest.json); make it with `docker save`"
        )
    return [entry for entry in entries if entry is not None]


def _json_member(tar: tarfile.TarFile, name: str) -> Any:
    """A small JSON file of an archive, None when it is not there or is something else. Links are not it."""
    try:
        member = tar.getmember(name)
    except KeyError:
        return None
    file = tar.extractfile(member) if member.isreg() and member.size <= MANIFEST_BYTES else None
    try:
        return json.loads(file.read()) if file is not None else None
    except (ValueError, RecursionError):
        return None


def _entry(entry: Any) -> _Entry | None:
    """An image of manifest.json; None for what is not one. The id is the digest in its Config's name."""
    if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
        return None
    digest = entry["Config"].rsplit("/", 1)[-1].removesuffix(".json")
    tags = entry.get("RepoTags") or []
    if not _DIGEST.fullmatch(digest) or not isinstance(tags, list):
        return None
    return _Entry(digest, tuple(tag for tag in tags if isinstance(tag, str)))


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


async def save_from_login(reference: str, archive: Path) -> Archive | None:
    """Save the image of the login node's engine; None when it has no engine or not this image.

    Raises ImageSourceError when the engine lists the image and cannot give it.
    """
    import aiodocker

    async with login_engine() as docker:
        if docker is None:
            return None
        try:
            async with asyncio.timeout(ENGINE_S):
                image_id = str((await docker.images.inspect(reference))["Id"])
        except (aiodocker.DockerError, OSError):
            return None
        try:
            with archive.open("wb") as file:
                async with docker.images.export_image(reference) as stream:
                    async for data in stream.iter_chunked(1 << 20):
                        await asyncio.to_thread(file.write, data)
        except (aiodocker.DockerError, OSError) as error:
            raise ImageSourceError(
                f"cannot save {reference} from the login node's engine: {error}"
            ) from error
    return Archive(archive, image_id, (reference,))
