"""Tables of a folder as one page for mail: no script, no style sheet, tables with styles of their own.

Mail programs drop everything else. What could not be read is named on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phalanx.controller.results.summary import Summary, read_summary
from phalanx.controller.results.table import TableError

from .grid import Grid, grid, statuses_of
from .rendering import render

#: Rows of one table that a mail shows, the latest: mail programs cut what is longer than some 100 kB.
MOST_ROWS = 200
#: Columns of it: a mail cannot be scrolled sideways.
MOST_COLUMNS = 12
#: Statuses that are counted for a table.
MOST_STATUSES = 6


@dataclass(frozen=True, slots=True)
class MailTable:
    """A table under the stem of its file. ``statuses``: of all rows, the most frequent."""

    stem: str
    grid: Grid
    total: int
    statuses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """The tables of a folder in the order of their names; and those that could not be read, with why."""

    tables: tuple[MailTable, ...]
    unreadable: tuple[tuple[str, str], ...]


def read_folder(folder: Path) -> Folder:
    """Every ``*.csv`` of a folder (not of those below it). Raises OSError."""
    tables: list[MailTable] = []
    unreadable: list[tuple[str, str]] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv"):
        try:
            tables.append(mail_table(path.stem, read_summary(path)))
        except TableError as error:
            unreadable.append((path.name, str(error)))
    return Folder(tuple(tables), tuple(unreadable))


def mail_table(stem: str, summary: Summary) -> MailTable:
    """Lay out one table."""
    statuses = statuses_of(summary.columns, summary.rows)[:MOST_STATUSES]
    return MailTable(stem, grid(summary, MOST_ROWS, MOST_COLUMNS), len(summary.rows), statuses)


def mail_page(title: str, tables: Sequence[MailTable], unreadable: Sequence[tuple[str, str]]) -> bytes:
    """The page."""
    return render("mail.html.j2", title=title, tables=tables, unreadable=unreadable)
