"""What is compared: runs and tables of results, as someone names them on the command line."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.controller.results.compare import Compared, compare
from phalanx.controller.results.summary import Summary, read_summary
from phalanx.controller.results.table import TableError
from phalanx.controller.runs.directory import RunDirectory, SelectionError, select
from phalanx.controller.runs.records import read_all
from phalanx.controller.runs.view import fold

from .csv_page import Tile
from .rendering import render
from .run_page import run_results

#: Where a folder that is no run has its results.
_IN_FOLDER = "perf.csv"
_SUFFIXES = (".csv", ".json")
#: As many as there are letters to call them by.
MOST_SIDES = len(string.ascii_uppercase)
#: A model that is compared has a name, and a table of results a column for it.
_NEEDED = ("model",)


class SideError(Exception):
    """Something cannot be compared. The message is for the user."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the things compared. ``letter``: A, B, ...; ``note``: what to know of it, or ""."""

    letter: str
    label: str
    summary: Summary
    note: str

    @property
    def rows(self) -> int:
        """Rows that it has."""
        return len(self.summary.rows)


def read_sides(names: tuple[str, ...], root: Path) -> list[Side]:
    """What each of the names means: a file, a folder, or a run below ``root``. Raises SideError."""
    if not 2 <= len(names) <= MOST_SIDES:
        raise SideError(f"cannot compare {len(names)}: name from 2 to {MOST_SIDES} runs or files")
    return [_side(letter, name, root) for letter, name in zip(string.ascii_uppercase, names, strict=False)]


def compared(sides: list[Side]) -> Compared:
    """The comparison of what was read."""
    return compare([side.summary.records() for side in sides])


def _side(letter: str, name: str, root: Path) -> Side:
    path = Path(name).expanduser()
    if path.suffix.lower() in _SUFFIXES and (path.exists() or "/" in name):
        return _file(letter, path, name)
    try:
        return _run(letter, select(root, name))
    except SelectionError as error:
        if (path / "events.jsonl").exists():
            return _run(letter, RunDirectory(path.resolve()))
        if path.is_dir():
            if (path / _IN_FOLDER).exists():
                return _file(letter, path / _IN_FOLDER, str(path / _IN_FOLDER))
            raise SideError(f"cannot compare {name}: it is no run and holds no {_IN_FOLDER}") from error
        if path.exists():
            raise SideError(
                f"cannot compare {name}: expected a run, or a file that ends in {' or '.join(_SUFFIXES)}"
            ) from error
        why = str(error).removeprefix("cannot find ")
        raise SideError(f"cannot compare {name}: there is no such file, and no run: {why}") from error


def _file(letter: str, path: Path, shown: str) -> Side:
    try:
        summary = read_summary(path)
    except TableError as error:
        raise SideError(f"cannot compare {shown}: {error}") from error
    lacking = [name for name in _NEEDED if name not in summary.columns]
    if lacking:
        some = ", ".join(summary.columns[:12])
        raise SideError(f"cannot compare {shown}: it has no column {lacking[0]} (found {some})")
    return Side(letter, shown, summary, "")


def _run(letter: str, run: RunDirectory) -> Side:
    events = read_all(run.events)
    if not events:
        raise SideError(f"cannot compare {run.run_id}: {run.shown()}/events.jsonl holds no event")
    view = fold(events, run.run_id)
    note = "" if view.finished else "it is not over"
    if view.finished and view.exit_code:
        note = f"it {view.state}, exit {view.exit_code}"
    return Side(letter, run.run_id, run_results(view), note)


def page(sides: list[Side], found: Compared) -> bytes:
    """The comparison as a page."""
    return render("compare.html.j2", title="compare", sources=sides, compared=found, tiles=_tiles(found))


def _tiles(found: Compared) -> list[Tile]:
    facts: list[tuple[str, int, str]] = [
        ("models", found.models, ""),
        ("ended differently", len(found.statuses), "bad"),
        ("run differently", len({model for one in found.configuration for model in one.models}), "warn"),
        ("missing", len(found.missing), "warn"),
        ("added", len(found.added), ""),
    ]
    return [Tile(label, str(count), tone) for label, count, tone in facts if count or label == "models"]


def sides_document(sides: list[Side]) -> list[dict[str, Any]]:
    """What was compared, as JSON values."""
    return [{"label": side.label, "rows": side.rows, "note": side.note} for side in sides]
