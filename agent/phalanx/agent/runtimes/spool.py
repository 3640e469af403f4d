"""The files of one process of a step, the only thing that its wrapper and the agent share.

``out`` and ``err`` are appended to, ``pid`` is made by rename once it runs, ``status`` is made by rename once
it is over: ``<number> <word> [words]``, with exited, signaled, stopped or not_started. Standard library only:
the supervisor of processes imports this file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

OUT, ERR, PID, STATUS, ENV = "out", "err", "pid", "status", "env"

#: Made once a step that was to be stopped has no process left; why a command was not even tried; and made by
#: a wrapper that will start nobody any more.
GONE, REFUSED, ENDED = "gone", "refused", "ended"

#: Why a step is over that nobody stopped.
LEASE_WORDS = "its lease was over: the agent heard nothing from the controller for too long"

#: The status is written over blanks that are on the disk already: a full disk must not hide an end.
STATUS_BYTES = 256


def prepare(directory: Path) -> None:
    """Make the spool directory with empty ``out`` and ``err``. Raises OSError."""
    for closed in (directory.parent, directory):
        # one after the other: parents=True would give those it makes the mode of the umask
        closed.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (PID, STATUS, ENV, GONE, REFUSED, ENDED):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()
    for name in (OUT, ERR):
        os.close(_open(directory / name, os.O_APPEND))
    descriptor = _open(directory / f"{STATUS}.tmp", os.O_TRUNC)
    try:
        os.write(descriptor, b" " * STATUS_BYTES)
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)


def write_status(directory: Path, number: int, word: str, words: str = "") -> None:
    """Say how the process ended, as the last thing that is done to its directory. Raises OSError."""
    fresh = directory / f"{STATUS}.tmp"
    text = f"{number} {word} {words}".encode()[: STATUS_BYTES - 1]
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.ljust(STATUS_BYTES - 1) + b"\n")
    finally:
        os.close(descriptor)
    fresh.replace(directory / STATUS)
