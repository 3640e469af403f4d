"""Give a part of a file back to the disk without changing its length: fallocate(2) with PUNCH_HOLE."""

from __future__ import annotations

import ctypes
import os

#: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE of linux/falloc.h.
_MODE = 0x01 | 0x02


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Whether the filesystem took the bytes back. False where it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fallocate = libc.fallocate64
    except AttributeError:
        fallocate = libc.fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    result: int = fallocate(fd, _MODE, offset, length)
    return result == 0 and os.fstat(fd).st_size >= offset
