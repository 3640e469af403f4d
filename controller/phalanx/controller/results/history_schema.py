"""The tables of the history and how an older database becomes a current one.

``PRAGMA user_version`` is the version, ``PRAGMA application_id`` says whose file it is. A version is reached
by one script, all in one transaction: a database is of one version or of the next, never between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .perf_csv import COLUMNS

#: "phlx", for file(1) and for us.
APPLICATION_ID = 0x70686C78

_CELLS = ",\n".join(f'    "{name}" TEXT NOT NULL' for name in COLUMNS)

#: Each script leads from the version that is its place in the list to the next. Only ever appended to.
MIGRATIONS: tuple[str, ...] = (
    f"""
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    directory TEXT NOT NULL,
    started REAL NOT NULL,
    finished REAL NOT NULL,
    state TEXT NOT NULL,
    exit_code INTEGER NOT NULL,
    reason TEXT NOT NULL,
    target TEXT NOT NULL,
    job_id TEXT NOT NULL,
    nodes INTEGER NOT NULL,
    argv TEXT NOT NULL,
    "user" TEXT NOT NULL,
    host TEXT NOT NULL
);
CREATE INDEX runs_by_time ON runs (finished);
CREATE TABLE "rows" (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    case_name TEXT NOT NULL,
    at REAL NOT NULL,
    value REAL,
{_CELLS},
    extra TEXT NOT NULL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE INDEX rows_by_time ON "rows" (at);
CREATE INDEX rows_by_model ON "rows" (model, metric, nnodes, n_gpus, launcher, at);
CREATE TABLE nodes (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    node TEXT NOT NULL,
    failed_first INTEGER NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (node, run)
) WITHOUT ROWID;
CREATE INDEX nodes_by_run ON nodes (run);
""",
)


class SchemaError(Exception):
    """The file is no history that this version can use; the message says why, without its name."""


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring a database to the current version; several processes may do so at once.

    Raises SchemaError for somebody else's file and for one of a newer version, which then is as it was;
    sqlite3.Error for a damaged one.
    """
    # In a transaction: another process may migrate between two questions.
    with transaction(connection, "DEFERRED"):
        if _version(connection, migrations) == len(migrations):
            return
    with transaction(connection, "IMMEDIATE"):
        for script in migrations[_version(connection, migrations) :]:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All that is done within, or nothing. IMMEDIATE keeps other writers out, DEFERRED is for reading."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection, migrations: Sequence[str]) -> int:
    """The version of a database, 0 for an empty one. Raises SchemaError."""
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if owner != APPLICATION_ID:
        if owner or found or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise SchemaError("it is the database of another program")
        return 0
    if found > len(migrations):
        raise SchemaError(
            f"it was written by a newer phalanx: its tables have version {found}, "
            f"this one knows {len(migrations)}"
        )
    return found
