"""The client that docs/workload-api.md shows, so that what people copy is what is tested."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Phalanx(http.client.HTTPConnection):
    """HTTP over the workload socket."""

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        super().__init__("phalanx", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def call(
    path: Path, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = Phalanx(path)
    try:
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def document(answer: tuple[int, bytes]) -> tuple[int, dict[str, Any]]:
    """The same with its JSON read."""
    return answer[0], json.loads(answer[1])
