"""What the user of the login node may show to a registry: as ``docker login`` has kept it there.

Docker's config file (docs.docker.com/reference/cli/docker/login) names a helper program for a registry, for
all of them, or holds the credentials itself. They go to the one node that pulls, and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phalanx.protocol.image import full_name
from phalanx.protocol.messages import Credentials

from .login import ImageSourceError

#: How the config file calls Docker Hub.
HUB = "https://index.docker.io/v1/"
#: How long a helper may take, in seconds.
HELPER_S = 10.0
#: Largest config file, and longest answer of a helper, in bytes.
MOST_BYTES = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Whoever has a token instead of a password is called so by helpers.
_NO_USER = "<token>"


def registry_of(reference: str) -> str:
    """The registry of an image, as docker's config file calls it."""
    host, _, _ = full_name(reference).partition("/")
    return HUB if host == "docker.io" else host


async def credentials(environ: Mapping[str, str], reference: str) -> Credentials | None:
    """What the user has for the image's registry, None when nothing. Raises ImageSourceError."""
    folder = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "/"), ".docker"))
    path, registry = Path(folder, "config.json"), registry_of(reference)
    config = await asyncio.to_thread(_read, path)
    helper = _of(config, "credHelpers").get(registry) or config.get("credsStore")
    if helper:
        return await _ask(str(helper), registry, path)
    kept = _of(config, "auths").get(registry)
    return _kept(kept, registry, path) if isinstance(kept, dict) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MOST_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ImageSourceError(f"cannot read {path}: {error}") from error
    return found if isinstance(found, dict) else {}


def _of(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _kept(kept: Mapping[str, Any], registry: str, path: Path) -> Credentials | None:
    if token := kept.get("identitytoken"):
        return Credentials("", "", str(token))
    try:
        user, _, password = (
            base64.b64decode(str(kept.get("auth") or ""), validate=True).decode().partition(":")
        )
    except (binascii.Error, UnicodeDecodeError):
        words = f"cannot read auths.{registry}.auth of {path}: it is not base64 of user:password"
        raise ImageSourceError(words) from None
    return Credentials(user, password) if user else None


async def _ask(helper: str, registry: str, path: Path) -> Credentials | None:
    """The protocol of docker-credential-helpers: the registry to its input, JSON from its output."""
    if not _HELPER.fullmatch(helper):
        raise ImageSourceError(
            f"cannot use the credential helper {helper!r} of {path}: that is no program's name"
        )
    program = f"docker-credential-{helper}"
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise ImageSourceError(f"cannot run {program}, which {path} names: {error.strerror}") from error
    try:
        async with asyncio.timeout(HELPER_S):
            told, _ = await process.communicate(registry.encode())
    except TimeoutError:
        raise ImageSourceError(f"cannot ask {program} for {registry}: no answer in {HELPER_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _told(told, program) if process.returncode == 0 else None  # it has nothing for this registry


def _told(told: bytes, program: str) -> Credentials | None:
    try:
        answer = json.loads(told[:MOST_BYTES])
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise ImageSourceError(f"cannot read the answer of {program}") from error
    return Credentials("", "", secret) if user == _NO_USER else Credentials(user, secret)
