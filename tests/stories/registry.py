"""Debian's registry on the login side, behind a password."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stories.cluster import until

PROGRAM = "docker-registry"
USER, PASSWORD = "me", "open sesame"
#: As htpasswd(1) -B keeps it; five rounds, so that it costs nothing.
HASHED = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"


@contextmanager
def registry(address: str, folder: Path) -> Iterator[str]:
    """A registry at a port of the address; where it is, as in the name of an image."""
    program = shutil.which(PROGRAM)
    if program is None:
        pytest.skip(f"no {PROGRAM}")
    with socket.socket() as probe:
        probe.bind((address, 0))
        place = f"{address}:{probe.getsockname()[1]}"
    (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n")
    document = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
        "http": {"addr": place},
    }
    (folder / "registry.json").write_text(json.dumps(document))  # which is YAML as well
    process = subprocess.Popen(
        [program, "serve", str(folder / "registry.json")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _answers(place), 20.0, f"the registry at {place} answers")
        yield place
    finally:
        process.kill()
        process.wait()


def _answers(place: str) -> bool:
    host, _, port = place.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
