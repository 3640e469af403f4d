"""A node's engine, spoken to from outside: its socket is reached through /proc/PID/root, without entering the
node.

Only what a test needs to look at is here; tests that exercise phalanx's own use of an engine do it on the
node.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.lab import node
from tests.lab.errors import LabError
from tests.lab.topology import Topology


@dataclass(frozen=True, slots=True)
class Container:
    id: str
    name: str
    image: str
    state: str
    labels: dict[str, str]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def engine_socket(lab: Topology, name: str) -> Path:
    """A path by which this machine reaches the node's engine. It holds until the node's next boot."""
    return Path(f"/proc/{node.pid(lab, name)}/root/run/docker.sock")


def answers(lab: Topology, name: str, timeout: float = 2.0) -> bool:
    """True if the node's engine answers a ping within the timeout in seconds."""
    try:
        return _get(lab, name, "/_ping", timeout) is not None
    except LabError:
        return False


def containers(lab: Topology, name: str, label: str = "") -> list[Container]:
    """Containers of the node, dead ones too, with that label ("key" or "key=value") if one is given."""
    wanted = quote(json.dumps({"label": [label]} if label else {}))
    found = json.loads(_get(lab, name, f"/containers/json?all=1&filters={wanted}"))
    return [
        Container(
            id=entry["Id"],
            name=entry["Names"][0].lstrip("/") if entry["Names"] else "",
            image=entry["Image"],
            state=entry["State"],
            labels=dict(entry["Labels"] or {}),
        )
        for entry in found
    ]


def image_id(lab: Topology, name: str, reference: str) -> str | None:
    """The id (sha256:...) of an image on the node; None if its engine has no such image."""
    text = _get(lab, name, f"/images/{quote(reference, safe='')}/json", missing_ok=True)
    return None if text is None else str(json.loads(text)["Id"])


def layers(lab: Topology, name: str, reference: str) -> list[str]:
    """The digests of an image's layers and what containers are told: what engines of all stores show alike.

    [] when the node's engine has no such image.
    """
    text = _get(lab, name, f"/images/{quote(reference, safe='')}/json", missing_ok=True)
    if text is None:
        return []
    shown = json.loads(text)
    told = {key: value for key, value in shown["Config"].items() if key in ("Cmd", "Env", "User") and value}
    return [*shown["RootFS"]["Layers"], json.dumps(told, sort_keys=True)]


def load(lab: Topology, name: str, archive: Path, timeout: float = 120.0) -> str:
    """`docker load` of a tar that need not be visible on the node. Returns what docker says it loaded."""
    command = node.enter(lab, name, ["docker", "load", "--quiet"])
    try:
        with archive.open("rb") as handle:
            done = subprocess.run(
                command, stdin=handle, capture_output=True, text=True, timeout=timeout, check=False
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(
            f"cannot load {archive} on {name}: {error}; see {lab.log}/{name}.docker.log"
        ) from error
    if done.returncode:
        raise LabError(
            f"cannot load {archive} on {name}: {done.stderr.strip()}; see {lab.log}/{name}.docker.log"
        )
    return done.stdout.strip().removeprefix("Loaded image: ").removeprefix("Loaded image ID: ")


def _get(lab: Topology, name: str, target: str, timeout: float = 20.0, *, missing_ok: bool = False) -> Any:
    connection = _Connection(engine_socket(lab, name), timeout)
    try:
        connection.request("GET", f"/v1.41{target}" if target != "/_ping" else target)
        response = connection.getresponse()
        body = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise LabError(
            f"cannot ask the engine of {name}: {error}; see {lab.log}/{name}.docker.log"
        ) from error
    finally:
        connection.close()
    if response.status == 404 and missing_ok:
        return None
    if response.status >= 300:
        raise LabError(
            f"cannot ask the engine of {name} for {target}: {response.status} {body.strip()}; check the name"
        )
    return body
