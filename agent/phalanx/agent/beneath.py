"""Opening what is below a folder that a workload can write to, without ever following a link of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath


def folder_beneath(folder: Path, name: str) -> int:
    """A descriptor of a folder of ``folder`` ("" for itself), reached without a link. Raises OSError."""
    here = _step_down(folder, PurePosixPath(name).parts)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def open_beneath(folder: Path, name: str) -> int:
    """A descriptor of a regular file of ``folder``, reached without a link. Raises OSError."""
    *above, last = PurePosixPath(name).parts
    here = _step_down(folder, above)
    try:
        # O_NONBLOCK: a fifo would be waited for
        fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return fd


def _step_down(folder: Path, parts: Iterable[str]) -> int:
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here
