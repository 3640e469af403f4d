"""What a run comes to when every part of phalanx did its work, and why a case was not run. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..exits import Exit, RankEnd, of_ranks
from ..plan.model import Plan
from .caseflow import Failure
from .trouble import Trouble


def workload_verdict(
    plan: Plan, ends: list[RankEnd], failed: Sequence[str], first: Failure | None
) -> Trouble:
    """The exit code and its words. ``failed``: names of cases; ``first``: what failed first on a node."""
    if plan.exit_policy == "workflow":
        return Trouble(f"failed: {', '.join(failed)}", Exit.RUN) if failed else Trouble("", Exit.OK)
    code = of_ranks(ends, plan.exit_policy)
    reason = first.words if first else "failed"
    if code == Exit.OK and (first is not None or failed):
        code = Exit.LAUNCH if first is not None else Exit.FAILURE
    return Trouble(reason if code else "", code)


def why_not_run(cancelled: bool, verdict: Trouble | None, gone: Sequence[str]) -> str:
    """Why a case never started: the run was to end, or nodes are ``gone``."""
    if cancelled:
        return "not run: the run was cancelled"
    return (
        f"not run: {verdict.reason}" if verdict is not None else f"not run: {', '.join(gone)} was lost before"
    )
