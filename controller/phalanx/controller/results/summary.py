"""Reading what people keep: perf.csv, perf_entry.json, perf_super.json and other tables of results.

Forgiving where madengine and spreadsheets are careless (numbers as floats, columns beyond the known, bare NaN
in JSON, CRLF, a byte-order mark), strict where a guess would be a lie: a row with more cells than the header,
a file that is no table, anything beyond the limits.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..workflow.place import is_regular, reading
from .perf_csv import unguarded
from .table import NO_NUMBER, Limits, TableError, cells_up_to, has_value, rows_of

#: A row of madengine has some 300 bytes: this is near a million of them.
FILE_LIMIT = 256 * 1024 * 1024
#: perf_super.csv holds a model's whole configuration in one cell.
LIMITS = Limits(rows=1_000_000, columns=1024, cell=1024 * 1024)
#: A record that holds records: the measurements of a multiple_results row stand beside its columns.
NESTED = "multi_results"


@dataclass(frozen=True, slots=True)
class Summary:
    """A table of results, in the order of the file. Each row has a cell for each of ``columns``."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def records(self) -> Iterator[dict[str, str]]:
        """The rows by column."""
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))


def read_summary(path: Path) -> Summary:
    """The table of a ``.csv`` or ``.json`` file. Raises TableError, whose words do not name the file."""
    as_json = path.suffix.lower() == ".json"
    try:
        with reading(path) as file:
            if not is_regular(file):
                raise TableError("it is not a regular file")
            if os.fstat(file.fileno()).st_size > FILE_LIMIT:
                raise TableError(f"it is larger than {FILE_LIMIT // 1024 // 1024} MiB")
            return _read_json(file) if as_json else _read_csv(file)
    except OSError as error:
        raise TableError(os.strerror(error.errno or 0)) from error
    except MemoryError as error:
        raise TableError("there is not enough memory to read it") from error


def of_records(records: Iterable[Mapping[str, str]]) -> Summary:
    """Rows by column as a table: columns in the order in which they first come."""
    known = [dict(record) for record in records]
    columns = tuple(dict.fromkeys(name for record in known for name in record))
    return Summary(columns, tuple(tuple(record.get(name, "") for name in columns) for record in known))


def number(cell: str) -> float | None:
    """The finite number that a cell is; None for anything else. ``8`` and ``8.0`` are one."""
    if not has_value(cell) or "_" in cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def tells(column: str, cell: str) -> bool:
    """Whether a cell that a workload wrote says something of its column; durations: ``2.5``, ``2.5s``."""
    if column != "test_duration":
        return has_value(cell)
    seconds = number(cell.removesuffix("s"))
    return seconds is not None and seconds >= 0


# --- CSV -----------------------------------------------------------------------------------------------


def _read_csv(file: BinaryIO) -> Summary:
    text = io.TextIOWrapper(file, "utf-8-sig", "replace", newline="")
    try:
        with cells_up_to(LIMITS.cell):
            return _table(rows_of(text, LIMITS))
    finally:
        text.detach()


def _table(rows: Iterator[tuple[int, list[str]]]) -> Summary:
    _, header = next(rows, (1, None))
    if header is None:
        raise TableError("it is empty")
    columns = _columns(header)
    width = len(columns)
    same: dict[str, str] = {}
    found: list[tuple[str, ...]] = []
    for place, cells in rows:
        if len(cells) > width and any(cell.strip() for cell in cells[width:]):
            raise TableError(f"row {place} has {len(cells)} cells, the header {width}")
        padded = [*cells[:width], *[""] * (width - len(cells))]
        # Most cells of a column are alike: kept once, a large file takes a tenth of the memory.
        found.append(tuple([same.setdefault(text, text) for text in map(_cell, padded)]))
    return Summary(columns, tuple(found))


def _columns(header: list[str]) -> tuple[str, ...]:
    """Their names: an empty one is called by its place, one that comes again by its count."""
    names: list[str] = []
    for place, cell in enumerate(header, start=1):
        name = " ".join(unguarded(cell).split()) or f"column {place}"
        again = sum(1 for other in header[: place - 1] if other.strip() == cell.strip())
        names.append(f"{name} ({again + 1})" if again and cell.strip() else name)
    if not any(cell.strip() for cell in header):
        raise TableError("its header is empty")
    return tuple(names)


def _cell(text: str) -> str:
    stripped = unguarded(text.strip())
    return "" if stripped.lower() in NO_NUMBER else stripped


# --- JSON ----------------------------------------------------------------------------------------------


def _read_json(file: BinaryIO) -> Summary:
    text = file.read(FILE_LIMIT + 1).decode("utf-8-sig", "replace")
    try:
        # Numerals stay as they are written; NaN is what pandas writes for a missing value.
        found = json.loads(text, parse_float=str, parse_int=str, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise TableError(f"line {error.lineno} column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise TableError("it is nested too deeply") from error
    records = found if isinstance(found, list) else [found]
    if len(records) > LIMITS.rows:
        raise TableError(f"it has more than {LIMITS.rows} records")
    for place, record in enumerate(records, start=1):
        if not isinstance(record, dict) or not record:
            raise TableError(f"record {place} of {len(records)} is no object with values")
    if not records:
        raise TableError("it is empty")
    table = of_records(_flat(record) for record in records)
    if len(table.columns) > LIMITS.columns:
        raise TableError(f"its records have {len(table.columns)} keys; {LIMITS.columns} are the most")
    return table


def _constant(name: str) -> str:
    return "" if name == "NaN" else name


def _flat(record: Mapping[str, Any]) -> dict[str, str]:
    """A record as cells. Measurements that madengine nests become columns, as they are in its CSV."""
    nested = record.get(NESTED)
    cells = {name: _text(value) for name, value in record.items() if name != NESTED}
    if isinstance(nested, dict):
        cells |= {name: _text(value) for name, value in nested.items() if name not in cells}
    elif nested:
        cells[NESTED] = _text(nested)
    long = next((name for name, cell in cells.items() if len(cell) > LIMITS.cell), None)
    if long is not None:
        raise TableError(f"its key {long[:80]!r} has a value of more than {LIMITS.cell // 1024} KiB")
    return cells


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _cell(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    return json.dumps(value, ensure_ascii=False)
