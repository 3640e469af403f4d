"""Ends of the log files that a workload wrote beside its output, newest first.

Servers of a model write to files in its folder or in ``/run_logs``, and of these the end tells why they are
gone. A workload that means harm writes there too: no link is followed, nothing but regular files is opened,
and entries, depth, files, bytes and seconds are bounded.
"""

from __future__ import annotations

import heapq
import os
import stat
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from phalanx.agent.beneath import folder_beneath, open_beneath

#: Where scripts of multi-node models put the logs of their servers.
RUN_LOGS = "/run_logs"
SUFFIXES = (".log", ".out", ".err")
#: Of each file.
TAIL_BYTES, TAIL_LINES = 4096, 30
MOST_FILES, MOST_ENTRIES, MOST_DEPTH = 12, 20_000, 6
#: A shared filesystem that stalls must not hold up the teardown.
_MOST_S = 5.0


@dataclass(frozen=True, slots=True)
class LogFolder:
    """``below`` (relative, "" for itself) of a ``root`` that can be trusted; ``title`` is for people."""

    title: str
    root: Path
    below: str = ""


@dataclass(frozen=True, slots=True, order=True)
class _File:
    written: float
    name: str
    size: int


def log_ends(folder: LogFolder) -> str:
    """The text, "" for no such files or folder. Raises OSError when the folder cannot be read."""
    walk = _Walk(folder)
    newest = heapq.nlargest(MOST_FILES, walk.files())
    now = time.time()
    texts = []
    for file in newest:
        path = f"{folder.below}/{file.name}" if folder.below else file.name
        age = max(0.0, now - file.written)
        about = f"{file.size} bytes, written {age:.0f} s ago"
        texts.append(f"-- {_shown(file.name)} ({about})\n{_end(folder.root, path)}\n")
    if walk.count > len(newest):
        texts.append(f"... and {walk.count - len(newest)} more log files\n")
    if walk.cut_short:
        texts.append(f"... {walk.cut_short}\n")
    return "".join(texts)


class _Walk:
    """The log files of a folder, those near its top first."""

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self._until = time.monotonic() + _MOST_S
        self._entries = 0
        self.count = 0
        self.cut_short = ""

    def files(self) -> Iterator[_File]:
        """Each file; hidden folders, which are caches and histories, are passed over."""
        waiting = deque([""])
        while waiting and not self.cut_short:
            inner = waiting.popleft()
            try:
                descriptor = folder_beneath(
                    self._folder.root, "/".join(filter(None, (self._folder.below, inner)))
                )
            except OSError as error:
                if inner or isinstance(error, FileNotFoundError):
                    continue  # gone again, a link by now, or closed to this user
                raise
            try:
                yield from self._of_one(descriptor, inner, waiting)
            finally:
                os.close(descriptor)

    def _of_one(self, descriptor: int, inner: str, waiting: deque[str]) -> Iterator[_File]:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if self._is_enough():
                    return
                name = f"{inner}/{entry.name}" if inner else entry.name
                try:
                    about = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if stat.S_ISDIR(about.st_mode):
                    if not entry.name.startswith(".") and name.count("/") < MOST_DEPTH:
                        waiting.append(name)
                elif stat.S_ISREG(about.st_mode) and about.st_size and entry.name.endswith(SUFFIXES):
                    self.count += 1
                    yield _File(about.st_mtime, name, about.st_size)

    def _is_enough(self) -> bool:
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            self.cut_short = f"only the first {MOST_ENTRIES} entries were looked at"
        elif time.monotonic() > self._until:
            self.cut_short = f"looking was ended after {_MOST_S:g} s"
        return bool(self.cut_short)


def _end(root: Path, name: str) -> str:
    try:
        with os.fdopen(open_beneath(root, name), "rb") as handle:
            return last_lines(handle)
    except OSError as error:
        return f"(not readable: {error.strerror or error})"


def last_lines(file: BinaryIO) -> str:
    """The end of a file, at most TAIL_LINES and TAIL_BYTES, whatever is in it. Raises OSError."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
    lines = file.read(TAIL_BYTES).decode("utf-8", "backslashreplace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])


def printable(text: str) -> str:
    """The text with a question mark for what cannot be shown."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _shown(name: str) -> str:
    raw = name.encode("utf-8", "backslashreplace").decode()[:300]
    return printable(raw)
