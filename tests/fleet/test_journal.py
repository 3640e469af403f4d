"""The event log: what a crash leaves, what a full disk does, and that one process alone writes it."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.journal import Journal, JournalError, read
from phalanx.controller.fleet.reserve import Reserve

LARGE = ev.AgentNotice("n0", "x" * 3000)
SMALL = ev.AgentNotice("n0", "words")


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writes beyond ``size`` bytes of any file fail with EFBIG, as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_events_come_back_with_their_numbers_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "events.jsonl", "run") as journal:
        journal.append([SMALL, LARGE], 1.0)
        journal.append([SMALL], 2.0)
    assert [(one.seq, one.event) for one in read(journal.path)] == [(1, SMALL), (2, LARGE), (3, SMALL)]


def test_a_torn_last_line_is_removed_and_the_next_event_takes_its_number(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal(path, "run") as journal:
        journal.append([SMALL, SMALL], 1.0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with Journal(path, "run") as journal:
        journal.append([LARGE], 2.0)
    assert [(one.seq, one.event) for one in read(path)] == [(1, SMALL), (2, LARGE)]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_numbers_go_on_after_events_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"v":9,"seq":7,"type":"from.the.future","data":{}}\n')
    with Journal(path, "run") as journal:
        (recorded, _), *_ = journal.append([SMALL], 1.0)
    assert recorded.seq == 8


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "events.jsonl", "run"),
        pytest.raises(JournalError, match="another controller holds it"),
    ):
        Journal(tmp_path / "events.jsonl", "run")


def test_a_folder_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        Journal(tmp_path / "gone" / "events.jsonl", "run")


def test_a_batch_that_does_not_fit_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    with Journal(tmp_path / "events.jsonl", "run") as journal:
        journal.append([SMALL], 1.0)
        before = journal.path.read_bytes()
        with files_no_larger_than(4000), pytest.raises(JournalError, match="File too large"):
            journal.append([LARGE, LARGE], 2.0)
        assert journal.path.read_bytes() == before
        journal.append([LARGE], 3.0)
    assert [one.seq for one in read(journal.path)] == [1, 2]


@pytest.mark.lab
def test_a_full_disk_takes_the_events_for_which_room_was_kept(small_disk: Path) -> None:
    reserve = Reserve(small_disk / ".reserve", 64 * 1024)
    with Journal(small_disk / "events.jsonl", "run", reserve) as journal:
        _fill(small_disk / "filler")
        assert not journal.short
        for number in range(10):
            journal.append([LARGE], float(number))
        assert journal.short
        assert not reserve.has_room()
        (small_disk / "filler").unlink()
        assert reserve.has_room()
        assert not journal.short
    assert [one.seq for one in read(journal.path)] == list(range(1, 11))
    assert [path.name for path in small_disk.iterdir()] == ["events.jsonl"]


@pytest.mark.lab
def test_when_even_the_kept_room_is_used_up_the_log_says_so(small_disk: Path) -> None:
    with Journal(small_disk / "events.jsonl", "run", Reserve(small_disk / ".reserve", 64 * 1024)) as journal:
        _fill(small_disk / "filler")
        with pytest.raises(JournalError, match="No space left"):
            for number in range(1000):
                journal.append([LARGE], float(number))
        assert 0 < journal.seq < 1000
    assert [one.seq for one in read(journal.path)][-1] == journal.seq


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
