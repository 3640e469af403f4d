"""Room in the run directory that is kept for the event log: a full disk must not end a run that could go on.

The file is the measure as well: the disk counts as roomy again once it can be made anew with as much beside
it. Logs wait for that on their nodes.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Bytes kept: some ten thousand events.
RESERVE_BYTES = 4 * 1024 * 1024


class Reserve:
    """The file that keeps the room. All methods block."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size
        self.held = False

    def hold(self) -> bool:
        """Take the room if it is there; whether it is held now."""
        if not self.held:
            self.held = _filled(self._path, self._size)
        return self.held

    def spend(self) -> bool:
        """Give the room to whoever writes next; False when there was none to give."""
        had, self.held = self.held, False
        self._path.unlink(missing_ok=True)
        return had

    def has_room(self) -> bool:
        """Whether the reserve is held and as much again is free: then logs may be written."""
        if not self.hold():
            return False
        probe = self._path.with_name(self._path.name + ".probe")
        try:
            return _filled(probe, self._size)
        finally:
            probe.unlink(missing_ok=True)


def _filled(path: Path, size: int) -> bool:
    """Make a file of so many bytes that are really there; nothing is left when they are not."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        os.posix_fallocate(fd, 0, size)
        os.fsync(fd)
    except OSError:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(fd)
    return True
