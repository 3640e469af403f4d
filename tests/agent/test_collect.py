"""Which files a case gives back, from folders that a workload has arranged as it liked."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
from phalanx.agent.beneath import open_beneath
from phalanx.agent.collect import CollectLimits, find_results

LIMITS = CollectLimits(files=3, file_bytes=100, total_bytes=150)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "work").mkdir()
    return tmp_path / "results"


def find(results: Path, *patterns: str) -> tuple[list[str], list[str]]:
    found = find_results(results, results.parent / "work", patterns, LIMITS)
    return [file.name for file in found.files], found.left_out


def test_all_results_and_the_wanted_files_of_the_workspace_are_found_in_order(results: Path) -> None:
    work = results.parent / "work"
    (results / "b").mkdir()
    for path in (results / "perf.csv", results / "b/x.csv", work / "perf.csv", work / "run.log"):
        path.write_text(path.parent.name)
    assert find(results, "*.log", "perf.csv") == (["perf.csv", "b/x.csv", "run.log"], [])


def test_limits_leave_files_out_by_name(results: Path) -> None:
    for name, size in (("a", 90), ("b", 101), ("c", 70), ("d", 10)):
        (results / name).write_bytes(b"x" * size)
    names, left_out = find(results)
    assert names == ["a", "d"]
    assert [words.split(":")[0] for words in left_out] == ["b", "c"]


def test_links_fifos_and_names_that_cannot_be_shown_are_left_out_by_name(results: Path) -> None:
    (results / "secret").symlink_to("/etc/passwd")
    (results / "all").symlink_to("/etc")
    os.mkfifo(results / "fifo")
    (results / "a\nb").write_text("x")
    (results / "good").write_text("x")
    names, left_out = find(results)
    assert names == ["good"]
    assert len(left_out) == 3


def test_a_file_is_not_read_through_a_link_that_came_later(results: Path) -> None:
    (results / "sub").mkdir()
    (results / "sub/passwd").write_text("x")
    os.close(open_beneath(results, "sub/passwd"))
    (results / "sub/passwd").unlink()
    (results / "sub").rmdir()
    (results / "sub").symlink_to("/etc")
    with pytest.raises(OSError):
        open_beneath(results, "sub/passwd")
    (results / "direct").symlink_to("/etc/passwd")
    with pytest.raises(OSError):
        open_beneath(results, "direct")


def test_a_fifo_in_place_of_a_file_holds_nobody_up(results: Path) -> None:
    os.mkfifo(results / "perf.csv")
    with pytest.raises(OSError, match="regular"):
        open_beneath(results, "perf.csv")


def test_what_was_opened_beneath_is_closed_on_the_way(results: Path) -> None:
    (results / "a/b").mkdir(parents=True)
    (results / "a/b/c").write_text("x")
    before = descriptors()
    os.close(open_beneath(results, "a/b/c"))
    for name in ("a/x/c", "a/b/x", "a/b"):
        with pytest.raises(OSError):
            open_beneath(results, name)
    assert descriptors() == before


def test_what_rows_are_made_of_is_not_crowded_out_by_other_files(results: Path) -> None:
    work = results.parent / "work"
    for name in (*"abcd", ".phalanx/data.json", "script-results/perf.csv"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_text("x" * 40)
    (work / "perf.csv").write_text("x")
    found = find_results(results, work, ("perf.csv",), LIMITS, fresh=("perf.csv", 0))
    assert [file.name for file in found.files] == [
        ".phalanx/data.json",
        "script-results/perf.csv",
        "perf.csv",
    ]
    assert [words.split(":")[0] for words in found.left_out] == [*"abcd"]


def test_what_cannot_be_given_back_hides_no_file_of_its_name(results: Path) -> None:
    work = results.parent / "work"
    (results / "perf.csv").symlink_to("/etc/passwd")
    (results / "big.csv").write_text("x" * (LIMITS.file_bytes + 1))
    for name in ("perf.csv", "big.csv"):
        (work / name).write_text("x")
    found = find_results(results, work, ("*.csv",), LIMITS, fresh=("perf.csv", 0))
    assert [(file.folder, file.name) for file in found.files] == [(work, "perf.csv"), (work, "big.csv")]
    assert len(found.left_out) == 2


def test_a_results_file_from_before_the_script_hides_none_that_it_wrote(tmp_path: Path) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    for folder in (work / "run_directory", results):
        folder.mkdir(parents=True)
        (folder / "perf[a].csv").write_text("x")
    old = max((folder / "perf[a].csv").stat().st_ctime_ns for folder in (work / "run_directory", results))
    new = work / "perf[a].csv"
    new.write_text("x")
    while new.stat().st_ctime_ns <= old:  # the kernel's clock for files moves every few milliseconds
        new.write_text("x")
    name = glob.escape("perf[a].csv")
    found = find_results(results, work, (name,), LIMITS, "run_directory", (name, old + 1))
    assert [(file.folder, file.name) for file in found.files] == [(work, "perf[a].csv")]


def test_files_of_the_folder_that_steps_run_in_are_named_as_steps_see_them(tmp_path: Path) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    for name in ("run_directory/perf.csv", "run_directory/sub/perf.csv", "perf.csv", "tool_output/perf.csv"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    results.mkdir()
    found = find_results(results, work, ("perf.csv",), LIMITS, "run_directory")
    assert [(file.folder.name, file.name) for file in found.files] == [
        ("run_directory", "perf.csv"),
        ("run_directory", "sub/perf.csv"),
        ("work", "tool_output/perf.csv"),
    ]
    plain = find_results(results, work, ("perf.csv",), LIMITS)
    assert [file.name for file in plain.files][:2] == ["perf.csv", "run_directory/perf.csv"]
