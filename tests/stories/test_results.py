"""What a user finds after a run: a row for each model whatever became of it, a summary, what it left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.stories.program import Phalanx

pytestmark = pytest.mark.local

ROWS = "model,performance,metric\\n"
#: name -> script, fields of the card, status of its rows, performance of the first
MODELS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "good": ("echo warm; echo performance: 5.50 tok/s; echo performance: 6 tok/s", {}, "SUCCESS", "5.50"),
    "silent": ("echo nothing to see", {}, "FAILURE", ""),
    "liar": ("echo performance: 7 x; echo RuntimeError: lost >&2", {}, "FAILURE", "7"),
    "tested": ("echo performance: 8 x; echo 12 passed, 0 FAILED", {}, "SUCCESS", "8"),
    "known": (
        "echo performance: 9 x; echo ValueError: known",
        {"log_error_benign_patterns": ["known"]},
        "SUCCESS",
        "9",
    ),
    "empty": (f"printf '{ROWS}' > r.csv", {"multiple_results": "r.csv"}, "FAILURE", ""),
    "unmetred": (r"printf 'model,performance\na,1\n' > r.csv", {"multiple_results": "r.csv"}, "FAILURE", ""),
    "several": (
        f"printf '{ROWS}a,1,x\\nb,,x\\n' > r.csv",
        {"multiple_results": "r.csv"},
        "SUCCESS",
        "1",
    ),
    "endless": (
        f"printf '{ROWS}' > r.csv; yes a,1,x | head -n 1000000 >> r.csv",
        {"multiple_results": "r.csv"},
        "FAILURE",
        "",
    ),
    "crashing": (
        "echo why > $PHALANX_RESULTS/core.txt; echo trace > x_trace.csv; exit 7",
        {},
        "FAILURE",
        "",
    ),
}  # fmt: skip


def make_project(place: Path) -> Path:
    folder = place / "project"
    cards = []
    for name, (script, fields, _, _) in MODELS.items():
        scripts = folder / "scripts" / name
        scripts.mkdir(parents=True)
        (scripts / "run.sh").write_text(f"{script}\n")
        cards.append({"name": name, "scripts": f"scripts/{name}/run.sh", "tags": ["each"], **fields})
    (folder / "models.json").write_text(json.dumps(cards))
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_model_has_its_row_its_place_in_the_summary_and_what_it_left(
    local: Phalanx, tmp_path: Path
) -> None:
    project = make_project(tmp_path)
    given = ("--tags", "each", "--runtime", "process", "-s", "summary.json")
    run = local.run("run", *given, folder=project, code=3)
    rows = rows_of(project / "perf.csv")
    assert [row["model"] for row in rows] == [
        *("good", "silent", "liar", "tested", "known", "empty", "unmetred", "several_a", "several_b"),
        *("endless", "crashing"),
    ]
    first = {row["model"].removesuffix("_a"): row for row in reversed(rows)}
    for name, (_, _, status, performance) in MODELS.items():
        assert (first[name]["status"], first[name]["performance"]) == (status, performance), name

    summary = json.loads((project / "summary.json").read_text())
    assert {one["model"]: one["performance"] for one in summary["successful_runs"]} == {
        "good": "5.50",
        "tested": "8",
        "known": "9",
        "several": None,
    }
    errors = {one["model"]: one["error"] for one in summary["failed_runs"]}
    assert errors["liar"].endswith("liar/rank0.err:1 says: RuntimeError: lost")
    assert "it has no column metric (found model, performance)" in errors["unmetred"]
    assert "which has 1000000 rows" in errors["endless"]
    assert (summary["total_runs"], summary["session_start_row"], summary["session_row_count"]) == (10, 0, 11)

    assert json.loads((project / "perf_entry.json").read_text())["model"] == "crashing"
    supers = json.loads((project / "perf_super.json").read_text())
    assert [(one["model"], one["status"]) for one in supers] == [
        (row["model"], row["status"]) for row in rows
    ]
    kept = {path.name for path in run.folder.glob("results/*/crashing/**/*")}
    assert {"core.txt", "x_trace.csv"} <= kept
    assert (
        json.loads((run.folder / "entries" / "good" / "perf_entry.json").read_text())["performance"] == "5.50"
    )
    notes = {
        event["data"]["case"]: event["data"]["notes"]
        for event in map(json.loads, (run.folder / "events.jsonl").read_text().splitlines())
        if event["type"] == "case.finished"
    }
    assert any(note.startswith("results from ") for note in notes["several"])


def test_the_last_value_is_taken_when_asked_for_and_rows_are_appended(local: Phalanx, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    for which in ("first", "last"):
        given = ("--tags", "good", "--runtime", "process", "--performance", which, "-s", "s.json")
        local.run("run", *given, folder=project)
    assert [row["performance"] for row in rows_of(project / "perf.csv")] == ["5.50", "6"]
    assert json.loads((project / "s.json").read_text())["session_start_row"] == 1


def test_a_summary_that_cannot_be_written_is_refused_before_anything_begins(
    local: Phalanx, tmp_path: Path
) -> None:
    for given, words in (
        (("-s", "nowhere/s.json"), "cannot write nowhere/s.json"),
        (("-d", "-s", "s.json"), "cannot write a summary of a run that is left"),
    ):
        done = local.run("run", *given, "--", "true", folder=tmp_path, code=4)
        assert words in done.stderr
    assert not list(local.runs.glob("2*"))


def test_a_command_that_fails_has_a_summary_and_leaves_nothing_else(local: Phalanx, tmp_path: Path) -> None:
    local.run("run", "-s", "s.json", "--", "sh", "-c", "exit 5", folder=tmp_path, code=5)
    [failed] = json.loads((tmp_path / "s.json").read_text())["failed_runs"]
    assert failed["status"] == "FAILURE"
    assert not list(tmp_path.glob("perf*"))
