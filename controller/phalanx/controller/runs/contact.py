"""Where the controller of a run is and whether it lives.

The socket is the proof: a connection that is accepted is a live controller, one that is refused is a dead
one, whatever a process id may say (ids are used again, and mean nothing on another machine).
"""

from __future__ import annotations

import errno
import json
import socket
from enum import Enum
from pathlib import Path

from phalanx.controller.runs.directory import RunDirectory

#: A controller that lives accepts at once: its socket has a backlog of its own.
PROBE_S = 1.0


class Contact(Enum):
    """Whether a run's controller answers."""

    ALIVE = "alive"
    DEAD = "dead"
    #: control.json was not written: the controller is starting, or died before it could
    UNKNOWN = "unknown"


def socket_path(run: RunDirectory) -> Path | None:
    """The control socket that control.json names; None when there is no such file yet."""
    try:
        document = json.loads(run.control.read_bytes())
        return Path(document["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def contact(run: RunDirectory) -> Contact:
    """Knock on the control socket."""
    path = socket_path(run)
    if path is None:
        return Contact.UNKNOWN
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            gone = error.errno in (errno.ECONNREFUSED, errno.ENOENT)
            return Contact.DEAD if gone else Contact.UNKNOWN
    return Contact.ALIVE
