"""Run directories: named, made, and found again by all the ways people mean one."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from phalanx.controller.runs.directory import (
    RunDirectory,
    SelectionError,
    all_runs,
    create,
    new_run_id,
    point_latest,
    runs_root,
    select,
    slug,
    write_private,
)

from .stories import STORIES, log_bytes

FIRST = "20261122-020124-llama70b-7f3a"
SECOND = "20261122-020125-llama70b-9c01"
THIRD = "20261123-101500-hostname-00ff"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for run_id, story in ((FIRST, "first_failure"), (SECOND, "success"), (THIRD, "join_missing")):
        run = create(tmp_path, run_id)
        run.events.write_bytes(log_bytes(STORIES[story]))
        point_latest(run)
    return tmp_path


def test_a_run_id_is_the_time_the_name_and_four_digits() -> None:
    moment = datetime(2026, 11, 22, 2, 1, 24, tzinfo=UTC)
    assert new_run_id("llama 70b/x", moment, "7f3a") == "20261122-020124-llama-70b-x-7f3a"
    assert re.fullmatch(r"\d{8}-\d{6}-a-[0-9a-f]{4}", new_run_id("a"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("../../etc", "etc"), ("", "run"), ("ü", "run"), ("-x-", "x"), ("a" * 99, "a" * 40)],
)
def test_a_name_becomes_harmless_in_a_path(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_a_run_directory_is_private_to_its_user(tmp_path: Path) -> None:
    run = create(tmp_path / "runs", FIRST)
    write_private(run.plan, b"{}")
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.logs.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.plan.stat().st_mode) == 0o600


def test_an_id_that_is_taken_is_refused(root: Path) -> None:
    with pytest.raises(FileExistsError):
        create(root, FIRST)


def test_runs_are_listed_newest_first_and_latest_is_no_run(root: Path) -> None:
    (root / "notes").mkdir()
    assert [run.run_id for run in all_runs(root)] == [THIRD, SECOND, FIRST]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", THIRD),
        ("@latest", THIRD),
        ("@failed", THIRD),
        (FIRST, FIRST),
        ("20261122-020124", FIRST),
        ("20261123", THIRD),
        ("9c01", SECOND),
        ("llama70b", SECOND),
        ("881240", THIRD),
    ],
)
def test_a_run_is_found_by_every_way_to_name_it(root: Path, selector: str, expected: str) -> None:
    assert select(root, selector).run_id == expected


def test_latest_is_what_the_link_shows_and_without_link_the_newest(root: Path) -> None:
    point_latest(select(root, FIRST))
    assert select(root).run_id == FIRST
    (root / "latest").unlink()
    assert select(root).run_id == THIRD


def test_failed_skips_runs_that_went_well(root: Path) -> None:
    select(root, THIRD).events.write_bytes(log_bytes(STORIES["success"]))
    assert select(root, "@failed").run_id == FIRST


def test_a_path_selects_a_run_elsewhere(root: Path) -> None:
    assert select(root / "other", f"{root}/{SECOND}").run_id == SECOND


@pytest.mark.parametrize(
    ("selector", "words"),
    [("20261122", "2 begin so"), ("nothing", "cannot find run 'nothing'"), ("/nowhere/x", "no events.jsonl")],
)
def test_an_ambiguous_or_unknown_selector_says_why(root: Path, selector: str, words: str) -> None:
    with pytest.raises(SelectionError, match=re.escape(words)):
        select(root, selector)


def test_an_empty_folder_tells_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="phalanx run"):
        select(tmp_path)


def test_the_root_follows_the_environment(tmp_path: Path) -> None:
    assert runs_root({"PHALANX_RUNS_DIR": str(tmp_path)}) == tmp_path
    assert runs_root({}) == Path.cwd() / "phalanx-runs"


def shut(where: Path, real: Callable[..., object]) -> Callable[..., object]:
    """``real``, but nobody may look at ``where`` or below: root can do that everywhere."""

    def refusing(path: str | Path, *words: object, **more: object) -> object:
        if Path(path).is_relative_to(where):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *words, **more)

    return refusing


def test_a_folder_of_runs_that_cannot_be_read_is_named_with_what_to_set(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", shut(root, os.scandir))
    with pytest.raises(
        SelectionError, match=r"cannot read the runs in .*: Permission denied; set PHALANX_RUNS_DIR"
    ):
        select(root)
    with pytest.raises(SelectionError, match="Not a directory"):
        select(Path("/dev/null"))


@pytest.mark.parametrize("selector", ["@latest", SECOND, "{root}/" + SECOND])
def test_a_run_of_another_user_is_named_and_not_taken_for_one_without_events(
    root: Path, monkeypatch: pytest.MonkeyPatch, selector: str
) -> None:
    point_latest(RunDirectory(root / SECOND))
    monkeypatch.setattr(Path, "open", shut(root / SECOND, Path.open))
    with pytest.raises(SelectionError, match=f"cannot read run {SECOND}: Permission denied"):
        select(root, selector.format(root=root))
    assert select(root, FIRST).run_id == FIRST
