"""Lines that a spawner and its agents print, read from files as they grow.

Spawned processes write to files and never to a pipe of the controller: a pipe would break with the
controller, and the write after that would kill the agents. So the files are followed here, by a poll that
slows down while nothing is said. Each source may say only so much: an agent that prints for ever must not
fill the event log; its file has the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from .base import Words

#: Longer lines are cut, in bytes.
LINE_LIMIT = 4096
#: Bytes read at once; what is beyond is read in the next turn.
READ_LIMIT = 256 * 1024
#: Pause between looks at the files, in seconds: while lines come, and while none do.
QUICK_S, SLOW_S = 0.1, 1.0
#: Lines kept per node to explain a failure, and lines passed on before the file alone has them.
KEPT_LINES, PASSED_LINES = 40, 200


class WordsFile:
    """A growing file; each complete line is handed to ``heard``, in order, without its newline.

    What the file held before, from an earlier spawn, was said then.
    """

    def __init__(self, path: Path, heard: Callable[[str], None]) -> None:
        self.path = path
        self._heard = heard
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def read(self) -> bool:
        """Hand on what came since the last call. False when nothing did."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(READ_LIMIT)
        except OSError:
            return False
        if not data:
            return False
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._rest) > LINE_LIMIT:
            self._say(self._rest)
            self._rest = b""
        return True

    def finish(self) -> None:
        """Hand on all that is left, a last line without newline included."""
        while self.read():
            pass
        if self._rest:
            self._say(self._rest)
            self._rest = b""

    def _say(self, line: bytes) -> None:
        text = line[:LINE_LIMIT].rstrip(b"\r").decode("utf-8", "replace")
        if text.strip():
            self._heard(text)


class Sayings:
    """What was said of each node ("" for the spawner's words of none): the last lines, and a fair share
    passed on."""

    def __init__(self, words: Words, where: Path) -> None:
        self._words = words
        self._where = where
        self._kept: dict[str, deque[str]] = {}
        self._passed: dict[str, int] = {}

    def hear(self, node: str, line: str) -> None:
        """Keep a line and pass it on, while its node has not said too much."""
        self._kept.setdefault(node, deque(maxlen=KEPT_LINES)).append(line)
        passed = self._passed[node] = self._passed.get(node, 0) + 1
        if passed <= PASSED_LINES:
            self._words(node, line)
        elif passed == PASSED_LINES + 1:
            self._words(node, f"(more lines follow; they are in {self._where})")

    def of(self, node: str) -> tuple[str, ...]:
        """The last lines of a node, oldest first."""
        return tuple(self._kept.get(node, ()))


async def follow(files: Sequence[WordsFile]) -> None:
    """Read the files until cancelled."""
    pause = QUICK_S
    while True:
        news = [file.read() for file in files]
        pause = QUICK_S if any(news) else min(pause * 1.5, SLOW_S)
        await asyncio.sleep(pause)
