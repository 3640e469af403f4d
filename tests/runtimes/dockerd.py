"""A private dockerd in a network namespace of its own, with nothing of it outside one directory."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Where the containerd store of a data root has its blobs.
CONTENT = "containerd/daemon/io.containerd.content.v1.content"


def missing() -> str:
    """Why no engine can be started here; "" when one can."""
    if os.getuid() != 0:
        return "needs root to start a dockerd"
    parts = [name for name in ("dockerd", "unshare", "busybox", "ip") if shutil.which(name) is None]
    return f"not installed: {', '.join(parts)}" if parts else ""


def features() -> dict[str, bool]:
    """What is switched on of an engine: its containerd store by PHALANX_TEST_CONTAINERD_STORE (make
    test-engines)."""
    return {"containerd-snapshotter": True} if os.environ.get("PHALANX_TEST_CONTAINERD_STORE") else {}


def until(happened: Callable[[], bool], within_s: float, what: str) -> float:
    """Look until it happened; how long that took, in seconds."""
    start = time.monotonic()
    while not happened():
        if time.monotonic() - start > within_s:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - start


def load(url: str, archive: Path) -> None:
    """Load an archive into an engine by Docker's own means."""
    subprocess.run(["docker", "-H", url, "load", "-q", "-i", str(archive)], check=True, capture_output=True)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def answering(socket: Path) -> bool:
    """Whether an engine answers there."""
    try:
        _asked(socket, "/_ping")
    except (OSError, http.client.HTTPException):
        return False
    return True


def _asked(socket: Path, path: str, method: str = "GET") -> bytes:
    connection = _Connection(socket)
    try:
        connection.request(method, path)
        return connection.getresponse().read()
    finally:
        connection.close()


class Dockerd:
    """One engine; ``data`` may be a directory on another filesystem."""

    def __init__(self, directory: Path, data: Path | None = None) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.data = data or directory / "data"
        self.pid = 0

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self.directory / "docker.pid").unlink(missing_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        flags = "--iptables=false --ip6tables=false --ip-masq=false --userland-proxy=false --bridge=none"
        paths = {
            "data-root": self.data,
            "exec-root": self.directory / "exec",
            "pidfile": self.directory / "docker.pid",
            "config-file": self.directory / "daemon.json",
        }
        (self.directory / "daemon.json").write_text(json.dumps({"features": features()}))
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "unshare",
                    "-n",
                    "sh",
                    "-c",
                    'ip link set lo up; exec dockerd "$@"',
                    "dockerd",
                    *flags.split(),
                ]
                + [f"--{name}={path}" for name, path in paths.items()]
                + [f"--host={self.url}", "--cgroup-parent=/phalanx-test"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        until(self.answers, 60, f"dockerd answers; see {self.directory / 'log'}")

    def answers(self) -> bool:
        return answering(self.socket)

    def get(self, path: str, method: str = "GET") -> bytes:
        return _asked(self.socket, path, method)

    def containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.get("/v1.41/containers/json?all=1"))
        return found

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(f"/v1.41/containers/{name}/json"))
        return found

    def load(self, archive: Path) -> None:
        load(self.url, archive)

    def incoming(self) -> list[str]:
        """What a load has brought so far: the graph-driver store's spool, or blobs on their way into the
        containerd store."""
        places = ("tmp/docker-import-*/*", f"{CONTENT}/ingest/*")
        return [path.name for place in places for path in self.data.glob(place)]

    def forget_layers(self) -> None:
        """Take away what the images that it lists are made of."""
        for layer in (*self.data.glob("overlay2/*/diff"), self.data / CONTENT / "blobs"):
            shutil.rmtree(layer, ignore_errors=True)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to dockerd alone: its containerd and the containers go on."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def crash(self) -> None:
        """SIGKILL to dockerd, with which its containerd dies; it can be started again.

        Where nobody reaps orphans, a new dockerd would take the dead containerd for a living one by its pid.
        """
        self.kill()
        (self.directory / "exec" / "containerd" / "containerd.pid").unlink()

    def stop(self) -> None:
        """End it with all that it started."""
        if self._process.poll() is None:
            for left in self.containers() if self.answers() else []:
                self.get(f"/v1.41/containers/{left['Id']}?force=1", "DELETE")
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        mark = str(self.directory).encode()
        for entry in Path("/proc").glob("[0-9]*"):
            # only what was started by this engine names its directory in its arguments
            try:
                ours = mark in (entry / "cmdline").read_bytes()
                if ours and (entry / "comm").read_text().startswith(("containerd", "dockerd", "runc")):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([path for path in mounts if path.startswith(str(self.directory))]):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
