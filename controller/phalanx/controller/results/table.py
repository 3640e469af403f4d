"""Reading CSV files that workloads wrote: bounded, header normalised once, nothing guessed.

What a workload writes is hostile until read: sizes are limited (64 MiB, a million rows, 256 columns, 64 KiB a
cell), NUL and broken UTF-8 do not get through, a header with the same name twice is refused.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FILE_LIMIT = 64 * 1024 * 1024
ROW_LIMIT, COLUMN_LIMIT, CELL_LIMIT = 1_000_000, 256, 64 * 1024
#: Rows that one case may add to perf.csv; more are measurements, not results.
RESULT_LIMIT = 10_000
#: What stands for "no value" in files that programs write (pandas reads these as missing).
MISSING = frozenset({"", "nan", "na", "n/a", "none", "null"})
REQUIRED = ("model", "performance", "metric")


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a table may hold: rows, columns, and characters of a cell."""

    rows: int
    columns: int
    cell: int


class TableError(Exception):
    """The file is no usable table. The message says why, without its name."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: ``columns`` as normalised, each row with all of them.

    ``numbers`` has the number of each row as a spreadsheet counts: the header is row 1, empty rows count.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    numbers: tuple[int, ...]

    @property
    def valued(self) -> int:
        """Rows with a performance."""
        return sum(1 for row in self.rows if has_value(row.get("performance", "")))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A result file of one node, as collected."""

    node: str
    node_rank: int
    path: Path
    shown: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The table that counts, where it is from, and why it was preferred."""

    candidate: Candidate
    table: Table
    why: str


def has_value(cell: str) -> bool:
    """Whether a cell says anything."""
    return cell.strip().lower() not in MISSING


def read_table(path: Path) -> Table:
    """Read a CSV file. Raises TableError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise TableError(os.strerror(error.errno or 0)) from error
    if len(data) > FILE_LIMIT:
        raise TableError(f"it is larger than {FILE_LIMIT // 1024 // 1024} MiB")
    return parse_table(data.decode("utf-8-sig", "replace"))


def parse_table(text: str, cell_limit: int = CELL_LIMIT) -> Table:
    """The table of a CSV text whose cells have at most ``cell_limit`` characters. Raises TableError."""
    lines = io.StringIO(text.replace("\0", ""), newline="")
    with cells_up_to(cell_limit):
        return _table(rows_of(lines, Limits(ROW_LIMIT, COLUMN_LIMIT, cell_limit)))


@contextmanager
def cells_up_to(limit: int) -> Iterator[None]:
    """The csv module has one limit for the whole interpreter: for a while, at least ``limit`` characters."""
    before = csv.field_size_limit()
    try:
        csv.field_size_limit(max(before, limit))
        yield
    finally:
        csv.field_size_limit(before)


def _table(rows: Iterator[tuple[int, list[str]]]) -> Table:
    _, header = next(rows, (1, None))
    if header is None:
        raise TableError("it is empty")
    columns = _header(header)
    found: list[dict[str, str]] = []
    numbers: list[int] = []
    for number, cells in rows:
        if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            raise TableError(f"row {number} has {len(cells)} cells, the header {len(columns)}")
        padded = cells + [""] * (len(columns) - len(cells))
        found.append({name: padded[place].strip() for place, name in enumerate(columns) if name})
        numbers.append(number)
    return Table(tuple(name for name in columns if name), tuple(found), tuple(numbers))


def results_of(path: Path) -> Table:
    """A multiple_results file: at least model, performance and metric. Raises TableError."""
    table = read_table(path)
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise TableError(
            f"it has no column {' and no column '.join(missing)} (found {', '.join(table.columns[:12])})"
        )
    if len(table.rows) > RESULT_LIMIT:
        raise TableError(f"it has {len(table.rows)} rows; {RESULT_LIMIT} results are the most")
    return table


def best(candidates: Sequence[Candidate]) -> tuple[Choice | None, list[str]]:
    """The candidate with most performance values, of equals the lowest node rank; and words for the unusable.

    Each node has its own file: what one rank alone measured is in one of them, half-written ones have less.
    """
    unusable: list[str] = []
    readable: list[tuple[Candidate, Table]] = []
    for candidate in sorted(candidates, key=lambda one: (one.node_rank, one.shown)):
        try:
            readable.append((candidate, results_of(candidate.path)))
        except TableError as error:
            unusable.append(f"{candidate.shown}: {error}")
    if not readable:
        return None, unusable
    chosen, table = max(readable, key=lambda one: (one[1].valued, -one[0].node_rank))
    equals = sum(1 for _, other in readable if other.valued == table.valued)
    why = f"{chosen.shown} of {len(candidates)}: {table.valued} values"
    if equals > 1:
        why += f", as {equals - 1} more; lowest node rank"
    return Choice(chosen, table, why), unusable


def rows_of(lines: Iterable[str], limits: Limits) -> Iterator[tuple[int, list[str]]]:
    """Rows with any content and their numbers; read them within ``cells_up_to``. Raises TableError."""
    reader = csv.reader(lines)
    count = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if not any(cell.strip() for cell in cells):
                continue
            count += 1
            if count > limits.rows + 1:
                raise TableError(f"it has more than {limits.rows} rows")
            if len(cells) > limits.columns:
                raise TableError(f"row {number} has {len(cells)} cells; {limits.columns} are the most")
            if any(len(cell) > limits.cell for cell in cells):
                raise TableError(f"row {number} has a cell of more than {limits.cell // 1024} KiB")
            yield number, cells
    except csv.Error as error:
        raise TableError(f"line {reader.line_num}: {error}") from error


def _header(cells: Sequence[str]) -> list[str]:
    """Names without the spaces and marks around them; a name twice is refused, an empty one is left out."""
    names = [" ".join(cell.replace("\ufeff", "").split()) for cell in cells]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise TableError(f"its header has the column {twice!r} twice")
    if not any(names):
        raise TableError("its header is empty")
    return names
