"""What peers need on the login node: a server of one tar, and a registry that holds the image.

Each runs in a cgroup of its own, since its CPU is part of what the method costs.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.crew import BenchmarkError
from benchmarks.lab_runs import Group

TAR_PIPE = Path(__file__).with_name("tar_pipe.py")
REGISTRY = "docker-registry"
#: A server that does not answer after this is not coming, in seconds.
PATIENCE_S = 20.0
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True, slots=True)
class Server:
    """A process that listens on an address of the login node."""

    address: str
    port: int
    _group: Group

    @property
    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        return self._group.used_s


@contextlib.contextmanager
def tar_server(address: str, archive: Path) -> Iterator[Server]:
    """Sends the tar to everyone who connects."""
    port = free_port(address)
    argv = [sys.executable, str(TAR_PIPE), "serve", address, str(port), str(archive)]
    with _running(argv, address, port) as server:
        yield server


@contextlib.contextmanager
def registry(address: str, archive: Path, folder: Path, name: str) -> Iterator[tuple[Server, str]]:
    """Debian's registry with the image in it, and the reference to pull."""
    program = shutil.which(REGISTRY)
    if program is None:
        raise BenchmarkError(f"cannot measure a pull: {REGISTRY} is missing; apt-get install {REGISTRY}")
    port, storage = free_port(address), folder / "registry"
    config = folder / "registry.json"  # which is YAML as well
    document = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"{address}:{port}"},
    }
    config.write_text(json.dumps(document))
    try:
        with _running([program, "serve", str(config)], address, port) as server:
            _push(address, port, archive, name)
            yield server, f"{address}:{port}/{name}:1"
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def free_port(address: str) -> int:
    """A port of the address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(argv: Sequence[str], address: str, port: int) -> Iterator[Server]:
    group = Group()
    process = subprocess.Popen(
        [*group.enter, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(process, address, port)
        yield Server(address, port, group)
    finally:
        process.kill()
        process.wait()
        group.end()


def _wait_for(process: subprocess.Popen[bytes], address: str, port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1.0):
            return
        time.sleep(0.02)
    raise BenchmarkError(f"nothing listens on {address}:{port}; what should was {process.args!r}")


def _push(address: str, port: int, archive: Path, name: str) -> None:
    """Put the image there as docker push does: config, gzipped layers, manifest (Registry HTTP API V2)."""
    connection = http.client.HTTPConnection(address, port, timeout=60.0)
    with contextlib.closing(connection), tarfile.open(archive) as tar:
        index = json.loads(_member(tar, "manifest.json"))[0]
        config = _upload(connection, name, _member(tar, index["Config"]), _CONFIG)
        # Random bytes do not compress at any level; the first is the fastest.
        layers = [
            _upload(connection, name, gzip.compress(_member(tar, layer), 1, mtime=0), _LAYER)
            for layer in index["Layers"]
        ]
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
        body = json.dumps(manifest).encode()
        _ask(connection, "PUT", f"/v2/{name}/manifests/1", body, {"Content-Type": _MANIFEST})


def _upload(connection: http.client.HTTPConnection, name: str, content: bytes, media: str) -> dict[str, Any]:
    """Upload a blob in one piece; its descriptor."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    begun = _ask(connection, "POST", f"/v2/{name}/blobs/uploads/", b"", {})
    place = begun.partition("://")[2].partition("/")[2] if "://" in begun else begun.lstrip("/")
    mark = "&" if "?" in place else "?"
    octets = {"Content-Type": "application/octet-stream"}
    _ask(connection, "PUT", f"/{place}{mark}digest={digest}", content, octets)
    return {"mediaType": media, "size": len(content), "digest": digest}


def _ask(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes, headers: dict[str, str]
) -> str:
    """Where the answer says to go on. Raises BenchmarkError when the registry refuses."""
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    words = answer.read()
    if answer.status >= 300:
        raise BenchmarkError(f"the registry answers {answer.status} to {method} {target}: {words[:400]!r}")
    return answer.headers.get("Location", "")


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    handle = tar.extractfile(name)
    if handle is None:
        raise BenchmarkError(f"{name} of {tar.name!r} is not a file")
    return handle.read()
