"""Starting the controller of a run: a process of its own, in a session of its own.

It outlives this terminal. Secrets go in over its standard input, as one line, and are in no file, argv or
environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.records import last_state

#: The controller imports, binds its socket and writes control.json: below a second, longer on a cold NFS.
START_S = 60.0
_PAUSE_S = 0.02
_TAIL_BYTES = 4096

DAEMON = "phalanx.controller.daemon"


class LaunchError(Exception):
    """The controller did not start; the message has its last words."""


def start_controller(run: RunDirectory, secrets: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the controller process of a run that has its plan.json."""
    with run.controller_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", DAEMON, str(run.path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    line = json.dumps({"secrets": secrets}).encode() + b"\n"
    # A controller that died before it read is told by the wait for control.json.
    with suppress(BrokenPipeError):
        _feed(process, line)
    return process


def _feed(process: subprocess.Popen[bytes], line: bytes) -> None:
    if process.stdin is None:
        raise LaunchError("cannot start the controller: it has no standard input")
    with process.stdin as stdin:
        stdin.write(line)


def wait_until_reachable(
    run: RunDirectory, process: subprocess.Popen[bytes], deadline_s: float = START_S
) -> None:
    """Wait for control.json. Raises LaunchError when the process dies first or takes too long."""
    end = time.monotonic() + deadline_s
    while not run.control.exists():
        status = process.poll()
        if status is not None:
            if last_state(run.events):
                return
            raise LaunchError(
                f"cannot start the controller: it ended with status {status}\n{_tail(run.controller_log)}"
            )
        if time.monotonic() > end:
            raise LaunchError(
                f"cannot reach the controller: no {run.control.name} after {deadline_s:.0f} s; "
                f"see {run.controller_log}"
            )
        time.sleep(_PAUSE_S)


def _tail(path: Path) -> str:
    """The last lines of the controller's log, traceback frames left to the file."""
    try:
        text = path.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        return f"(no {path})"
    lines = [line for line in text.splitlines() if line.strip()]
    shown = [line for line in lines if not line.startswith((" ", "Traceback"))][-5:]
    return "\n".join(f"  {line}" for line in shown) + f"\n  all of it: {path}"
