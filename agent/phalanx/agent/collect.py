"""Which files a case gives back: its results folder, and what matches wanted names in its workspace.

Links are not followed: a workload must not make the agent read a file of the node for it.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CollectLimits:
    """What a case may give back from one node: files, bytes of one, bytes of all."""

    files: int = 2000
    file_bytes: int = 512 * 1024 * 1024
    total_bytes: int = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to offer under a relative name."""

    path: Path
    name: str
    size: int


@dataclass(slots=True)
class Found:
    """What was found, and what was left out and why."""

    files: list[FoundFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    total: int = 0

    def add(self, path: Path, name: str, size: int, limits: CollectLimits) -> None:
        """Take a file if the limits allow it."""
        if size > limits.file_bytes:
            self.left_out.append(f"{name}: {size} bytes, {limits.file_bytes} allowed")
        elif len(self.files) >= limits.files or self.total + size > limits.total_bytes:
            self.left_out.append(f"{name}: over {limits.files} files or {limits.total_bytes} bytes in all")
        else:
            self.files.append(FoundFile(path, name, size))
            self.total += size


def find_results(results: Path, work: Path, patterns: tuple[str, ...], limits: CollectLimits) -> Found:
    """All regular files of ``results``, and those of ``work`` whose name or path matches a pattern."""
    found = Found()
    taken: set[str] = set()
    for folder, wanted in ((results, None), (work, patterns)):
        if wanted is not None and not wanted:
            continue
        for path, name, size in _regular_files(folder):
            if (wanted is None or _matches(name, wanted)) and name not in taken:
                taken.add(name)
                found.add(path, name, size, limits)
    return found


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    base = name.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(base, one) or fnmatch.fnmatchcase(name, one) for one in patterns)


def _regular_files(folder: Path) -> Iterator[tuple[Path, str, int]]:
    for root, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for base in sorted(names):
            path = Path(root, base)
            try:
                stat = path.lstat()
            except OSError:
                continue
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not path.is_symlink() and _sendable(name):
                yield path, name, stat.st_size


def _sendable(name: str) -> bool:
    return len(name) <= 4096 and name.isprintable()
