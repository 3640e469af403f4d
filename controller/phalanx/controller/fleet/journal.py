"""``events.jsonl``: append-only, synced before it is believed, one writer.

Events that come together are written together (group commit): one sync for all of them. A line that was cut
short by a crash is not an event: it is removed before anything is appended.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from .events import Event, Recorded, from_line, to_line
from .reserve import Reserve

#: Room is short: what the reserve is for.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class JournalError(Exception):
    """The event log cannot be written; without it nothing can be believed."""


class Journal:
    """The event log of a run, open for writing. One process holds it at a time. Blocks.

    Raises JournalError when it cannot be opened or another controller holds it.
    """

    def __init__(self, path: Path, run_id: str, reserve: Reserve | None = None) -> None:
        self.path = path
        self._run_id = run_id
        self._reserve = reserve
        try:
            self._fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise JournalError(f"cannot open {path}: {error.strerror}") from error
        try:
            _lock(self._fd, path)
            self.seq = _mend(self._fd, path)
            _sync_folder(path.parent)
        except OSError as error:
            os.close(self._fd)
            raise JournalError(f"cannot open {path}: {error.strerror}") from error
        except JournalError:
            os.close(self._fd)
            raise
        if reserve is not None:
            reserve.hold()

    def append(self, events: list[Event], at: float) -> list[tuple[Recorded, bytes]]:
        """Write and sync events, in order; each with its place and its line. Blocks: call it in a thread.

        Raises JournalError, after which nothing of the batch may be believed.
        """
        recorded = [Recorded(self.seq + i + 1, at, event) for i, event in enumerate(events)]
        lines = [to_line(self._run_id, item) for item in recorded]
        data = b"".join(lines)
        try:
            self._write(data)
        except OSError as error:
            if error.errno not in _FULL or self._reserve is None or not self._reserve.spend():
                raise JournalError(f"cannot write {self.path}: {error.strerror}") from error
            self._write_last(data)
        self.seq += len(events)
        return list(zip(recorded, lines, strict=True))

    @property
    def short(self) -> bool:
        """Whether the reserve was needed and is not there again."""
        return self._reserve is not None and not self._reserve.held

    def _write_last(self, data: bytes) -> None:
        try:
            self._write(data)
        except OSError as error:
            raise JournalError(f"cannot write {self.path}: {error.strerror}") from error

    def _write(self, data: bytes) -> None:
        """All of it, synced, or nothing of it."""
        start = os.fstat(self._fd).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, start)
            raise

    def close(self) -> None:
        """Give up the log."""
        if self._reserve is not None:
            self._reserve.spend()
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError(f"cannot write {path}: another controller holds it") from None
    except OSError as error:
        # A file server without locks: the fresh run directory is then all that keeps others away.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _mend(fd: int, path: Path) -> int:
    """Cut off a torn last line; the number of the last event."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(fd, whole)
    lines = content[:whole].splitlines()
    if not lines:
        return 0
    try:
        return int(json.loads(lines[-1])["seq"])
    except (ValueError, KeyError, TypeError):
        raise JournalError(f"cannot go on with {path}: its last line is no event") from None


def _sync_folder(folder: Path) -> None:
    """A file is not there after a crash unless the folder that names it was synced."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path: Path) -> Iterator[Recorded]:
    """The events of a log in order; a torn last line is left out. Unknown types are skipped."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            recorded = from_line(line)
            if recorded is not None:
                yield recorded
