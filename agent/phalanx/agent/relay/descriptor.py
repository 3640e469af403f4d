"""Files of the cache by descriptor: one is closed when nobody uses it any more.

A thread that still reads thus never meets a number that means another file by now.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path


class Descriptor:
    """An open file; it closes with the last reference to it."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)

    def lock(self, how: int) -> bool:
        """flock(2) without waiting; whether it was had."""
        try:
            fcntl.flock(self.number, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give the lock back, whoever still reads."""
        fcntl.flock(self.number, fcntl.LOCK_UN)

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` still names this file."""
        mine = os.fstat(self.number)
        try:
            there = path.lstat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def open_own(path: Path, flags: int) -> Descriptor:
    """Open a regular file of ours, no link. Raises OSError."""
    file = Descriptor(os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    about = os.fstat(file.number)
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a file of ours")
    return file


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """pwrite(2) until all of it is written. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def rename_anew(path: Path, target: Path) -> bool:
    """Rename a file, but onto no other: False when there is one. Raises OSError."""
    try:
        os.link(path, target)
    except FileExistsError:
        return False
    except OSError:  # a filesystem without second names
        path.rename(target)
    else:
        path.unlink()
    return True
