"""Reading a log file that may still grow, in blocks of whole lines.

Blocks, not lines: what shows logs works on tens of thousands of lines at a time with operations on bytes, so
a gigabyte is shown in seconds. A line that has no end yet is held back until its end, or the stream's, comes.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Read and shown at once. What is made of it stays in the processor's cache: 1 MiB takes 2.5 times the CPU.
BLOCK = 1 << 18
#: A line that goes on past this is given out in parts: no line may fill memory.
HOLD = 64 * 1024
_STEP = 64 * 1024


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of a file from ``offset`` on; ``begins`` is False when they go on with a line begun before."""

    offset: int
    data: bytes
    begins: bool


class GrowingFile:
    """One log file, read forward from ``offset``."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self._held = b""
        self._inside = False

    def blocks(self, size: int | None = None, final: bool = False) -> Iterator[Block]:
        """What is there between the last call and ``size`` (None: the file's end), in whole lines.

        ``final``: the stream is over, give out an unfinished last line as well. A missing file is empty.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset + len(self._held))
            while True:
                room = BLOCK if size is None else min(BLOCK, size - self.offset - len(self._held))
                fresh = file.read(room) if room > 0 else b""
                if not fresh:
                    break
                yield from self._take(self._held + fresh, hold=HOLD)
        if final and self._held:
            yield from self._take(self._held, hold=0)

    def _take(self, data: bytes, hold: int) -> Iterator[Block]:
        end = data.rfind(b"\n") + 1
        if len(data) - end > hold:
            end = len(data)
        self._held = data[end:]
        if not end:
            return
        block = Block(self.offset, data[:end], begins=not self._inside)
        self._inside = not block.data.endswith(b"\n")
        self.offset += end
        yield block


def tail_offset(path: Path, lines: int, size: int | None = None) -> int:
    """Where the last ``lines`` lines of a file begin; a last line without an end counts."""
    if lines <= 0:
        return _size(path) if size is None else size
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        position = file.seek(0, os.SEEK_END) if size is None else size
        end, wanted = position, lines
        while position > 0:
            start = max(0, position - _STEP)
            file.seek(start)
            chunk = file.read(position - start)
            if position == end and chunk.endswith(b"\n"):
                wanted += 1
            count = chunk.count(b"\n")
            if count >= wanted:
                return start + _nth_from_end(chunk, wanted) + 1
            wanted -= count
            position = start
    return 0


def _nth_from_end(chunk: bytes, count: int) -> int:
    place = len(chunk)
    for _ in range(count):
        place = chunk.rfind(b"\n", 0, place)
    return place


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@dataclass(frozen=True, slots=True)
class Times:
    """When parts of a file came: bytes from ``offsets[i]`` on at ``moments[i]`` (seconds, wall clock)."""

    offsets: tuple[int, ...] = ()
    moments: tuple[float, ...] = ()

    def since(self, moment: float, size: int) -> int:
        """The first byte that came at ``moment`` or later; ``size`` when none did."""
        for offset, at in zip(self.offsets, self.moments, strict=True):
            if at >= moment:
                return offset
        return size if self.offsets else 0

    def at(self, offset: int) -> float | None:
        """When the byte at ``offset`` came; None when nothing is known."""
        place = bisect_left(self.offsets, offset + 1) - 1
        if place < 0:
            return self.moments[0] if self.moments else None
        return self.moments[place]


def read_times(path: Path) -> Times:
    """The times beside a log file (``<file>.times``: offset and seconds a line); bad lines are left out."""
    offsets: list[int] = []
    moments: list[float] = []
    try:
        text = path.with_name(path.name + ".times").read_text("ascii", "replace")
    except OSError:
        return Times()
    for line in text.splitlines():
        offset, _, moment = line.partition(" ")
        try:
            pair = int(offset), float(moment)
        except ValueError:
            continue
        offsets.append(pair[0])
        moments.append(pair[1])
    return Times(tuple(offsets), tuple(moments))


def line_start(path: Path, offset: int) -> int:
    """The beginning of the first line that starts at ``offset`` or later."""
    if offset <= 0:
        return 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        file.seek(offset - 1)
        position = offset - 1
        while chunk := file.read(_STEP):
            found = chunk.find(b"\n")
            if found >= 0:
                return position + found + 1
            position += len(chunk)
    return position
