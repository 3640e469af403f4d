"""The spool directory of one process of a step, and following it to its end.

The files (``runtimes.spool``) are the same for every runtime. Nothing has to be asked of an engine to know
that a step is over, so a hung engine hides no result and a dead one loses none.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from phalanx.agent.runtimes.base import Ended, RuntimeUnavailable
from phalanx.agent.runtimes.spool import PID, STATUS
from phalanx.protocol.messages import Cause

#: Set in every process of a step, so that those who left its process group are found.
STEP_MARK = "PHALANX_STEP_ID"

#: How often a step's end is looked for. A stat of a file: 20 a second cost nothing that can be measured.
POLL_S = 0.05

#: How long processes may take to go after KILL before they are called stuck (a device, a dead file server).
KILL_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Status:
    """The content of a ``status`` file."""

    number: int
    cause: Cause
    words: str


_CAUSES = {
    "exited": Cause.EXITED,
    "signaled": Cause.SIGNALED,
    "stopped": Cause.STOPPED,
    "not_started": Cause.NOT_STARTED,
}


def mark() -> str:
    """A fresh value for STEP_MARK."""
    return secrets.token_hex(8)


def read_status(directory: Path) -> Status | None:
    """How the process ended; None while it has not."""
    try:
        text = (directory / STATUS).read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    number, _, rest = text.strip().partition(" ")
    word, _, words = rest.strip().partition(" ")
    if not number.isdecimal() or word not in _CAUSES:
        return Status(255, Cause.SIGNALED, f"its status file says {text.strip()[:80]!r}")
    return Status(int(number) & 0xFF, _CAUSES[word], words.strip())


class Held(Protocol):
    """What a runtime knows of a process it started."""

    def alive(self) -> bool:
        """False once it is certain that no status will come any more. Cheap: asked 20 times a second."""

    async def end(self, grace_s: float) -> bool:
        """TERM, and KILL after ``grace_s`` seconds, to every process of the step; True once all are gone."""

    async def explain(self, status: Status | None) -> Status:
        """The verdict, with what the runtime knows (out of memory, an ended lease, a lost engine)."""


class Followed:
    """A process of a step, followed through the files of its directory.

    ``since``: time.monotonic() when it was asked for.
    """

    def __init__(self, directory: Path, held: Held, name: str, since: float) -> None:
        self.directory = directory
        self._held = held
        self._name = name
        self._since = since
        self._stopped = False
        self._ended: Ended | None = None
        self._deciding = asyncio.Lock()

    async def wait(self) -> Ended:
        """How it ended, once it has."""
        await until(self._over)
        async with self._deciding:
            if self._ended is None:
                self._ended = await self._decide()
        return self._ended

    def _over(self) -> bool:
        if self._ended is not None or (self.directory / STATUS).exists():
            return True
        return not self._held.alive()

    async def _decide(self) -> Ended:
        seconds = time.monotonic() - self._since
        status = await self._held.explain(read_status(self.directory))
        cause = status.cause
        if self._stopped and cause in (Cause.EXITED, Cause.SIGNALED):
            cause = Cause.STOPPED
        return Ended(status.number, cause, seconds, status.words)

    async def stop(self, grace_s: float) -> None:
        """TERM, then KILL after ``grace_s`` seconds, to all processes of the step."""
        if self._ended is None and read_status(self.directory) is None:
            self._stopped = True
        if not await self._held.end(grace_s):
            raise RuntimeUnavailable(
                f"cannot end {self._name}: its processes are still there {KILL_WAIT_S:g} s after SIGKILL; "
                "look for a stuck device or file server in dmesg"
            )
        # whoever watched the processes has a moment to write the status
        await until(self._over, 1.0)


class NeverStarted:
    """A process that could not be started: it has ended already."""

    def __init__(self, directory: Path, status: int, cause: Cause, detail: str) -> None:
        self.directory = directory
        self._ended = Ended(status, cause, 0.0, detail)

    async def wait(self) -> Ended:
        """Why it was not started."""
        return self._ended

    async def stop(self, grace_s: float) -> None:
        """Nothing runs."""


async def until(happened: Callable[[], bool], within_s: float = math.inf) -> bool:
    """Look again and again, for what no one announces (a file, a process); False when it took too long."""
    deadline = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def started(directory: Path, alive: Callable[[], bool], within_s: float) -> bool:
    """Wait until the wrapper says that the process runs or is over; False if it does neither."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if (directory / PID).exists() or (directory / STATUS).exists():
            return True
        if not alive():
            return (directory / STATUS).exists()
        await asyncio.sleep(0.005)
    return False


def shell_file(argv: tuple[str, ...], environment: dict[str, str]) -> str:
    """A file of shell words that sets the environment and makes ``argv`` the positional parameters.

    Names that no shell takes as variables (or keeps for itself) are set by env(1) in front of the command.
    """
    plain = {name: value for name, value in environment.items() if settable(name)}
    rest = [f"{name}={value}" for name, value in environment.items() if name not in plain]
    lines = [f"export {name}={shlex.quote(value)}" for name, value in plain.items()]
    command = ["env", *rest, *argv] if rest else list(argv)
    if rest:
        lines.append(f"phx_real={shlex.quote(argv[0])}")
    lines.append("set -- " + " ".join(shlex.quote(word) for word in command))
    return "\n".join(lines) + "\n"


#: Variables that some shell refuses to set or that change how it reads the rest of the file.
_KEPT_BY_SHELLS = frozenset(
    {
        *("BASHOPTS", "BASH_VERSINFO", "ENV", "EUID", "FUNCNAME", "GROUPS", "IFS", "LINENO", "OPTIND"),
        *("PPID", "PS4", "SHELLOPTS", "UID", "_"),
    }
)


def settable(name: str) -> bool:
    """True for names that a shell takes as variables."""
    return name.isidentifier() and name.isascii() and name not in _KEPT_BY_SHELLS
