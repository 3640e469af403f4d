"""The workload's own barrier at the node's agent: HTTP over the unix socket named by PHALANX_SOCKET.

The same call from a shell:
    curl --unix-socket "$PHALANX_SOCKET" -X POST "http://phalanx/barrier/NAME?rank=$RANK"
"""

import http.client
import os
import socket
from urllib.parse import quote

MEET_S = 600.0


class AgentConnection(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path):
        super().__init__("phalanx", timeout=MEET_S)
        self._path = path

    def connect(self):
        """Connect to the socket's path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def barrier(name, rank, path=""):
    """Wait until all ranks are here. False when there is no agent. Raises RuntimeError when it failed."""
    path = path or os.environ.get("PHALANX_SOCKET", "")
    if not path:
        return False
    connection = AgentConnection(path)
    try:
        connection.request("POST", f"/barrier/{quote(name, safe='')}?rank={rank}", body=b"")
        answer = connection.getresponse()
        words = answer.read(65536).decode("utf-8", "replace").strip()
    except OSError as error:
        raise RuntimeError(f"cannot meet at barrier {name}: {path}: {error}") from error
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise RuntimeError(f"barrier {name} failed: {words}")
    return True
