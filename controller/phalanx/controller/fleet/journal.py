"""``events.jsonl``: append-only, synced before it is believed, one writer.

Events that come together are written together (group commit): one sync for all of them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from .events import Event, Recorded, from_line, to_line


class JournalError(Exception):
    """The event log cannot be written; without it nothing can be believed."""


class Journal:
    """The event log of a run, open for writing. One process holds it at a time."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self._run_id = run_id
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise JournalError(f"cannot write {path}: another controller holds it") from None
        self.seq = sum(1 for _ in read(path))

    def append(self, events: list[Event], at: float) -> list[tuple[Recorded, bytes]]:
        """Write and sync events, in order; each with its place and its line. Blocks: call it in a thread.

        Raises JournalError, after which nothing of the batch may be believed.
        """
        recorded = [Recorded(self.seq + i + 1, at, event) for i, event in enumerate(events)]
        lines = [to_line(self._run_id, item) for item in recorded]
        data = memoryview(b"".join(lines))
        start = os.fstat(self._fd).st_size
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fdatasync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, start)
            raise JournalError(f"cannot write {self.path}: {error.strerror}") from error
        self.seq += len(events)
        return list(zip(recorded, lines, strict=True))

    def close(self) -> None:
        """Give up the log."""
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> Iterator[Recorded]:
    """The events of a log in order; a torn last line is left out. Unknown types are skipped."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            recorded = from_line(line)
            if recorded is not None:
                yield recorded
