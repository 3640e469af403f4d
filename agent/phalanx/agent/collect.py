"""Which files a case gives back: its results folder, and what matches wanted names in its workspace.

Links are not followed: a workload must not make the agent read a file of the node for it. It may put one in
place of a file after it was found, so ``beneath.open_beneath`` looks at every part of the path again.

What makes the rows of a case is taken first: nothing else that a workload leaves crowds its results out.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.agent.data.record import FOLDER
from phalanx.protocol.messages import DATA_FOLDER, SCRIPT_RESULTS

#: Words about left out files that are kept; of the others only the count.
_MOST_LEFT_OUT = 1000
#: Folders of what our own steps leave for the rows of a case.
_OURS = (f"{FOLDER}/", f"{SCRIPT_RESULTS}/")
#: A folder to look through, patterns of what is wanted of it (None: all), a folder within to pass over.
_Place = tuple[Path, tuple[str, ...] | None, Path | None]


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

    def add(self, file: FoundFile, limits: CollectLimits) -> bool:
        """Take a file if the limits allow it. Returns whether they do."""
        if file.size > limits.file_bytes:
            self.leave_out(f"{file.name}: {file.size} bytes, {limits.file_bytes} allowed")
        elif len(self.files) >= limits.files or self.total + file.size > limits.total_bytes:
            self.leave_out(f"{file.name}: over {limits.files} files or {limits.total_bytes} bytes in all")
        else:
            self.files.append(file)
            self.total += file.size
            return True
        return False

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
    before those beside it. Of files of one name the first that can be given back counts.
    """
    found = Found()
    taken: set[str] = set()
    inside = work / inner
    places: tuple[_Place, ...] = ((results, None, None), (inside, patterns, None), (work, patterns, inside))
    for folder, name in _in_order(places, fresh[0]):
        if name not in taken and _take(found, folder, name, limits, fresh):
            taken.add(name)
    return found


def _in_order(places: tuple[_Place, ...], result: str) -> Iterator[tuple[Path, str]]:
    """The wanted files of all places: first those that rows are made of; ``result``: a pattern of them."""
    rest: list[tuple[Path, str]] = []
    for folder, wanted, without in places:
        if (wanted is not None and not wanted) or folder == without:
            continue
        for name in _names(folder, without):
            if wanted is not None and not _matches(name, wanted):
                continue
            if name.startswith(_OURS) or _matches(name, (result,)):
                yield folder, name
            else:
                rest.append((folder, name))
    yield from rest


def _take(found: Found, folder: Path, name: str, limits: CollectLimits, fresh: tuple[str, int]) -> bool:
    """Take a file, or say why not. Returns whether it was taken."""
    try:
        about = (folder / name).lstat()
    except OSError:
        return False  # gone again
    if fresh[0] and _matches(name, fresh[:1]) and about.st_ctime_ns < fresh[1]:
        found.leave_out(f"{name}: it was there before the script ran")
        return False
    if refusal := _refusal(name, about):
        found.leave_out(f"{name}: {refusal}")
        return False
    return found.add(FoundFile(folder, name, about.st_size), limits)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    base = name.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(base, one) or fnmatch.fnmatchcase(name, one) for one in patterns)


def _names(folder: Path, without: Path | None) -> Iterator[str]:
    passed_over = {without, folder / DATA_FOLDER}
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if Path(root, name) not in passed_over)
        for base in sorted(names):
            yield Path(root, base).relative_to(folder).as_posix()


def _refusal(name: str, about: os.stat_result) -> str:
    if stat.S_ISLNK(about.st_mode):
        return "links are not followed; copy the file"
    if not stat.S_ISREG(about.st_mode):
        return "not a regular file"
    if len(name) > 4096 or not name.isprintable():
        return "its name cannot be shown"
    return ""
