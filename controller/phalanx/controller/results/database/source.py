"""The rows of a file of results: perf.csv, perf_super.csv, perf_entry.json, perf_super.json and their like.

Rows keep the number under which a person finds them: ``row 2`` is the first below the header of a CSV file,
as in a spreadsheet; ``entry 1`` the first object of a JSON list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...workflow.errors import InputError
from ...workflow.place import parse_json, read_text
from ...workflow.wording import kind_of
from ..perf_csv import unguarded
from ..table import FILE_LIMIT, ROW_LIMIT, TableError, parse_table

#: A cell may be as large as a document (perf_super.csv has configurations in cells), in characters.
CELL_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One result as the file has it. ``place`` is where ("row 2", "entry 1")."""

    place: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A file of results. ``text``: values are text and have no types of their own (CSV)."""

    shown: str
    text: bool
    rows: tuple[Row, ...]


def read_source(path: Path) -> Source:
    """Read a file. Raises InputError."""
    text = read_text(path, limit=FILE_LIMIT)
    shown = str(path)
    as_json = is_json(path.suffix, text)
    rows = _json_rows(text, shown) if as_json else _csv_rows(text, shown)
    if not rows:
        raise InputError(f"cannot upload {shown}: it has no rows")
    return Source(shown, not as_json, rows)


def is_json(suffix: str, text: str) -> bool:
    """Whether a file is JSON: by its extension, else by its first character."""
    known = {".json": True, ".csv": False}
    return known.get(suffix.lower(), text.lstrip()[:1] in ("{", "["))


def _csv_rows(text: str, shown: str) -> tuple[Row, ...]:
    try:
        table = parse_table(text, CELL_LIMIT)
    except TableError as error:
        raise InputError(f"cannot read {shown}: {error}") from error
    return tuple(
        Row(f"row {number}", {name: unguarded(cell) for name, cell in cells.items()})
        for number, cells in zip(table.numbers, table.rows, strict=True)
    )


def _json_rows(text: str, shown: str) -> tuple[Row, ...]:
    found = parse_json(text, shown, nan_is_null=True)
    entries = [found] if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise InputError(f"cannot read {shown}: expected a list of objects, found {kind_of(found)}")
    if len(entries) > ROW_LIMIT:
        raise InputError(f"cannot read {shown}: it has {len(entries)} entries; {ROW_LIMIT} are the most")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise InputError(f"cannot read {shown}: entry {number} is {kind_of(entry)}, not an object")
    return tuple(Row(f"entry {number}", entry) for number, entry in enumerate(entries, start=1))
