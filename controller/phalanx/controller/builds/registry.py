"""Logging in to a registry for one build: what that leaves is in a private folder that goes with the build.

``docker login`` would write the password into the user's own config file, base64 and all. Here it gets a
config of its own, with everything that the user's has besides, so that other registries, contexts and
plug-ins stay as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..logs.clean import clean_text
from .argv import login_argv
from .client import BuildError, Client
from .credentials import Login
from .naming import on_hub

CONFIG = "config.json"


@asynccontextmanager
async def logged_in(client: Client, registry: str, login: Login | None) -> AsyncIterator[Client]:
    """A client that the registry knows, with ``login``; without one the client as it is.

    Raises BuildError when the registry does not accept it: before anything is built.
    """
    if login is None:
        yield client
        return
    folder = Path(tempfile.mkdtemp(prefix="phalanx-login-", dir=private_root(client.environ)))
    try:
        host = login_host(registry)
        _prepare(folder, client.environ, host)
        known = replace(client, environ={**client.environ, "DOCKER_CONFIG": str(folder)})
        said = await known.ask(login_argv(login.username, host), given=login.password)
        if said.status:
            words = clean_text(said.err.replace(login.password, "••••")) or "no reason is given"
            raise BuildError(f"cannot log in to {registry} as {login.username} ({login.origin}): {words}")
        yield known
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def private_root(environ: Mapping[str, str]) -> str | None:
    """Where secrets may lie in files: in memory where that is possible, else the usual place for files."""
    for folder in (environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):  # noqa: S108 - mkdtemp makes it private
        if folder and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def login_host(registry: str) -> str:
    """What is logged in to: the host of a registry, "" for Docker Hub."""
    return "" if on_hub(registry) else registry.partition("/")[0]


def _prepare(folder: Path, environ: Mapping[str, str], host: str) -> None:
    """The user's config but for who keeps this registry's password: the new file does, not a helper."""
    users = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker"))
    config: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        found = json.loads((users / CONFIG).read_bytes())
        config = found if isinstance(found, dict) else {}
    with suppress(OSError):
        for path in users.iterdir():
            if path.name != CONFIG:
                (folder / path.name).symlink_to(path.absolute())
    helpers = config.get("credHelpers")
    server = host or "https://index.docker.io/v1/"
    config["credHelpers"] = {**(helpers if isinstance(helpers, dict) else {}), server: ""}
    file = folder / CONFIG
    file.touch(mode=0o600)
    file.write_text(json.dumps(config))
