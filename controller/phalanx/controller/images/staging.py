"""Large files of a run on the login node's disk: written piece by piece, with room left for others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

#: Bytes that are read and written at a time.
PIECE_BYTES = 1 << 20
#: Pieces between two looks at the disk.
LOOK_PIECES = 64
#: Bytes that are left free on that disk: others live on it too.
RESERVE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Stage:
    """A folder for what a run needs for a while. ``called_off``: nobody waits for it any more."""

    folder: Path
    called_off: threading.Event = field(default_factory=threading.Event)

    def check(self, words: str) -> None:
        """Raises OSError when there is no more use in writing here, or no room (with these words)."""
        if self.called_off.is_set():
            raise OSError("called off")
        check_room(self.folder, words)


def write(pieces: Iterable[bytes], path: Path, check: Callable[[], None]) -> None:
    """A file of these pieces; ``check`` looks now and then whether to go on, and raises OSError."""
    with path.open("wb") as file:
        for number, piece in enumerate(pieces):
            if number % LOOK_PIECES == 0:
                check()
            file.write(piece)


def check_room(folder: Path, words: str) -> None:
    """Raises OSError with these words when too few bytes are free there."""
    about = os.statvfs(folder)
    if about.f_bavail * about.f_frsize < RESERVE_BYTES:
        raise OSError(words)
