"""Rows of the files that a script wrote itself, laid out by the names of their columns.

Madengine appends such a file to perf.csv as it is, whatever the order of its columns. Here a row is what the
plan knows of the model, and over it what the script says. Only its status is worked out: a row without a
performance is a failure whatever it says of itself, and one that calls itself a failure is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from .perf_csv import COLUMNS, guarded
from .summary import tells
from .table import TableError, has_value, results_of

_BAD = frozenset({"failure", "failed", "fail", "error", "cancelled", "timeout"})


@dataclass(slots=True)
class ScriptRows:
    """``rows`` of perf.csv without their status, which is in ``good``; ``unusable``: files that are none.

    ``columns``: those that any of the files has. ``copies``: words for rows that were there before.
    """

    rows: list[dict[str, str]] = field(default_factory=list)
    good: list[bool] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    unusable: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)


def script_rows(files: Sequence[tuple[str, Path]], base: dict[str, str]) -> ScriptRows:
    """The rows of all files (what is shown of each, and where it is). Reads files.

    A row that an earlier file had counts once: next to perf.csv often lies a copy of it. It is a copy when it
    says the same in all columns that both files have: a row for each load may differ in no other than that.
    """
    found = ScriptRows()
    before: list[tuple[Set[str], Sequence[dict[str, str]]]] = []
    for shown, path in files:
        try:
            table = results_of(path)
        except TableError as error:
            found.unusable.append(f"{shown}: {error}")
            continue
        found.read.append(shown)
        found.columns = tuple(dict.fromkeys((*found.columns, *table.columns)))
        extra = {guarded(name): name for name in table.columns if name not in COLUMNS}
        earlier = [_said(rows, (*COLUMNS, *sorted(others & extra.keys()))) for others, rows in before]
        first, copies = len(found.rows), 0
        for cells in table.rows:
            said = {name: cells[name] for name in COLUMNS if tells(name, cells.get(name, ""))}
            row = {**base, **said, **{column: cells[name] for column, name in extra.items()}}
            row.pop("status", None)
            if any(tuple(row.get(name, "") for name in names) in those for names, those in earlier):
                copies += 1
                continue
            if not has_value(cells["performance"]):
                row["performance"] = ""
            found.rows.append(row)
            found.good.append(
                bool(row["performance"]) and cells.get("status", "").strip().lower() not in _BAD
            )
        before.append((extra.keys(), found.rows[first:]))
        if copies:
            found.copies.append(f"{shown}: rows that an earlier file has as well, counted once: {copies}")
    return found


def _said(rows: Iterable[dict[str, str]], names: Sequence[str]) -> tuple[Sequence[str], Set[tuple[str, ...]]]:
    """The names, and what rows say under them."""
    return names, {tuple(row.get(name, "") for name in names) for row in rows}
