"""How far a download is, in lines at a bounded rate: a step's output is a log, and logs are kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: Seconds between two lines.
EVERY_S = 2.0
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: float) -> str:
    """Bytes for people, by thousands."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def du_size(count: int) -> str:
    """Bytes as ``du -h`` has them, rounded up: 4.0K, 20M."""
    value, unit = float(count), ""
    for name in "KMGTP":
        if value < 1024:
            break
        value, unit = value / 1024, name
    if not unit:
        return str(count)
    tenths = -(-value * 10 // 1)
    return f"{tenths / 10:.1f}{unit}" if tenths < 100 else f"{-(-value // 1):.0f}{unit}"


@dataclass(slots=True)
class Progress:
    """Bytes and files that came, of how many. ``say`` gets a line, ``clock`` seconds."""

    total: int
    files: int
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    files_done: int = 0
    _began: float = field(init=False)
    _told: float = field(init=False)
    _told_done: int = 0

    def __post_init__(self) -> None:
        self._began = self._told = self.clock()

    def came(self, count: int) -> None:
        """So many bytes more."""
        self.done += count
        now = self.clock()
        if now - self._told < EVERY_S:
            return
        rate = (self.done - self._told_done) / (now - self._told)
        self._told, self._told_done = now, self.done
        files = f"{self.files_done} of {self.files} files"
        self.say(f"{size(self.done)} of {size(self.total)}, {files}, {size(rate)}/s")

    def file_came(self) -> None:
        """One file more is whole."""
        self.files_done += 1

    def seconds(self) -> float:
        """Since the beginning."""
        return self.clock() - self._began
