"""Reading CSV files that workloads wrote: bounded, header normalised once, nothing guessed.

What a workload writes is hostile until read: sizes are limited (256 columns, 64 KiB a cell, 1 MiB a line,
4 MiB a row), NUL and broken UTF-8 do not get through, a header with the same name twice is refused. Results
are read row by row from files as large as may be collected: a million rows cost no more memory than one.
Whole tables are of at most 64 MiB and a million rows.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..listing import listed
from ..workflow.place import is_regular, reading

#: Bytes of a file that is read whole, and of one that an agent gives back.
FILE_LIMIT, RESULTS_LIMIT = 64 * 1024 * 1024, 512 * 1024 * 1024
ROW_LIMIT, COLUMN_LIMIT, CELL_LIMIT = 1_000_000, 256, 64 * 1024
#: Characters of a line and of a row, of files that are read row by row.
LINE_LIMIT, ROW_SIZE_LIMIT = 1024 * 1024, 4 * 1024 * 1024
#: Rows that one case may add to perf.csv, and to the event log; more are measurements, not results.
RESULT_LIMIT = 10_000
#: What programs write for "no number" and nobody means as a word, in small letters: C libraries (zero divided
#: by zero is -nan), spreadsheets, pandas.
NO_NUMBER = frozenset(
    {"nan", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "<na>", "#na", "#n/a", "#n/a n/a"}
)
#: What stands for "no value" in files that programs write (pandas reads these as missing).
MISSING = NO_NUMBER | {"", "na", "n/a", "none", "null"}
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
class Count:
    """How many rows a results file has, and how many of them have a performance."""

    rows: int
    valued: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The file that counts, what is in it, and why it was preferred."""

    candidate: Candidate
    count: Count
    why: str


def has_value(cell: str) -> bool:
    """Whether a cell says anything."""
    return cell.strip().lower() not in MISSING


def read_table(path: Path, cell_limit: int = CELL_LIMIT) -> Table:
    """A CSV file as a whole, whose cells have at most ``cell_limit`` characters. Raises TableError."""
    with _opened(path, FILE_LIMIT) as file, cells_up_to(cell_limit):
        return _table(_bounded(file, ROW_LIMIT, cell_limit))


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


def results_of(path: Path) -> Table:
    """A multiple_results file: at least model, performance and metric. Raises TableError."""
    with _opened(path, RESULTS_LIMIT) as file:
        table = _table(_bounded(file, RESULT_LIMIT))
    _require(table.columns)
    return table


def count_of(path: Path) -> Count:
    """What a multiple_results file has, row by row in constant memory. Raises TableError."""
    with _opened(path, RESULTS_LIMIT) as file:
        rows = _bounded(file, sys.maxsize - 1)
        columns = _header(next(rows, None))
        _require(columns)
        place, count, valued = columns.index("performance"), 0, 0
        for number, cells in rows:
            if len(cells) != len(columns):
                cells = _fitting(cells, columns, number)
            count += 1
            valued += has_value(cells[place])
        return Count(count, valued)


def best(candidates: Sequence[Candidate]) -> tuple[Choice | None, list[str]]:
    """The candidate with most performance values, of equals the lowest node rank; and words for the unusable.

    Each node has its own file: what one rank alone measured is in one of them, half-written ones have less.
    """
    unusable: list[str] = []
    readable: list[tuple[Candidate, Count]] = []
    for candidate in sorted(candidates, key=lambda one: (one.node_rank, one.shown)):
        try:
            readable.append((candidate, count_of(candidate.path)))
        except TableError as error:
            unusable.append(f"{candidate.shown}: {error}")
    if not readable:
        return None, unusable
    chosen, count = max(readable, key=lambda one: (one[1].valued, -one[0].node_rank))
    return Choice(chosen, count, _why(chosen, count, readable, len(candidates))), unusable


def _why(chosen: Candidate, count: Count, readable: Sequence[tuple[Candidate, Count]], of: int) -> str:
    """Why it was this one, with those that are as good."""
    why = f"{chosen.shown}" + (f", of {of} files" if of > 1 else "") + f": {count.valued} values"
    equals = [one.shown for one, other in readable if other.valued == count.valued and one is not chosen]
    if equals:
        have = "has" if len(equals) == 1 else "have"
        why += f"; {listed(equals, 3)} {have} as many, the lowest node rank counts"
    return why


@contextmanager
def _opened(path: Path, limit: int) -> Iterator[TextIO]:
    """The file, if it is not too large. Raises TableError, also for what goes wrong while it is read."""
    try:
        with io.TextIOWrapper(reading(path), "utf-8-sig", "replace", newline="") as file:
            if not is_regular(file):
                raise TableError("it is not a regular file")
            if os.fstat(file.fileno()).st_size > limit:
                raise TableError(f"it is larger than {limit // 1024 // 1024} MiB")
            yield file
    except OSError as error:
        raise TableError(os.strerror(error.errno or 0)) from error


class _Lines:
    """The lines of a file, without NUL, of bounded length, and of bounded ``size`` until a row has ended."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self.size = self.number = 0

    def row_ended(self) -> int:
        """What comes belongs to another row. Returns the characters of this one."""
        size, self.size = self.size, 0
        return size

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(LINE_LIMIT):
            self.number += 1
            self.size += len(line)
            if len(line) == LINE_LIMIT and not line.endswith(("\n", "\r")):
                raise TableError(f"line {self.number} is longer than {LINE_LIMIT // 1024 // 1024} MiB")
            if self.size > ROW_SIZE_LIMIT:
                limit = ROW_SIZE_LIMIT // 1024 // 1024
                raise TableError(f"line {self.number}: a row is larger than {limit} MiB")
            yield line.replace("\0", "") if "\0" in line else line


def _bounded(file: TextIO, rows: int, cell: int = CELL_LIMIT) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file, ``rows`` of them at most, in the memory of one. Raises TableError."""
    lines = _Lines(file)
    return rows_of(lines, Limits(rows, COLUMN_LIMIT, cell), lines.row_ended)


def rows_of(
    lines: Iterable[str], limits: Limits, row_ended: Callable[[], int] = lambda: sys.maxsize
) -> Iterator[tuple[int, list[str]]]:
    """Rows with any content and their numbers; read them within ``cells_up_to``. Raises TableError.

    ``row_ended`` is called after each row, and knows how many characters it had at most.
    """
    reader = csv.reader(lines)
    count = 0
    try:
        for number, cells in enumerate(reader, start=1):
            size = row_ended()
            if not any(map(str.strip, cells)):
                continue
            count += 1
            if count > limits.rows + 1:
                raise TableError(f"it has more than {limits.rows} rows")
            if len(cells) > limits.columns:
                raise TableError(f"row {number} has {len(cells)} cells; {limits.columns} are the most")
            if size > limits.cell and max(map(len, cells)) > limits.cell:
                raise TableError(f"row {number} has a cell of more than {limits.cell // 1024} KiB")
            yield number, cells
    except csv.Error as error:
        raise TableError(f"line {reader.line_num}: {error}") from error


def _table(rows: Iterator[tuple[int, list[str]]]) -> Table:
    columns = _header(next(rows, None))
    found: list[dict[str, str]] = []
    numbers: list[int] = []
    for number, cells in rows:
        cells = _fitting(cells, columns, number)
        found.append({name: cells[place].strip() for place, name in enumerate(columns) if name})
        numbers.append(number)
    return Table(tuple(name for name in columns if name), tuple(found), tuple(numbers))


def _fitting(cells: list[str], columns: Sequence[str], number: int) -> list[str]:
    """The cells of a row, as many as there are columns; only empty ones may be too many."""
    if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
        raise TableError(f"row {number} has {len(cells)} cells, the header {len(columns)}")
    return cells + [""] * (len(columns) - len(cells))


def _header(row: tuple[int, list[str]] | None) -> list[str]:
    """Names without the spaces and marks around them; a name twice is refused, an empty one is left out."""
    if row is None:
        raise TableError("it is empty")
    names = [" ".join(cell.replace("\ufeff", "").split()) for cell in row[1]]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise TableError(f"its header has the column {twice!r} twice")
    if not any(names):
        raise TableError("its header is empty")
    return names


def _require(columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        found = ", ".join(filter(None, columns[:12]))
        raise TableError(f"it has no column {' and no column '.join(missing)} (found {found})")
