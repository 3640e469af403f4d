"""Which files a case gives back: its results folder, and what matches wanted names in its workspace.

Links are not followed: a workload must not make the agent read a file of the node for it. It may put one in
place of a file after it was found, so ``beneath.open_beneath`` looks at every part of the path again.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.protocol.messages import DATA_FOLDER

#: Words about left out files that are kept; of the others only the count.
_MOST_LEFT_OUT = 1000


@dataclass(frozen=True, slots=True)
class CollectLimits:
    """What a case may give back from one node: files, bytes of one, bytes of all."""

    files: int = 2000
    file_bytes: int = 512 * 1024 * 1024
    total_bytes: int = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to offer: ``name`` is relative to ``folder``."""

    folder: Path
    name: str
    size: int


@dataclass(slots=True)
class Found:
    """What was found, and what was left out and why."""

    files: list[FoundFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    left_out_count: int = 0
    total: int = 0

    def add(self, file: FoundFile, limits: CollectLimits) -> None:
        """Take a file if the limits allow it."""
        if file.size > limits.file_bytes:
            self.leave_out(f"{file.name}: {file.size} bytes, {limits.file_bytes} allowed")
        elif len(self.files) >= limits.files or self.total + file.size > limits.total_bytes:
            self.leave_out(f"{file.name}: over {limits.files} files or {limits.total_bytes} bytes in all")
        else:
            self.files.append(file)
            self.total += file.size

    def leave_out(self, words: str) -> None:
        """A file is not given back."""
        self.left_out_count += 1
        if len(self.left_out) < _MOST_LEFT_OUT:
            self.left_out.append(words)


def find_results(
    results: Path,
    work: Path,
    patterns: tuple[str, ...],
    limits: CollectLimits,
    inner: str = "",
    fresh: tuple[str, int] = ("", 0),
) -> Found:
    """All regular files of ``results``, and those of ``work`` whose name or path matches a pattern.

    ``fresh``: a pattern whose files count only when they were changed at or after a time (st_ctime_ns: unlike
    a time of writing, no copy carries it along).
    ``inner``: the folder of ``work`` in which steps run. Its files are named as steps see them, and come
    before those beside it.
    """
    found = Found()
    taken: set[str] = set()
    inside = work / inner
    for folder, wanted, without in (
        (results, None, None),
        (inside, patterns, None),
        (work, patterns, inside),
    ):
        if (wanted is not None and not wanted) or folder == without:
            continue
        for name, about in _entries(folder, without):
            if name in taken or (wanted is not None and not _matches(name, wanted)):
                continue
            taken.add(name)
            if fresh[0] and _matches(name, fresh[:1]) and about.st_ctime_ns < fresh[1]:
                found.leave_out(f"{name}: it was there before the script ran")
                continue
            if refusal := _refusal(name, about):
                found.leave_out(f"{name}: {refusal}")
            else:
                found.add(FoundFile(folder, name, about.st_size), limits)
    return found


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    base = name.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(base, one) or fnmatch.fnmatchcase(name, one) for one in patterns)


def _entries(folder: Path, without: Path | None) -> Iterator[tuple[str, os.stat_result]]:
    passed_over = {without, folder / DATA_FOLDER}
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if Path(root, name) not in passed_over)
        for base in sorted(names):
            path = Path(root, base)
            try:
                yield path.relative_to(folder).as_posix(), path.lstat()
            except OSError:
                continue  # gone again


def _refusal(name: str, about: os.stat_result) -> str:
    if stat.S_ISLNK(about.st_mode):
        return "links are not followed; copy the file"
    if not stat.S_ISREG(about.st_mode):
        return "not a regular file"
    if len(name) > 4096 or not name.isprintable():
        return "its name cannot be shown"
    return ""
