"""The summary of a run: madengine's shape, every case in one list, strict JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.fleet.events import CaseFinished, Event, RunFinished
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.results.summary_output import finished, nothing_run, rows_in, run_phase, whole

from ..plan.making import models


def row(**more: str) -> dict[str, str]:
    return {
        "model": "m0",
        "performance": "",
        "metric": "",
        "status": "SUCCESS",
        "test_duration": "2.50",
        **more,
    }


def phase(*events: Event, cards: int = 1) -> dict[str, Any]:
    plan = plan_for_tags(models(*[{}] * cards, image="img:1"))
    found = run_phase(plan, events, 7)
    json.dumps(found, allow_nan=False)
    assert sum(len(found[name]) for name in found if name.endswith("_runs") and name != "total_runs") == cards
    return found


def test_a_success_has_its_performance_and_seconds() -> None:
    found = phase(CaseFinished("m0", "SUCCESS", "5 x", (row(performance="5.0", metric="x"),)))
    assert found == {
        "successful_runs": [
            {"model": "m0", "image": "img:1", "status": "SUCCESS", "performance": "5.0", "duration": 2.5}
        ],
        "failed_runs": [],
        "skipped_runs": [],
        "cancelled_runs": [],
        "total_runs": 1,
        "session_start_row": 7,
        "session_row_count": 1,
    }


@pytest.mark.parametrize(
    ("status", "place"),
    [("FAILURE", "failed_runs"), ("SKIPPED", "skipped_runs"), ("CANCELLED", "cancelled_runs")],
)
def test_what_did_not_succeed_says_why(status: str, place: str) -> None:
    found = phase(CaseFinished("m0", status, "because", (row(status=status),)))
    assert found[place] == [{"model": "m0", "image": "img:1", "status": status, "error": "because"}]


def test_several_results_are_one_run() -> None:
    rows = (row(model="m0_a", performance="1", metric="x"), row(model="m0_b", status="FAILURE"))
    found = phase(CaseFinished("m0", "SUCCESS", "2 results", rows))
    [one] = found["successful_runs"]
    assert (one["performance"], found["session_row_count"]) == (None, 2)
    assert one["results"][1] == {"model": "m0_b", "performance": None, "metric": None, "status": "FAILURE"}


@pytest.mark.parametrize("cell", ["inf", "-inf", "nan", "-nan", "1e999", "1_0", "long", ""])
def test_a_duration_that_is_no_number_is_none(cell: str) -> None:
    found = phase(CaseFinished("m0", "SUCCESS", "", (row(performance="1", metric="x", test_duration=cell),)))
    assert found["successful_runs"][0]["duration"] is None


def test_a_case_without_a_verdict_failed() -> None:
    found = phase(CaseFinished("m0", "SUCCESS", "", (row(),)), cards=2)
    assert [one["model"] for one in found["failed_runs"]] == ["m1"]
    assert "broke off" in found["failed_runs"][0]["error"]
    assert found["successful_runs"][0]["performance"] is None


def test_a_run_with_a_build_has_both_phases() -> None:
    found = whole({"failed_builds": []}, nothing_run(), succeeded=False)
    assert list(found) == ["build_phase", "run_phase", "overall_success"]
    assert found["run_phase"]["total_runs"] == 0


def test_a_run_is_over_with_its_last_event() -> None:
    assert not finished([CaseFinished("m0", "SUCCESS", "")])
    assert finished([RunFinished("failed", 3, "")])


def test_rows_that_were_there_before_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    assert rows_in(str(path)) == 0
    path.write_text('model\na\n"b\nb"\n\n')
    assert rows_in(str(path)) == 2
    assert rows_in("") is None
    assert rows_in(str(tmp_path)) is None
