"""Starting the controller of a run: a process of its own, in a session of its own.

It outlives this terminal. It is forked and not started anew: plan, secrets and modules are in memory already,
and a second interpreter that imports them all again would double what a start costs the login node. Secrets
are in no file, argv, environment or pipe on the way.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from phalanx.controller.plan.model import Plan
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.records import last_state

#: The controller imports, binds its socket and writes control.json: below a second, longer on a cold NFS.
START_S = 60.0
_PAUSE_S = 0.02
_TAIL_BYTES = 4096


class LaunchError(Exception):
    """The controller did not start; the message has its last words."""


class Controller:
    """The process that was started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status (negative for a signal), None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def terminate(self) -> None:
        """Tell it to end the run."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)


def conduct(run_dir: Path, plan: Plan, secrets: dict[str, str]) -> int:
    """What the new process does; its exit status."""
    # Imported there: the client needs none of what only a controller does.
    from phalanx.controller.daemon import run

    return run(run_dir, lambda: (plan, secrets))


def start_controller(run: RunDirectory, plan: Plan, secrets: dict[str, str]) -> Controller:
    """Start the controller process of a run that has its directory. To be called before there are threads.

    Raises OSError.
    """
    with run.controller_log.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by who started us
                stream.flush()
        # What is there is not garbage: collections must not touch, and so copy, every page of it.
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            _become_controller(log.fileno(), run, plan, secrets)
    return Controller(pid)


def _become_controller(log: int, run: RunDirectory, plan: Plan, secrets: dict[str, str]) -> NoReturn:
    """Leave the client's terminal and files behind, and never come back into its code."""
    status = 1
    try:
        os.setsid()
        _keep_only(log)
        status = conduct(run.path, plan, secrets)
    except BaseException:  # noqa: BLE001 - the last boundary: above it is the client's code, which is not ours
        traceback.print_exc()
    finally:
        os._exit(status)


def _keep_only(log: int) -> None:
    """Have nothing open but the log, for all that is said; what this replaces may have been closed."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, one of them gone already
        if int(name) > 2:
            with suppress(OSError):
                os.close(int(name))
    # By lines: nothing is left to be written when the process ends.
    sys.stdout = sys.stderr = open(  # noqa: SIM115 - as long as the process
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def wait_until_reachable(run: RunDirectory, process: Controller, deadline_s: float = START_S) -> None:
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
