"""Reading an event log from disk: all of it, what is new in it, or only its first and last words.

A line counts once it ends with a newline: the last one may be half written, by a controller that is at it or
by one that was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phalanx.controller.fleet.events import Recorded, from_line

#: Enough for the last event of a run with many rows.
TAIL_BYTES = 256 * 1024
#: allocation.granted is among the first events; with thousands of nodes its line is long.
HEAD_BYTES = 512 * 1024


def parse(lines: list[bytes]) -> Iterator[Recorded]:
    """The events of whole lines. What is not an event, or of a type not known here, is left out."""
    for line in lines:
        try:
            recorded = from_line(line)
        except (ValueError, TypeError, KeyError):
            continue
        if recorded is not None:
            yield recorded


def read_all(path: Path) -> list[Recorded]:
    """Every event of a log; [] when there is none yet."""
    return EventFile(path).new()


class EventFile:
    """An event log that may still grow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def new(self) -> list[Recorded]:
        """Events that were completed since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        end = content.rfind(b"\n") + 1
        self._offset += end
        return list(parse(content[:end].splitlines()))


def last_record(path: Path) -> dict[str, Any] | None:
    """The last whole line of a log as it stands, without reading the rest; None when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read()
    except OSError:
        return None
    lines = tail[: tail.rfind(b"\n") + 1].splitlines()
    try:
        document = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def last_state(path: Path) -> str:
    """``succeeded``, ``failed`` or ``cancelled`` for a log that ends with run.finished, else ""."""
    document = last_record(path)
    if document is None or document.get("type") != "run.finished":
        return ""
    return str(document.get("data", {}).get("state", ""))


def head(path: Path) -> list[Recorded]:
    """The first events of a log."""
    try:
        with path.open("rb") as file:
            content = file.read(HEAD_BYTES)
    except OSError:
        return []
    return list(parse(content[: content.rfind(b"\n") + 1].splitlines()))


def granted_job(path: Path) -> str:
    """The scheduler's job id of a run, "" when there is none."""
    from phalanx.controller.fleet.events import AllocationGranted

    return next((r.event.job_id for r in head(path) if isinstance(r.event, AllocationGranted)), "")
