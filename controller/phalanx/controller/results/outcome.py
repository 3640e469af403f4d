"""From how a case went on the nodes to its verdict in the event log."""

from __future__ import annotations

from pathlib import Path

from ..fleet.events import CaseFinished
from ..fleet.instructions import CaseEnd
from ..plan.model import Plan


def judge(
    plan: Plan, case: str, run_dir: Path, end: CaseEnd, seconds: float, job_id: str, image_id: str
) -> CaseFinished:
    """The verdict of a case and its rows, written where they belong. Blocks; never raises for a bad result."""
    status = "CANCELLED" if end.cancelled else "SUCCESS" if end.completed else "FAILURE"
    return CaseFinished(case, status, end.failure, ())
