"""Large files of a run on the login node's disk: written piece by piece, with room left for others."""

from __future__ import annotations

import os
from pathlib import Path

#: Bytes that are read and written at a time.
PIECE_BYTES = 1 << 20
#: Pieces between two looks at the disk.
LOOK_PIECES = 64
#: Bytes that are left free on that disk: others live on it too.
RESERVE_BYTES = 256 << 20


def check_room(folder: Path, words: str) -> None:
    """Raises OSError with these words when too few bytes are free there."""
    about = os.statvfs(folder)
    if about.f_bavail * about.f_frsize < RESERVE_BYTES:
        raise OSError(words)
