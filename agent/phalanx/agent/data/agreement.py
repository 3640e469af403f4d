"""All nodes of a case take a data set from the same provider, or the case ends with words on who does not.

A row names one provider. Nodes of which one works on a copy of its own and another on what the store has
today would give a number that stands for neither.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping

from phalanx.agent.data.request import DataError, Request

#: How long the first node may take to say what it can use, in seconds: its probes have their own deadlines.
WAIT_S = 300.0


def agree(request: Request, provider: str, reasons: Mapping[str, str]) -> None:
    """Tell the other nodes, or see that the first one takes the same. Raises DataError."""
    if request.nodes < 2 or not request.socket:
        return
    key = f"/kv/phalanx.data.{request.number}"
    if request.rank == 0:
        _call(request, "PUT", key, f"{provider} {request.node}".encode())
        return
    said = _call(request, "GET", f"{key}?wait={WAIT_S:g}", None)
    first, _, node = said.partition(" ")
    if first != provider:
        why = reasons.get(first, "")
        raise DataError(
            f"{request.cannot}: {node} takes it from {first}, and here "
            f"{provider} is the first that can be used{f' ({first}: {why})' if why else ''}; all nodes must "
            "take it from the same provider"
        )


def _call(request: Request, method: str, target: str, body: bytes | None) -> str:
    connection = _Unix(request.socket)
    try:
        connection.request(method, target, body)
        answer = connection.getresponse()
        content = answer.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{request.cannot}: the nodes cannot be asked what they use: {error}") from error
    finally:
        connection.close()
    if answer.status == 404:
        raise DataError(
            f"{request.cannot}: the first node did not say within "
            f"{WAIT_S:g} s from which provider it takes it"
        )
    if answer.status >= 400:
        raise DataError(f"{request.cannot}: the nodes cannot agree: {content[:300]}")
    return content


class _Unix(http.client.HTTPConnection):
    """HTTP over the case's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("phalanx", timeout=WAIT_S + 30.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
