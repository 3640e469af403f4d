"""The page of a run: how it ended and why, results, what each node did when, and what it ran on.

All of it comes from the run directory. A part that cannot be read is named on the page; the event log alone
must be there.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.controller.plan.codec import from_json
from phalanx.controller.plan.model import Plan
from phalanx.controller.plan.secrets import MASK
from phalanx.controller.results.summary import Summary, of_records, read_summary
from phalanx.controller.results.table import TableError
from phalanx.controller.runs.directory import RunDirectory, read_identity
from phalanx.controller.runs.history_note import trouble
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.records import read_all
from phalanx.controller.runs.status import stamp, state_of
from phalanx.controller.runs.view import fold
from phalanx.controller.runs.words import duration, number, plural
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.secrecy import url_password

from .conditions import conditions
from .csv_page import Tile
from .failures import failures
from .grid import grid
from .rendering import render, tone
from .timeline import timeline
from .trend import Trend, trends

#: Notices that are shown, the last of the run.
MOST_NOTICES = 40
_MODELS = {"SUCCESS": "well", "FAILURE": "failed"}


class ReportError(Exception):
    """No page can be made. The message is for the user."""


@dataclass(frozen=True, slots=True)
class Papers:
    """What lies beside the event log: the plan (None when it cannot be read), who started the run and with
    which versions, and words for what could not be read."""

    plan: Plan | None
    identity: dict[str, Any]
    unread: tuple[str, ...]


def run_page(run: RunDirectory, now: float) -> bytes:
    """The page. ``now``: wall clock, for a run that goes on. Raises ReportError."""
    events = read_all(run.events)
    if not events:
        raise ReportError(f"cannot report on {run.run_id}: {run.shown()}/events.jsonl holds no event")
    view = fold(events, run.run_id)
    papers = _papers(run)
    results = run_results(view)
    state = state_of(run, view, now)
    return render(
        "run.html.j2",
        title=view.name or run.name,
        run_id=run.run_id,
        directory=run.shown(),
        state=state,
        over=view.finished,
        reason="" if view.failure is not None else (view.reason or view.ending),
        tiles=_tiles(view, state, now),
        failures=failures(run, view),
        grid=grid(results),
        total=len(results.rows),
        trends=_history(view, papers.plan),
        timeline=timeline(events),
        conditions=conditions(view, papers.plan),
        command=_command(papers),
        origin=list(_origin(papers.identity)),
        loose_ends=[*papers.unread, *_loose_ends(view), *_not_in_history(run)],
        notices=[(stamp(at) or "", words) for at, words in dict.fromkeys(view.notices[-MOST_NOTICES:])],
    )


def run_results(view: RunView) -> Summary:
    """The rows of a run in the order of its cases; a case that has none yet stands with its state."""
    records: list[dict[str, str]] = []
    for name in view.case_names:
        case = view.case(name)
        reason = {"reason": case.reason} if case.reason and case.status not in ("SUCCESS", "") else {}
        rows = case.rows or ({"model": name, "status": case.status or "not run"},)
        records += [{**row, "status": row.get("status") or case.status, **reason} for row in rows]
    return of_records(records)


def _tiles(view: RunView, state: str, now: float) -> list[Tile]:
    until = view.finished_at or (view.last_at if state in ("lost", "unknown") else now) or now
    facts = [Tile("took" if view.finished else "so far", duration(view.seconds(until)))]
    if view.exit_code is not None:
        facts.append(Tile("exit", str(view.exit_code), "bad" if view.exit_code else "good"))
    joined = f"{view.joined} of {view.expected}" if view.joined != view.expected else str(view.joined)
    facts.append(Tile("nodes", joined, "bad" if view.finished and view.joined < view.expected else ""))
    ranks = sum(case.ranks for case in view.cases.values())
    if ranks:
        facts.append(Tile("ranks", number(ranks)))
    if len(view.case_names) > 1:
        facts += _case_tiles(view)
    if view.rows:
        facts.append(Tile("rows", number(view.rows)))
    if view.job_id:
        facts.append(Tile("job", view.job_id))
    return facts


def _case_tiles(view: RunView) -> Iterator[Tile]:
    """How many models ended how."""
    counts: dict[str, int] = {}
    for name in view.case_names:
        status = view.case(name).status or "not run"
        counts[status] = counts.get(status, 0) + 1
    for status, count in counts.items():
        kind = tone(status)
        words = _MODELS.get(status, status.lower())
        yield Tile(f"models {words}", str(count), kind if kind != "plain" else "")


def _papers(run: RunDirectory) -> Papers:
    unread = []
    plan: Plan | None = None
    identity: dict[str, Any] = {}
    try:
        plan = from_json(run.plan.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, InputError) as error:
        unread.append(_unread("plan.json", error))
    try:
        identity = read_identity(run)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        unread.append(_unread("run.json", error))
    return Papers(plan, identity, tuple(unread))


def _unread(name: str, error: Exception) -> str:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return why if why and why.startswith("cannot read") else f"cannot read {name}: {why}"


def _command(papers: Papers) -> str:
    """The command line as it was stored, masked; passwords of URLs are masked again."""
    argv = papers.plan.argv if papers.plan is not None else tuple(map(str, papers.identity.get("argv") or ()))
    return shlex.join(_without_password(word) for word in argv)


def _without_password(word: str) -> str:
    password = url_password(word)
    return word.replace(password, MASK) if password else word


def _origin(identity: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Who started it, where, with which versions."""
    versions = identity.get("versions")
    for name, version in versions.items() if isinstance(versions, dict) else ():
        yield str(name), str(version)
    user, host = identity.get("user"), identity.get("host")
    if user and host:
        yield "started by", f"{user} on {host}"
    if identity.get("cwd"):
        yield "in", str(identity["cwd"])


def _history(view: RunView, plan: Plan | None) -> list[Trend]:
    """How the models of this run did before, from the table that its rows were appended to, up to them."""
    if plan is None or not plan.output_csv:
        return []
    ours = [dict(row) for case in view.cases.values() for row in case.rows]
    if not ours:
        return []
    try:
        rows = list(read_summary(Path(plan.output_csv)).records())
    except TableError:
        return []
    models = {row.get("model", "") for row in ours}
    end = _last_place(rows, ours)
    found = trends(row for row in rows[:end] if row.get("model", "") in models)
    return found if any(trend.rows > 1 for trend in found) else []


def _last_place(rows: list[dict[str, str]], ours: list[dict[str, str]]) -> int:
    """The end of the last row of ours in the table; 0 when it is not there."""
    wanted = {_key(row) for row in ours}
    return next((place + 1 for place in range(len(rows) - 1, -1, -1) if _key(rows[place]) in wanted), 0)


def _key(row: dict[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, cell.strip()) for name, cell in row.items() if cell.strip())


def _not_in_history(run: RunDirectory) -> Iterator[str]:
    if why := trouble(run):
        yield f"not in the history of runs: {why}"


def _loose_ends(view: RunView) -> Iterator[str]:
    """What is left over, was not written or is missing: never passed over in silence."""
    for words in view.leftovers:
        yield f"left over: {words}"
    for case in view.cases.values():
        if case.error:
            yield f"rows of {case.name} could not be written: {case.error}"
        for words in case.left_out:
            yield f"not collected: {words}"
    for path, missing in view.log_gaps.items():
        yield f"{path}: {plural(missing, 'byte')} never came"
    for node, why in view.missing.items():
        yield f"{node} did not join: {why or 'no word from it'}"
