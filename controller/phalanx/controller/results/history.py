"""The history: what every run left, in one SQLite file of the user.

A run is added once, at its end, in one transaction. Many controllers may do so at once, and the file may lie
on a network filesystem, as home directories do: so the journal is SQLite's rollback journal, which asks of a
filesystem nothing but locks (write-ahead logging needs memory that all writers share), and who finds the
file locked waits.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .history_schema import SchemaError, migrate, transaction
from .perf_csv import COLUMNS

#: How long another writer is waited for, in seconds. A run of 10,000 rows holds the lock for less than one.
BUSY_S = 10.0


class HistoryError(Exception):
    """The history cannot be read or written. The message is for the user."""


@dataclass(frozen=True, slots=True)
class RowEntry:
    """A row of results. ``at``: wall clock of its verdict, seconds. ``value``: its performance, if a number.

    ``columns``: all that it has, as in perf.csv.
    """

    case: str
    at: float
    value: float | None
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node's part in a run. ``failed_first``: the first failure was there. ``why``: in words, or ""."""

    node: str
    failed_first: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A run that is over. ``started`` and ``finished``: wall clock, seconds. ``argv``: without secrets."""

    id: str
    name: str
    directory: str
    started: float
    finished: float
    state: str
    exit_code: int
    reason: str = ""
    target: str = ""
    job_id: str = ""
    node_count: int = 0
    argv: Sequence[str] = ()
    user: str = ""
    host: str = ""
    rows: Sequence[RowEntry] = ()
    nodes: Sequence[NodeEntry] = ()


class History:
    """An open history."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """``connection``: as ``opened`` makes it."""
        self.path = path
        self.connection = connection

    def add(self, run: RunEntry) -> bool:
        """Keep a run; False when it was kept before, which changes nothing. Raises HistoryError."""
        with said(self.path), transaction(self.connection):
            added = self.connection.execute(
                f"INSERT OR IGNORE INTO runs VALUES ({_marks(14)})",  # noqa: S608 - marks only
                (
                    *(run.id, run.name, run.directory, run.started, run.finished, run.state, run.exit_code),
                    *(run.reason, run.target, run.job_id, run.node_count, json.dumps(list(run.argv))),
                    *(run.user, run.host),
                ),
            )
            if not added.rowcount:
                return False
            self.connection.executemany(
                f'INSERT INTO "rows" VALUES ({_marks(6 + len(COLUMNS))})',  # noqa: S608 - marks only
                (_cells(run.id, number, row) for number, row in enumerate(run.rows)),
            )
            self.connection.executemany(
                "INSERT INTO nodes VALUES (?, ?, ?, ?)",
                ((run.id, one.node, one.failed_first, one.why) for one in run.nodes),
            )
        return True

    def prune(self, before: float, dry_run: bool = False) -> tuple[int, int]:
        """Forget runs that ended before a moment; how many, with how many rows. Raises HistoryError."""
        old = "SELECT id FROM runs WHERE finished < ?"
        with said(self.path), transaction(self.connection):
            runs = self._count("SELECT count(*) FROM runs WHERE finished < ?", before)
            rows = self._count(f'SELECT count(*) FROM "rows" WHERE run IN ({old})', before)  # noqa: S608
            if not dry_run:
                self.connection.execute("DELETE FROM runs WHERE finished < ?", (before,))
        if runs and not dry_run:
            with suppress(sqlite3.OperationalError):  # busy, or no room for it: what is free is used again
                self.connection.execute("VACUUM")
        return runs, rows

    def _count(self, query: str, *values: float) -> int:
        return int(self.connection.execute(query, values).fetchone()[0])


@contextmanager
def opened(path: Path, busy_s: float = BUSY_S) -> Iterator[History]:
    """The history at a path, made when it is not there: folder 0700, file 0600.

    ``busy_s``: how long another writer is waited for. Raises HistoryError.
    """
    with said(path):
        _make(path)
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
    try:
        with said(path):
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            migrate(connection)
        yield History(path, connection)
    finally:
        connection.close()


@contextmanager
def said(path: Path) -> Iterator[None]:
    """What can go wrong with the file at ``path``, as a HistoryError."""
    try:
        yield
    except SchemaError as error:
        raise HistoryError(
            f"cannot use the history {path}: {error}; choose another file with PHALANX_HISTORY"
        ) from error
    except sqlite3.OperationalError as error:
        what = "another process holds its lock" if "locked" in str(error) else str(error)
        raise HistoryError(
            f"cannot use the history {path}: {what}; choose another file with PHALANX_HISTORY, or off"
        ) from error
    except sqlite3.DatabaseError as error:
        raise HistoryError(
            f"cannot use the history {path}: it is damaged ({error}); move it away and feed a new one with: "
            "phalanx history import RUN_DIR..."
        ) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename not in (None, str(path), path) else ""
        raise HistoryError(
            f"cannot use the history {path}: {where}{error.strerror or error}; choose another file with "
            "PHALANX_HISTORY, or off"
        ) from error


def _make(path: Path) -> None:
    """A private empty file, unless there is one: SQLite gives its journal the same mode."""
    if not path.parent.exists():
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _cells(run: str, number: int, row: RowEntry) -> tuple[object, ...]:
    extra = {name: text for name, text in row.columns.items() if name not in COLUMNS}
    known = (row.columns.get(name, "") for name in COLUMNS)
    return run, number, row.case, row.at, row.value, *known, json.dumps(extra, ensure_ascii=False)
