"""A command that another program stands around: it gets the signals, and its end is the program's end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from typing import Any, NoReturn

#: What a launcher or a scheduler sends to a workload.
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class WrappedCommand:
    """Signals that come before the command has started reach it once it has."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        for number in PASSED_ON:
            signal.signal(number, self._pass_on)

    def start(self, **how: Any) -> subprocess.Popen[bytes]:
        """Start it; ``how`` is for Popen. Exits as a shell does when there is no such command."""
        try:
            self.child = child = subprocess.Popen(self.argv, **how)
        except OSError as error:
            say(f"cannot run {self.argv[0]}: {error.strerror}")
            sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
        for number in self._early:
            child.send_signal(number)
        return child

    def _pass_on(self, number: int, _frame: object) -> None:
        if self.child is None:
            self._early.append(number)
        else:
            self.child.send_signal(number)


def end_as(status: int) -> NoReturn:
    """End as a command of this status did; below 0 is the signal that ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left its own
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status if status >= 0 else 128 - status)


def replace_by(argv: list[str]) -> NoReturn:
    """Become the command: nothing is to be done around it."""
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - the command of a run, as it was given
    except OSError as error:
        say(f"cannot run {argv[0]}: {error.strerror}")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def say(words: str) -> None:
    """A line for the log of the run."""
    sys.stderr.write(words + "\n")
    sys.stderr.flush()
