"""The parent of a case's processes where no engine is: it outlives the agent, but not the lease.

A process of its own session, started by the agent with the lease's path. It starts steps as lines of JSON
on stdin ask (secrets come this way, never by argv), is the subreaper of all that descends from them, writes
each exit status for whoever follows, and ends everything when the lease is over, when asked to, or when the
agent is gone and nothing is left to run. The kernel kills the steps if it is killed itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phalanx.agent import lease
from phalanx.agent.runtimes import processes
from phalanx.agent.runtimes.spool import LEASE_WORDS, write_status

#: Exit status that says: the lease was over (EX_TEMPFAIL of sysexits.h, as the container's supervisor).
LEASE_OVER = 75

#: How often the lease is read, in seconds.
LOOK_S = 0.5

#: From TERM to KILL when the lease is over: short, the node may be someone else's by now.
LEASE_GRACE_S = 1.0

_KILL_ROUNDS = 50
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def _prctl() -> Callable[[int, int], None]:
    try:
        import ctypes

        libc = ctypes.CDLL(None)
    except (ImportError, OSError):
        # a Python without ctypes: the environment's mark still finds those who leave the tree
        return lambda option, value: None
    return lambda option, value: libc.prctl(option, value, 0, 0, 0)


class Supervisor:
    """Starts, reaps and ends the processes of one case."""

    def __init__(self, lease_file: Path) -> None:
        self._lease = lease.Lease(lease_file)
        self._running: dict[int, Path] = {}
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}
        self._prctl = _prctl()
        self._agent = True
        self._unread = b""
        self._end_grace: float | None = None
        self._unasked = ""

    def run(self) -> int:
        """Serve until there is nothing more to do; the exit status."""
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
        with _Wakeups() as wakeups, selectors.DefaultSelector() as selector:
            selector.register(wakeups, selectors.EVENT_READ)
            selector.register(0, selectors.EVENT_READ)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            while True:
                for key, _ in selector.select(LOOK_S):
                    if key.fd == wakeups:
                        os.read(wakeups, 4096)
                    elif not self._hear():
                        selector.unregister(0)
                self._reap()
                if self._lease.over():
                    self._unasked = LEASE_WORDS
                    self._end(LEASE_GRACE_S)
                    return LEASE_OVER
                if self._end_grace is not None:
                    self._end(self._end_grace)
                    return 0
                if not self._agent and not self._descendants():
                    return 0

    def _hear(self) -> bool:
        heard = os.read(0, 1 << 16)
        if not heard:
            self._agent = False
            return False
        *lines, self._unread = (self._unread + heard).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["do"] == "start":
                self._start(request)
            else:
                self._end_grace = float(request["grace_s"])
        return True

    def _start(self, request: dict[str, Any]) -> None:
        directory = Path(request["directory"])
        try:
            child = self._spawn(request, directory)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            number, words = not_started(error, request["argv"][0], request["cwd"])
            write_status(directory, number, "not_started", words)
            return
        self._running[child.pid] = directory
        self._spawned[child.pid] = child
        fresh = directory / "pid.tmp"
        with contextlib.suppress(OSError):  # a full disk: the step runs all the same
            fresh.write_text(f"{child.pid}\n")
            fresh.replace(directory / "pid")

    def _spawn(self, request: dict[str, Any], directory: Path) -> subprocess.Popen[bytes]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.open(directory / "out", flags, 0o600)
        err = os.open(directory / "err", flags, 0o600)

        def in_child() -> None:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            apply_limits(request["limits"], request["cpus"])

        try:
            return subprocess.Popen(
                request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=request["cwd"],
                env=request["env"],
                start_new_session=True,
                # this process has one thread, so nothing can be held locked over the fork
                preexec_fn=in_child,
            )
        finally:
            os.close(out)
            os.close(err)

    def _reap(self) -> None:
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            directory = self._running.pop(pid, None)
            if directory is None:
                continue
            code = os.waitstatus_to_exitcode(wait_status)
            self._spawned.pop(pid).returncode = code
            number, word = (code, "exited") if code >= 0 else (128 - code, "signaled")
            if self._unasked:  # what a command makes of its TERM is no result then, not even 0
                number, word = number or 143, "stopped"
            with contextlib.suppress(OSError):  # the directory may be gone with its case
                write_status(directory, number, word, self._unasked)

    def _descendants(self) -> list[processes.Process]:
        everyone = processes.table()
        return processes.alive(everyone, processes.descendants(everyone, [os.getpid()]) - {os.getpid()})

    def _end(self, grace_s: float) -> None:
        if grace_s > 0:
            processes.send(self._descendants(), signal.SIGTERM)
            processes.send(self._descendants(), signal.SIGCONT)  # what is paused could not heed it
            deadline = time.monotonic() + grace_s
            while self._descendants() and time.monotonic() < deadline:
                time.sleep(0.05)
                self._reap()
        for _ in range(_KILL_ROUNDS):
            self._reap()
            if not processes.send(self._descendants(), signal.SIGKILL):
                break
            time.sleep(0.05)
        self._reap()


def not_started(error: Exception, program: str, cwd: str) -> tuple[int, str]:
    """Status and words for a command that could not be started: 127 not found, 126 not executable."""
    if isinstance(error, FileNotFoundError):
        if error.filename == cwd:
            return 126, f"working directory not found: {cwd}"
        return 127, f"not found: {program}"
    if isinstance(error, PermissionError):
        return 126, f"not executable: {program}"
    return 126, f"cannot start {program}: {error}"


def apply_limits(limits: list[list[Any]], cpus: list[int]) -> None:
    """Set limits ([name, soft, hard], -1 for none) and CPUs of this process. Raises ValueError, OSError."""
    for name, soft, hard in limits:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))
    if cpus:
        os.sched_setaffinity(0, cpus)


class _Wakeups:
    """A descriptor that becomes readable on SIGCHLD, so that an end is written down at once."""

    def __enter__(self) -> int:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A scheduler's TERM to all processes of a job is for steps and agent, who end in their own time.
        # A handler, not SIG_IGN: an ignored signal would be ignored by every step too.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        return self._reader

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def main(lease_file: str) -> int:
    """The whole program."""
    return Supervisor(Path(lease_file)).run()
