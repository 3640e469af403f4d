"""Results that a script leaves where it likes: in places that are known beforehand, found when it is over.

What is in such a place may be of an earlier run. So every place is looked at before the script starts, and
only a file that was not there then, or is another since (time, size or inode), is a result. Times of change
alone would not do: they are by the clock of a file server, which may be minutes off ours. Files of other
users never count.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import os
import shutil
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.agent.beneath import open_beneath
from phalanx.protocol.messages import JOB_NUMBER, SCRIPT_RESULTS

#: Between two looks at places where nothing is yet, in seconds.
LOOK_S = 5.0
#: Files of a place that count, and bytes of one: the tables of one model.
MOST_FILES, MOST_BYTES = 64, 64 * 1024 * 1024

Stamp = tuple[int, int, int]


def located(places: Iterable[str], folder: Path, job_id: str) -> list[Path]:
    """The places as paths; those of a job are left out where there is none. ``folder``: where steps run."""
    filled = (place.replace(JOB_NUMBER, job_id) for place in places if job_id or JOB_NUMBER not in place)
    return [folder / place for place in filled]


def look(place: Path) -> dict[Path, Stamp]:
    """The regular files of this user in a place, and what tells one state of each from the next."""
    found: dict[Path, Stamp] = {}
    with contextlib.suppress(OSError), os.scandir(place.parent) as entries:
        for entry in entries:
            if not fnmatch.fnmatchcase(entry.name, place.name):
                continue
            with contextlib.suppress(OSError):
                about = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid():
                    found[Path(entry.path)] = (about.st_mtime_ns, about.st_size, about.st_ino)
    return found


@dataclass(slots=True)
class ScriptResults:
    """The result places of one case, ``before``: as they were when it was opened."""

    places: list[Path]
    before: dict[Path, Stamp] = field(default_factory=dict)

    @classmethod
    def opened(cls, places: list[Path]) -> ScriptResults:
        """Look at the places before the script runs. Blocks."""
        results = cls(places)
        results.look_again()
        return results

    def look_again(self) -> None:
        """A step is about to start: what is there now is not of it. Blocks."""
        for place in self.places:
            self.before |= look(place)

    def new(self) -> list[Path]:
        """The results of the first place that has any, by name. Blocks."""
        for place in self.places:
            found = look(place)
            if fresh := sorted(path for path, state in found.items() if self.before.get(path) != state):
                return fresh
        return []

    def may_come(self, folder: Path) -> bool:
        """Whether another node can have written into a place: one beyond ``folder``, in use here. Blocks."""
        shared = (place.parent for place in self.places if not place.is_relative_to(folder))
        return any(one.is_dir() or one.parent.is_dir() for one in shared)

    async def bring(self, results: Path, folder: Path, wait_s: float) -> list[str]:
        """Copy the results below ``results``; words for what could not be copied.

        Where there are none, they are waited for up to ``wait_s`` seconds: a file server shows what another
        node has written only after a while.
        """
        deadline = time.monotonic() + wait_s
        while not (found := await asyncio.to_thread(self.new)):
            if time.monotonic() + LOOK_S > deadline or not await asyncio.to_thread(self.may_come, folder):
                return []
            await asyncio.sleep(LOOK_S)
        return await asyncio.to_thread(_copy, found, results / SCRIPT_RESULTS)


def _copy(found: list[Path], target: Path) -> list[str]:
    words = [f"{path}: {MOST_FILES} files of results are the most" for path in found[MOST_FILES:]]
    for path in found[:MOST_FILES]:
        try:
            target.mkdir(mode=0o700, exist_ok=True)
            _copy_one(path, target / path.name)
        except OSError as error:
            words.append(f"{path}: {error.strerror or error}")
    return words


def _copy_one(path: Path, target: Path) -> None:
    """Raises OSError."""
    with os.fdopen(open_beneath(path.parent, path.name), "rb") as source:
        if (size := os.fstat(source.fileno()).st_size) > MOST_BYTES:
            raise OSError(0, f"{size} bytes, {MOST_BYTES} are the most")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o600), "wb") as copy:
            shutil.copyfileobj(source, copy)
