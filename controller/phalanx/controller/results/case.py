"""The verdict of a case and its rows: exit statuses, files and logs have to agree before it is a SUCCESS.

Every case that was asked for gets at least one row, whatever became of it. The rules are madengine's: what
failed, failed; a model whose logs tell of an error or that has no performance value failed as well; a plain
command needs none. What was measured stays in the rows of a failure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path, PurePosixPath

from phalanx.protocol.messages import JOB_NUMBER, SCRIPT_RESULTS

from ..plan.model import CasePlan, Plan
from .extract import Which, first_performance
from .perf_csv import COLUMNS, PerfCsvError, append_rows, guarded
from .provenance import CollectedFile, columns_of
from .scan import first_error, rules_of
from .script import script_rows
from .summary import tells
from .table import Candidate, Choice, Table, TableError, best, has_value, results_of

PERF_CSV = "perf.csv"
#: Columns of madengine that a row of a results file may fill: what a result was measured with.
OWN_COLUMNS = frozenset(
    {"n_gpus", "nnodes", "gpus_per_node", "training_precision", "args", "relative_change", "test_duration"}
)


class Status(Enum):
    """The column ``status``."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class RankLog:
    """The log files of a rank's main step, in the run directory."""

    rank: int
    node: str
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """How a case went on its nodes.

    ``failure``: words for the first failure, "" for none. ``skipped``: why it was not run, or "".
    ``seconds``: how long its steps took. ``hostname``: of the login node. ``gpus_per_node``: what the nodes
    have, None for unknown. ``missing_logs``: logs of its ranks that did not arrive whole. ``not_brought``:
    node, path and why, of files that a node has and that could not be taken from it. ``silent``: nodes that
    did not say which files they have.
    """

    failure: str = ""
    cancelled: bool = False
    skipped: str = ""
    nodes: tuple[str, ...] = ()
    job_id: str = ""
    seconds: float = 0.0
    hostname: str = ""
    image_id: str = ""
    gpu_architecture: str = ""
    gpus_per_node: int | None = None
    files: tuple[CollectedFile, ...] = ()
    logs: tuple[RankLog, ...] = ()
    missing_logs: tuple[str, ...] = ()
    not_brought: tuple[tuple[str, str, str], ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CaseVerdict:
    """``reason``: a sentence for people. ``notes``: how results were chosen, what could not be read.

    ``common``: what the run knows of every row. ``columns``: of the results file that rows are from, if any.
    """

    status: Status
    reason: str
    rows: tuple[dict[str, str], ...]
    notes: tuple[str, ...] = field(default_factory=tuple)
    common: dict[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


def finish_case(plan: Plan, case: CasePlan, run_dir: Path, outcome: CaseOutcome) -> CaseVerdict:
    """Judge a case by its outcome and what is in the run directory. Reads files; writes nothing."""
    reported, notes = columns_of(outcome.files, run_dir)
    base = {**_base_row(plan, case, outcome), **reported}
    verdict = _verdict(case, run_dir, outcome, base)
    return replace(verdict, notes=(*verdict.notes, *notes), common=base)


def _verdict(case: CasePlan, run_dir: Path, outcome: CaseOutcome, base: dict[str, str]) -> CaseVerdict:
    if outcome.cancelled:
        return _single(base, Status.CANCELLED, outcome.failure or "cancelled")
    if outcome.failure:
        return _single(base, Status.FAILURE, outcome.failure)
    if outcome.skipped:
        return _single(base, Status.SKIPPED, outcome.skipped)
    judge = _by_table if case.result.multiple_results else _by_log
    verdict = (_by_script if case.result.places else judge)(case, run_dir, outcome, base)
    return _with_errors(verdict, _error_in_logs(case, run_dir, outcome) or _unknown(case, outcome))


def _unknown(case: CasePlan, outcome: CaseOutcome) -> str:
    """What is not known of a case that its success would have to rest on, "" for nothing."""
    rule = case.result
    for node, path, why in outcome.not_brought:
        of_script = bool(rule.places) and PurePosixPath(path).parts[:1] == (SCRIPT_RESULTS,)
        if of_script or (rule.multiple_results and _is_result(path, rule.multiple_results)):
            return f"the results of {node} are not known: {path} could not be taken from it: {why}"
    if outcome.silent and (rule.multiple_results or rule.places):
        return f"the results of {outcome.silent[0]} are not known: it did not say in time which files it has"
    of_logs = rule.scan or (rule.require_performance and not (rule.multiple_results or rule.places))
    if outcome.missing_logs and of_logs:
        count, first = len(outcome.missing_logs), outcome.missing_logs[0]
        return f"what the ranks said is not known: {count} of their logs did not arrive whole, first {first}"
    return ""


def _error_in_logs(case: CasePlan, run_dir: Path, outcome: CaseOutcome) -> str:
    """Words for the first error in the log of the lowest rank that has one, "" for none."""
    if not case.result.scan:
        return ""
    rules = rules_of(case.result.patterns, case.result.benign)
    for log in sorted(outcome.logs, key=lambda one: one.rank):
        for path in filter(None, (log.out, log.err)):
            try:
                found = first_error(run_dir / path, rules)
            except OSError as error:
                return f"cannot read {path}: {error.strerror}"
            if found is not None:
                who = f"rank {log.rank}" if log.rank >= 0 else "the script"
                return f"{who} ended well, but {path}:{found.line} says: {found.text}"
    return ""


def _with_errors(verdict: CaseVerdict, error: str) -> CaseVerdict:
    """No row of a case whose logs tell of an error is a success; values stay."""
    if not error:
        return verdict
    failed = Status.FAILURE
    rows = tuple({**row, "status": failed.value} for row in verdict.rows)
    notes = (*verdict.notes, verdict.reason) if verdict.status is failed else verdict.notes
    return replace(verdict, status=failed, reason=error, rows=rows, notes=notes)


def record_rows(
    plan: Plan, run_dir: Path, rows: tuple[dict[str, str], ...], file_mode: int | None = None
) -> str:
    """Append rows to the run's perf.csv and the plan's; "" or why that failed. Blocks on locks.

    ``file_mode``: of the plan's, when it is made; None as the umask leaves it.
    """
    errors: list[str] = []
    own = str(run_dir / PERF_CSV)
    for path in dict.fromkeys(filter(None, (own, plan.output_csv))):
        try:
            append_rows(Path(path), rows, mode=None if path == own else file_mode)
        except PerfCsvError as error:
            errors.append(str(error))
    return "; ".join(errors)


def _by_table(case: CasePlan, run_dir: Path, outcome: CaseOutcome, base: dict[str, str]) -> CaseVerdict:
    """A row for each row of the best of the collected result files."""
    wanted = case.result.multiple_results
    candidates = [
        Candidate(file.node, file.node_rank, run_dir / file.kept, f"{file.node}: {file.path}")
        for file in outcome.files
        if _is_result(file.path, wanted)
    ]
    if not candidates:
        why = f"no node left {wanted}, the file that the model's multiple_results names"
        return _unmeasured(case, base, why)
    choice, unusable = best(candidates)
    if choice is None:
        return _unmeasured(case, base, f"cannot read {wanted}: {'; '.join(unusable[:3])}", tuple(unusable))
    return _of_choice(case, base, choice, (f"results from {choice.why}", *unusable))


def _of_choice(case: CasePlan, base: dict[str, str], choice: Choice, notes: tuple[str, ...]) -> CaseVerdict:
    shown, count = choice.candidate.shown, choice.count
    if not count.valued:
        return _unmeasured(case, base, f"no row of {shown} has a performance", notes)
    try:
        table = results_of(choice.candidate.path)
    except TableError as error:
        why = f"cannot take the results of {shown}, which has {count.rows} rows: {error}"
        return _single(base, Status.FAILURE, why, notes)
    rows = _rows_of(table, base)
    failed = len(rows) - count.valued
    reason = f"{len(rows)} results" + (f", {failed} without a performance" if failed else "")
    return CaseVerdict(Status.SUCCESS, reason, rows, notes, columns=table.columns)


def _rows_of(table: Table, base: dict[str, str]) -> tuple[dict[str, str], ...]:
    """Rows with the model's name in front of their own; columns beyond madengine's are added.

    A result may say what it was measured with (its precision, its duration); not what the run knows better.
    """
    extra = {guarded(name): name for name in table.columns if name not in COLUMNS}
    own = [name for name in table.columns if name in OWN_COLUMNS]
    rows: list[dict[str, str]] = []
    for found in table.rows:
        valued = has_value(found["performance"])
        rows.append(
            {
                **base,
                **{name: found[name] for name in own if tells(name, found[name])},
                "model": f"{base['model']}_{found['model']}",
                "performance": found["performance"] if valued else "",
                "metric": found["metric"],
                "status": (Status.SUCCESS if valued else Status.FAILURE).value,
                **{column: found[name] for column, name in extra.items()},
            }
        )
    return tuple(rows)


def _by_script(case: CasePlan, run_dir: Path, outcome: CaseOutcome, base: dict[str, str]) -> CaseVerdict:
    """The rows that a script wrote itself, else the performance that it printed."""
    multiple = PurePosixPath(case.result.multiple_results).name
    left = [file for file in outcome.files if PurePosixPath(file.path).parts[0] == SCRIPT_RESULTS]
    own = [file for file in left if PurePosixPath(file.path).name != multiple]
    if not own:
        if multiple and any(_is_result(file.path, case.result.multiple_results) for file in outcome.files):
            return _by_table(case, run_dir, outcome, base)
        verdict = _by_log(case, run_dir, outcome, base)
        if verdict.status is Status.SUCCESS:
            return verdict
        places = ", ".join(place.replace(JOB_NUMBER, outcome.job_id or "JOB") for place in case.result.places)
        return _unmeasured(case, base, f"{verdict.reason}, and no new file of results: looked at {places}")
    found = script_rows([(PurePosixPath(file.path).name, run_dir / file.kept) for file in own], base)
    notes = (
        *(f"results from {name}, which the script left" for name in found.read),
        *found.copies,
        *found.unusable,
    )
    if not found.rows:
        why = "; ".join(found.unusable[:3]) or f"{', '.join(found.read)} has no rows"
        return _unmeasured(case, base, f"cannot use the script's results: {why}", notes)
    rows = tuple(
        {**row, "status": (Status.SUCCESS if good else Status.FAILURE).value}
        for row, good in zip(found.rows, found.good, strict=True)
    )
    failed = found.good.count(False)
    if failed == len(rows):
        why = f"no row of {', '.join(found.read)} has a performance"
        return CaseVerdict(Status.FAILURE, why, rows, notes, columns=found.columns)
    reason = f"{len(rows)} results" + (f", {failed} failed" if failed else "")
    return CaseVerdict(Status.SUCCESS, reason, rows, notes, columns=found.columns)


def _by_log(case: CasePlan, run_dir: Path, outcome: CaseOutcome, base: dict[str, str]) -> CaseVerdict:
    """The performance line of the lowest rank that printed one."""
    logs = sorted(outcome.logs, key=lambda log: log.rank)
    paths = [run_dir / path for log in logs for path in (log.out, log.err) if path]
    which: Which = case.result.which
    try:
        found = first_performance(paths, which)
    except OSError as error:
        return _unmeasured(case, base, f"cannot read {error.filename}: {error.strerror}")
    if found is None:
        return _unmeasured(
            case, base, f"no line 'performance: VALUE METRIC' in the logs of {len(logs)} ranks"
        )
    path, performance = found
    row = {
        **base,
        "performance": performance.value,
        "metric": performance.metric,
        "status": Status.SUCCESS.value,
    }
    note = (
        f"{which} performance line of {path.relative_to(run_dir) if path.is_relative_to(run_dir) else path}"
    )
    return CaseVerdict(Status.SUCCESS, f"{performance.value} {performance.metric}", (row,), (note,))


def _unmeasured(case: CasePlan, base: dict[str, str], why: str, notes: tuple[str, ...] = ()) -> CaseVerdict:
    """All ranks ended well and there is no value: a failure where one is required."""
    excused = case.env.get("MAD_COLLECT_METRICS")
    if case.result.require_performance and not (excused and excused.value.lower() == "false"):
        return _single(base, Status.FAILURE, why, notes)
    return _single(base, Status.SUCCESS, "all ranks ended well", notes)


def _single(base: dict[str, str], status: Status, reason: str, notes: tuple[str, ...] = ()) -> CaseVerdict:
    return CaseVerdict(status, reason, ({**base, "status": status.value},), notes)


def _base_row(plan: Plan, case: CasePlan, outcome: CaseOutcome) -> dict[str, str]:
    """All columns, with what plan and outcome know."""
    row = {name: case.columns.get(name, "") for name in COLUMNS}
    nodes = len(outcome.nodes) or plan.target.nodes
    per_node = outcome.gpus_per_node if row["gpus_per_node"] == "" else int(row["gpus_per_node"])
    slurm = plan.target.kind == "slurm"
    return {
        **row,
        "nnodes": str(nodes),
        "gpus_per_node": "" if per_node is None else str(per_node),
        "n_gpus": "" if per_node is None else str(per_node * nodes),
        "machine_name": (outcome.job_id if slurm else "") or outcome.hostname,
        "docker_sha": outcome.image_id,
        "gpu_architecture": outcome.gpu_architecture,
        "test_duration": f"{outcome.seconds:.2f}" if outcome.seconds else "",
    }


def _is_result(path: str, wanted: str) -> bool:
    """Whether a collected file is the one that ``multiple_results`` names, in whatever folder it was left."""
    parts, last = PurePosixPath(path).parts, PurePosixPath(wanted).parts
    return parts[-len(last) :] == last
