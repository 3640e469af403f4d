"""What became of a run as one JSON document for scripts: madengine's ``--summary-output``.

It is made from the event log, for a run that failed as well, and every case of the plan is in exactly one of
its lists: ``successful_runs``, ``failed_runs``, and, beyond madengine, ``skipped_runs`` and
``cancelled_runs``. Several results of a case are one run with ``results``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..fleet.events import CaseFinished, Event, RunFinished
from ..plan.model import CasePlan, Plan
from .perf_csv import LONGEST_CELL
from .summary import number
from .table import cells_up_to

LISTS = {
    "SUCCESS": "successful_runs",
    "FAILURE": "failed_runs",
    "SKIPPED": "skipped_runs",
    "CANCELLED": "cancelled_runs",
}


def run_phase(plan: Plan, events: Iterable[Event], first_row: int | None = None) -> dict[str, Any]:
    """The document of a run. ``first_row``: rows of the plan's perf.csv before it, None when not known."""
    ends = {event.case: event for event in events if isinstance(event, CaseFinished)}
    found: dict[str, Any] = {name: [] for name in LISTS.values()}
    for case in plan.cases:
        end = ends.get(case.name) or CaseFinished(
            case.name, "FAILURE", "it has no verdict: the run broke off"
        )
        found[LISTS.get(end.status, "failed_runs")].append(_run(case, end))
    return {
        **found,
        "total_runs": len(plan.cases),
        "session_start_row": first_row,
        "session_row_count": sum(len(end.rows) for end in ends.values()),
    }


def nothing_run() -> dict[str, Any]:
    """``run_phase`` of a run that did not begin."""
    none: dict[str, Any] = {name: [] for name in LISTS.values()}
    return {**none, "total_runs": 0, "session_start_row": None, "session_row_count": 0}


def whole(build_phase: Mapping[str, Any], run: Mapping[str, Any], succeeded: bool) -> dict[str, Any]:
    """The document of a run that built its images first."""
    return {"build_phase": dict(build_phase), "run_phase": dict(run), "overall_success": succeeded}


def finished(events: Iterable[Event]) -> bool:
    """Whether the log has the end of its run."""
    return any(isinstance(event, RunFinished) for event in events)


def rows_in(path: str) -> int | None:
    """Rows of a perf.csv as it is now, 0 when it is not there; None when it cannot be read."""
    if not path:
        return None
    try:
        with (
            Path(path).open(encoding="utf-8-sig", errors="replace", newline="") as file,
            cells_up_to(LONGEST_CELL),
        ):
            return max(sum(1 for cells in csv.reader(file) if cells) - 1, 0)
    except FileNotFoundError:
        return 0
    except (OSError, csv.Error):
        return None


def _run(case: CasePlan, end: CaseFinished) -> dict[str, Any]:
    """One case in the words of madengine; of one that did not succeed why."""
    found = {"model": case.columns.get("model", case.name), "image": case.image, "status": end.status}
    if end.status != "SUCCESS":
        return {**found, "error": end.reason}
    results = [
        {name: row.get(name) or None for name in ("model", "performance", "metric", "status")}
        for row in end.rows
    ]
    single = len(results) == 1
    return {
        **found,
        "performance": results[0]["performance"] if single else None,
        "duration": number(end.rows[0].get("test_duration", "")) if end.rows else None,
        **({} if single else {"results": results}),
    }
