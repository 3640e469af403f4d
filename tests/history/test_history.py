"""The database of the history: once per run, by many at a time, private, and never harmed by its version."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from phalanx.controller.results.history import HistoryError, opened
from phalanx.controller.results.history_query import Filter, results
from phalanx.controller.results.history_schema import APPLICATION_ID, MIGRATIONS, SchemaError, migrate
from phalanx.controller.results.perf_csv import COLUMNS
from phalanx.controller.results.state_home import history_path, state_directory

from .entries import DAY_S, START, row, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "phalanx" / "history.db"


def test_a_run_is_kept_with_every_column_and_those_that_only_it_has(path: Path) -> None:
    with opened(path) as history:
        assert history.add(run(1, row(12.5, batch_size="8")))
        (kept,) = history.connection.execute('SELECT * FROM "rows"')
        (entry,) = history.connection.execute("SELECT * FROM runs")
    assert {name: kept[name] for name in COLUMNS} == {
        name: text for name, text in row(12.5).columns.items() if name in COLUMNS
    }
    assert (kept["value"], json.loads(kept["extra"])) == (12.5, {"batch_size": "8"})
    assert json.loads(entry["argv"]) == ["phalanx", "run", "--tags", "m"]


def test_the_same_run_twice_is_one_entry(path: Path) -> None:
    with opened(path) as history:
        assert history.add(run(1, row(1.0)))
        assert not history.add(run(1, row(2.0), row(3.0)))
        assert [one.value for one in results(history, Filter(), 10)] == [1.0]


def test_folder_and_file_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path) as history:
            history.add(run(1, row(1.0)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_journal_is_one_that_network_filesystems_bear(path: Path) -> None:
    with opened(path) as history:
        history.add(run(1, row(1.0)))
        assert history.connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"


def test_a_damaged_file_is_named_and_left_as_it_is(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database, and was one perhaps\n" * 100)
    before = path.read_bytes()
    with (
        pytest.raises(HistoryError, match=r"cannot use the history .*history\.db: it is damaged"),
        opened(path),
    ):
        pass
    assert path.read_bytes() == before


def test_damage_in_the_middle_is_named_as_well(path: Path) -> None:
    with opened(path) as history:
        for number in range(50):
            history.add(run(number, *(row(1.0, at=START + place) for place in range(20))))
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(HistoryError, match="it is damaged"), opened(path) as history:
        results(history, Filter(), 10)


def test_a_database_of_a_newer_version_is_refused_and_not_overwritten(path: Path) -> None:
    with opened(path) as history:
        history.add(run(1, row(1.0)))
        history.connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with (
        pytest.raises(HistoryError, match=r"written by a newer phalanx: its tables have version 99"),
        opened(path),
    ):
        pass
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_refused_and_not_touched(path: Path) -> None:
    path.parent.mkdir(parents=True)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="it is the database of another program"), opened(path):
        pass
    assert path.read_bytes() == before


def test_an_older_database_becomes_a_current_one_with_all_that_it_has(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    migrate(connection, MIGRATIONS)
    connection.execute("INSERT INTO nodes VALUES ('r', 'n1', 1, 'lost')")
    newer = (
        *MIGRATIONS,
        "ALTER TABLE nodes ADD COLUMN rack TEXT NOT NULL DEFAULT ''; CREATE TABLE racks (name TEXT)",
    )
    migrate(connection, newer)
    migrate(connection, newer)
    assert connection.execute("SELECT node, why, rack FROM nodes").fetchall() == [("n1", "lost", "")]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_a_migration_that_fails_leaves_the_older_version_whole(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    migrate(connection, MIGRATIONS)
    broken = (*MIGRATIONS, "CREATE TABLE racks (name TEXT); ALTER TABLE nowhere ADD COLUMN x")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, broken)
    tables = {one[0] for one in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"runs", "rows", "nodes"}
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    with pytest.raises(SchemaError):
        migrate(connection, ())


def _add_some(path: Path, first: int, count: int) -> None:
    for number in range(first, first + count):
        with opened(path) as history:
            history.add(run(number, *(row(float(number), at=START + number) for _ in range(5))))


def test_many_runs_that_end_at_once_are_all_kept(path: Path) -> None:
    writers = [
        multiprocessing.get_context("spawn").Process(target=_add_some, args=(path, first * 10, 10))
        for first in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    with opened(path) as history:
        assert history.connection.execute("SELECT count(*) FROM runs").fetchone()[0] == 40
        assert history.connection.execute('SELECT count(*) FROM "rows"').fetchone()[0] == 200
        assert history.connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_who_finds_it_locked_for_too_long_says_so(path: Path) -> None:
    with opened(path) as first:
        first.connection.execute("BEGIN IMMEDIATE")
        with (
            pytest.raises(HistoryError, match="another process holds its lock"),
            opened(path, busy_s=0.01) as second,
        ):
            second.add(run(1))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HistoryError, match=r"cannot use the history .*/history\.db: .*/file: File exists"),
        opened(tmp_path / "file" / "phalanx" / "history.db"),
    ):
        pass


def test_pruning_forgets_old_runs_with_their_rows_and_nodes_and_no_others(path: Path) -> None:
    with opened(path) as history:
        for number in range(10):
            history.add(run(number, row(1.0), row(2.0), at=START + number * DAY_S))
        assert history.prune(START + 4 * DAY_S, dry_run=True) == (4, 8)
        assert history.connection.execute("SELECT count(*) FROM runs").fetchone()[0] == 10
        assert history.prune(START + 4 * DAY_S) == (4, 8)
        assert history.prune(START + 4 * DAY_S) == (0, 0)
        assert history.connection.execute("SELECT count(*) FROM runs").fetchone()[0] == 6
        assert history.connection.execute('SELECT count(*) FROM "rows"').fetchone()[0] == 12


def test_the_place_follows_the_environment() -> None:
    assert state_directory({"XDG_STATE_HOME": "/s"}) == Path("/s/phalanx")
    assert state_directory({"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/state/phalanx")
    assert history_path({"XDG_STATE_HOME": "/s"}) == Path("/s/phalanx/history.db")
    assert history_path({"PHALANX_HISTORY": "/else/h.db"}) == Path("/else/h.db")
    assert history_path({"PHALANX_HISTORY": "Off"}) is None
