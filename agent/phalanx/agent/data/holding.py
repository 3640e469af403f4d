"""A folder that is being filled: one process at a time, and what is whole in it stays whole.

Beside the folder lie ``.NAME.lock``, ``.NAME.parts`` with what is on its way, and ``.NAME.done``, a line for
each file that is whole: its size, what the source calls its version, and the time that the file has on disk.
A workload may have written into the folder before: nothing here follows a link in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.agent.data.progress import size as in_words
from phalanx.agent.data.request import DataError

#: Bytes that are left free on the disk.
RESERVE_BYTES = 256 << 20
_NO_LINK = os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Whole:
    """A file as it was when it was whole."""

    size: int
    version: str
    mtime_ns: int


@dataclass(slots=True)
class Holding:
    """The folder, held by this process. ``origin``: what it is filled from; of another origin all is anew."""

    folder: Path
    origin: str
    whole: dict[str, Whole] = field(default_factory=dict)

    @property
    def parts(self) -> Path:
        """Where files are until they are whole."""
        return _beside(self.folder, "parts")

    @property
    def _done(self) -> Path:
        return _beside(self.folder, "done")

    def begin(self) -> None:
        """Know what is whole already, and drop what an interrupted fetch has left. Raises OSError."""
        shutil.rmtree(self.parts, ignore_errors=True)
        self.parts.mkdir(mode=0o700)
        self.whole = self._read()
        self._write_anew()

    def _read(self) -> dict[str, Whole]:
        found: dict[str, Whole] = {}
        try:
            fd = os.open(self._done, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return {}
        with os.fdopen(fd, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines):
                try:
                    entry = json.loads(line)
                    if number == 0:
                        if entry["origin"] != self.origin:
                            return {}
                        continue
                    found[entry[0]] = Whole(entry[1], entry[2], entry[3])
                except (ValueError, LookupError, TypeError):
                    break  # the line at which a writer was cut off; what follows is not believed
        return found

    def _write_anew(self) -> None:
        """What is believed, and nothing that a writer was cut off in."""
        fresh = self.parts / "done"
        with fresh.open("w", encoding="utf-8") as lines:
            lines.write(json.dumps({"origin": self.origin}) + "\n")
            lines.writelines(_line(path, known) for path, known in self.whole.items())
        fresh.replace(self._done)

    def has(self, path: str, size: int, version: str) -> bool:
        """Whether that very file is there, whole and untouched."""
        known = self.whole.get(path)
        if known is None or known.size != size or known.version != version or not version:
            return False
        try:
            found = (self.folder / path).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (size, known.mtime_ns)

    def keep(self, part: Path, path: str, version: str) -> None:
        """A part is whole: it becomes the file ``path``. Raises OSError, also for a link on the way."""
        part.chmod(0o644)
        about = part.stat()
        *above, name = path.split("/")
        with _folder(self.folder, above) as here:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                    shutil.rmtree(name, dir_fd=here)
            os.rename(part, name, dst_dir_fd=here)
        known = self.whole[path] = Whole(about.st_size, version, about.st_mtime_ns)
        with self._done.open("a", encoding="utf-8") as lines:
            lines.write(_line(path, known))

    def drop_others(self, wanted: Iterable[str]) -> int:
        """Remove what the source does not have (any more); how many files that were. Raises OSError."""
        keep, removed = set(wanted), 0
        for root, folders, names in os.walk(self.folder, topdown=False):
            for name in (*names, *(one for one in folders if Path(root, one).is_symlink())):
                path = Path(root, name)
                if path.relative_to(self.folder).as_posix() not in keep:
                    path.unlink()
                    removed += 1
            if Path(root) != self.folder:
                with contextlib.suppress(OSError):
                    Path(root).rmdir()  # only when it is empty
        return removed

    def check_room(self, needed: int) -> None:
        """Raises DataError when the disk does not hold so many bytes more."""
        check_room(self.folder, needed)


def _line(path: str, known: Whole) -> str:
    return json.dumps([path, known.size, known.version, known.mtime_ns]) + "\n"


def check_room(folder: Path, needed: int) -> None:
    """Raises DataError when the disk under a folder does not hold so many bytes more."""
    about = os.statvfs(folder)
    free = about.f_bavail * about.f_frsize
    if needed + RESERVE_BYTES > free:
        raise DataError(
            f"not enough room in {folder}: {in_words(needed)} and {in_words(RESERVE_BYTES)} in reserve are "
            f"needed, {in_words(free)} are free; make room there, or set PHALANX_CACHE_DIR of the "
            "agents to a larger disk of the node"
        )


@contextlib.contextmanager
def held(folder: Path, origin: str, say: Callable[[str], None]) -> Iterator[Holding]:
    """The folder, once no other process fills it. Blocks. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(_beside(folder, "lock"), flags, 0o600), "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process fetches the same: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        holding = Holding(folder, origin)
        holding.begin()
        try:
            yield holding
        finally:
            shutil.rmtree(holding.parts, ignore_errors=True)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


@contextlib.contextmanager
def _folder(root: Path, parts: list[str]) -> Iterator[int]:
    """A descriptor of a folder below ``root``, made where it is missing, reached without a link."""
    here = os.open(root, _NO_LINK)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, _NO_LINK, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)
