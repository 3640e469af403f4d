"""Results in places where others have left theirs: only what came while the script ran counts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from phalanx.agent import script_results
from phalanx.agent.script_results import ScriptResults, located
from phalanx.protocol.messages import SCRIPT_RESULTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where steps run."""
    made = tmp_path / "work"
    made.mkdir()
    return made


def brought(results: ScriptResults, folder: Path, into: Path) -> tuple[list[str], list[str]]:
    """Names and words of what is copied, without waiting."""
    into.mkdir(exist_ok=True)
    words = asyncio.run(results.bring(into, folder, 0.0))
    return sorted(path.name for path in (into / SCRIPT_RESULTS).glob("*")), words


def test_places_are_seen_from_where_steps_run_and_of_a_job_only_in_one(folder: Path) -> None:
    places = ("/shared/perf*.csv", "perf.csv", "/x/{JOB_ID}/perf.csv")
    both = [Path("/shared/perf*.csv"), folder / "perf.csv"]
    assert located(places, folder, "12") == [*both, Path("/x/12/perf.csv")]
    assert located(places, folder, "") == both


def test_what_was_there_before_is_no_result_until_it_is_written_again(folder: Path, tmp_path: Path) -> None:
    old, again = folder / "perf_old.csv", folder / "perf_again.csv"
    old.write_text("old")
    again.write_text("same")
    results = ScriptResults.opened([folder / "perf*.csv"])
    assert brought(results, folder, tmp_path / "none") == ([], [])
    again.write_text("same")
    os.utime(again, ns=(1, 1))  # a file server's clock may be years behind
    (folder / "perf_new.csv").write_text("new")
    (folder / "other.csv").write_text("not asked for")
    assert brought(results, folder, tmp_path / "some") == (["perf_again.csv", "perf_new.csv"], [])


def test_the_first_place_with_anything_new_counts_alone(folder: Path, tmp_path: Path) -> None:
    results = ScriptResults.opened([tmp_path / "shared" / "perf*.csv", folder / "perf.csv"])
    (folder / "perf.csv").write_text("mine")
    assert [path.parent for path in results.new()] == [folder]
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "perf_a.csv").write_text("shared")
    assert [path.name for path in results.new()] == ["perf_a.csv"]


def test_links_and_files_of_others_are_not_taken(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ScriptResults.opened([folder / "perf*.csv"])
    (tmp_path / "secret").write_text("secret")
    (folder / "perf_link.csv").symlink_to(tmp_path / "secret")
    (folder / "perf_dir.csv").mkdir()
    os.mkfifo(folder / "perf_fifo.csv")
    assert results.new() == []
    (folder / "perf.csv").write_text("mine")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert results.new() == []


def test_a_file_that_is_too_large_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_results, "MOST_BYTES", 3)
    results = ScriptResults.opened([folder / "perf*.csv"])
    (folder / "perf_1.csv").write_text("four")
    (folder / "perf_2.csv").write_text("two")
    names, [words] = brought(results, folder, tmp_path / "into")
    assert names == ["perf_2.csv"]
    assert words == f"{folder}/perf_1.csv: 4 bytes, 3 are the most"


def test_only_a_place_that_others_can_write_to_is_waited_for(folder: Path, tmp_path: Path) -> None:
    nowhere = ScriptResults([folder / "perf.csv", tmp_path / "no" / "such" / "perf.csv"])
    assert not nowhere.may_come(folder)
    (tmp_path / "user").mkdir()
    assert ScriptResults([tmp_path / "user" / "12" / "perf.csv"]).may_come(folder)


async def test_a_file_that_shows_late_is_found_at_the_next_look(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def passes(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            (tmp_path / "perf.csv").write_text("late")

    monkeypatch.setattr(script_results.asyncio, "sleep", passes)
    results = ScriptResults.opened([tmp_path / "perf.csv"])
    (tmp_path / "into").mkdir()
    assert await results.bring(tmp_path / "into", folder, 1000.0) == []
    assert looks == 2
    assert (tmp_path / "into" / SCRIPT_RESULTS / "perf.csv").read_text() == "late"
