"""Processes that outlive the command that started them, known by pid *and* start time.

A pid alone may have been given to someone else by the time it is killed; the start time (field 22 of
/proc/PID/stat, proc(5)) cannot. Everything is started through `setsid --fork`, so that it belongs to the
machine's init, hears no Ctrl-C and leaves no zombie with a test that runs for hours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError

# Joins the cgroups given before "--", writes "pid start" into the file $1, and becomes the command.
_LAUNCH = """
record=$1; shift
while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift
ident() { read -r stat < /proc/self/stat; set -- $stat; echo "$1 ${22}"; }
ident > "$record.new"; mv "$record.new" "$record"
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    start: int

    def alive(self) -> bool:
        """True while it runs; a zombie is dead."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        # The name (field 2) may hold spaces; fields count from after its closing parenthesis.
        fields = stat.rpartition(")")[2].split()
        return fields[0] != "Z" and int(fields[19]) == self.start

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def end(self, grace: float = 3.0) -> None:
        """SIGTERM, and SIGKILL after the grace in seconds. Returns once it is gone, or after 5 s more."""
        self.kill(signal.SIGTERM)
        if not wait_until(lambda: not self.alive(), grace):
            self.kill()
            wait_until(lambda: not self.alive(), 5.0)

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now; a dead one if there is none."""
        try:
            return cls(pid, int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]))
        except OSError:
            return cls(pid, -1)

    @classmethod
    def recorded(cls, record: Path) -> Process | None:
        """The process a record names, dead or alive; None where there is no readable record."""
        try:
            pid, start = record.read_text().split()
            return cls(int(pid), int(start))
        except (OSError, ValueError):
            return None


def wait_until(true: Callable[[], bool], seconds: float, pause: float = 0.02) -> bool:
    """Ask again and again until it holds; False when the seconds have passed."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def launch(
    argv: Sequence[str],
    *,
    record: Path,
    log: Path,
    cgroups: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
) -> None:
    """Start argv detached, in the cgroups, its output in the log, its identity in the record."""
    record.unlink(missing_ok=True)
    command = [
        "setsid",
        "--fork",
        "sh",
        "-c",
        _LAUNCH,
        "launch",
        str(record),
        *map(str, cgroups),
        "--",
        *argv,
    ]
    with log.open("ab") as out:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, check=True, timeout=10
        )
    # setsid returns before its child has done anything.
    if not wait_until(record.exists, 10.0, pause=0.005):
        raise LabError(f"cannot start {argv[0]}: {tail(log)}; see {log}")


def call(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 20.0, doing: str = "") -> str:
    """Output of a short command of the machine. Raises LabError with its words when it fails or hangs."""
    what = doing or f"run {argv[0]}"
    try:
        done = subprocess.run(
            argv, input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise LabError(
            f"cannot {what}: {argv[0]} is not installed; see tests/lab/README.md for the packages"
        ) from None
    except subprocess.TimeoutExpired:
        raise LabError(
            f"cannot {what}: no answer within {timeout:.0f} s; look at `python -m tests.lab status`"
        ) from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-600:]
        raise LabError(f"cannot {what}: exit {done.returncode}: {words}; the command was: {' '.join(argv)}")
    return done.stdout


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return ""
