"""From the event log to the outcome of a case, and from its verdict back to an event."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.protocol.messages import MAIN_STEP

from ..fleet.events import CaseCollectedOn, CaseFinished, Event, FileCollected, RankStarted
from ..fleet.instructions import CaseEnd
from ..logs.paths import StreamName, log_path, safe
from ..plan.model import CasePlan, Plan
from .case import CaseOutcome, CaseVerdict, RankLog, finish_case, record_rows
from .configs import Config, ConfigError, read_config
from .entries import entries_of
from .provenance import CollectedFile, architecture
from .side_files import record_files, replace_files, side_files

#: Where a run keeps its copies of perf_entry.json and the like; of several cases in a folder for each.
ENTRIES = "entries"


@dataclass(slots=True)
class Evidence:
    """What the event log says about one case that its verdict needs."""

    files: list[FileCollected] = field(default_factory=list)
    started: dict[int, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Take an event of the case."""
        if isinstance(event, FileCollected):
            self.files.append(event)
        elif isinstance(event, CaseCollectedOn) and not event.answered:
            self.silent.append(event.node)
        elif isinstance(event, RankStarted) and event.step == MAIN_STEP:
            self.started[event.rank] = event.node


#: Logs that have not arrived whole.
Missing = tuple[StreamName, ...]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the run knows beside the case. ``facts``: as the nodes reported them, by node.

    ``file_mode``: of files that are made in the project; None as the umask leaves it.
    """

    job_id: str
    image_id: str
    seconds: float
    facts: Mapping[str, dict[str, Any]]
    missing: Missing = ()
    file_mode: int | None = None


def outcome_of(
    plan: Plan, case: str, end: CaseEnd, evidence: Evidence, circumstances: Circumstances
) -> CaseOutcome:
    """How a case went, in the words of the results."""
    rank_of = {node: rank for rank, node in enumerate(end.nodes)}
    single = len(plan.cases) == 1
    missing = [name for name in circumstances.missing if name.step == MAIN_STEP]
    return CaseOutcome(
        failure=end.failure,
        cancelled=end.cancelled,
        skipped=end.skipped,
        nodes=end.nodes,
        job_id=circumstances.job_id,
        seconds=circumstances.seconds,
        hostname=socket.gethostname(),
        image_id=circumstances.image_id,
        gpu_architecture=architecture(circumstances.facts, end.nodes),
        gpus_per_node=_gpus_per_node(circumstances.facts, end.nodes),
        files=tuple(
            CollectedFile(file.node, rank_of.get(file.node, 0), file.path, file.kept)
            for file in evidence.files
            if not file.error
        ),
        logs=tuple(_rank_logs(evidence.started, case, single)),
        missing_logs=tuple(str(log_path(name, single_case=single)) for name in missing),
        not_brought=tuple((file.node, file.path, file.error) for file in evidence.files if file.error),
        silent=tuple(evidence.silent),
    )


def _gpus_per_node(facts: Mapping[str, dict[str, Any]], nodes: tuple[str, ...]) -> int | None:
    """GPUs that every node has; None when that is not known of one of them."""
    counts = [len(facts[node].get("gpus", ())) for node in nodes if node in facts]
    return min(counts) if counts and len(counts) == len(nodes) else None


def _rank_logs(started: Mapping[int, str], case: str, single: bool) -> Iterable[RankLog]:
    for rank, node in started.items():
        out, err = (
            str(log_path(StreamName(node, case, MAIN_STEP, rank, output), single_case=single))
            for output in ("out", "err")
        )
        yield RankLog(rank, node, out, err)


def judge(
    plan: Plan, case: str, run_dir: Path, end: CaseEnd, evidence: Evidence, circumstances: Circumstances
) -> CaseFinished:
    """The verdict of a case; its rows are written where they belong. Blocks on files and their locks.

    Rows that cannot be written make no success: the case is then a FAILURE that says so. What is written
    beside them is made from them: where that fails it is said, and the rows count.
    """
    planned = next(one for one in plan.cases if one.name == case)
    outcome = outcome_of(plan, case, end, evidence, circumstances)
    verdict = finish_case(plan, planned, run_dir, outcome)
    error = record_rows(plan, run_dir, verdict.rows, circumstances.file_mode)
    status = "FAILURE" if error and verdict.status.value == "SUCCESS" else verdict.status.value
    reason = f"{verdict.reason}; {error}" if error else verdict.reason
    notes = verdict.notes
    if plan.entries and outcome.logs and not (end.cancelled or outcome.skipped):
        beside, more = _record_beside(plan, planned, run_dir, verdict, circumstances.file_mode)
        error, notes = "; ".join(filter(None, (error, beside))), (*notes, *more)
    return CaseFinished(case, status, reason, verdict.rows, error, notes)


def _record_beside(
    plan: Plan, case: CasePlan, run_dir: Path, verdict: CaseVerdict, file_mode: int | None
) -> tuple[str, tuple[str, ...]]:
    """Write what stands beside rows, in the project and in the run; what failed, and notes."""
    config, notes = Config(), []
    if case.result.config:
        try:
            config = read_config(case.result.config, case.result.scripts, case.result.project)
        except ConfigError as error:
            notes.append(f"configs: --config {case.result.config} is not read: {error}")
    made = entries_of(verdict.rows, verdict.common, config, verdict.columns)
    notes += filter(None, [made.note])
    files = side_files(made)
    kept = run_dir / ENTRIES
    try:
        kept /= "" if len(plan.cases) == 1 else safe(case.name)
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        in_run = replace_files(kept, files)
    except OSError as error:
        in_run = f"cannot write {kept}: {error.strerror}"
    errors = (in_run, record_files(Path(plan.entries), files, file_mode))
    return "; ".join(filter(None, errors)), tuple(notes)
