"""A run's state as a document: what ``status --json`` and ``ps --json`` print.

``state`` is that of the event log, with one addition: a run that has no run.finished and whose controller is
gone is ``lost``. It is never taken for a success, nor for a failure.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phalanx.controller.runs.contact import Contact, contact
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.echoes import end_words, followers
from phalanx.controller.runs.model import CaseView, ImageView, NodeView, RunView
from phalanx.controller.runs.records import head, last_record, parse, read_all
from phalanx.controller.runs.view import fold

#: Version of the documents. 1: first version.
SCHEMA = 1
#: A run without control.json is starting for this long after its directory was made; then it is lost.
STARTING_S = 60.0


def state_of(run: RunDirectory, view: RunView, now: float) -> str:
    """The state to show: the log's, or ``lost`` when nobody continues it."""
    if view.finished:
        return view.state
    found = contact(run)
    if found is Contact.ALIVE:
        return view.state
    if found is Contact.DEAD:
        return "lost"
    try:
        young = now - run.path.stat().st_mtime < STARTING_S
    except OSError:
        young = False
    return view.state if young and not view.seq else "unknown" if run.control.exists() else "lost"


def summary(run: RunDirectory) -> RunView:
    """A view that is enough for a line of ``ps``: of a run that is over only the log's ends are read."""
    last = last_record(run.events)
    if last is None or last.get("type") != "run.finished":
        return fold(read_all(run.events), run.run_id)
    return fold([*head(run.events), *parse([_line(last)])], run.run_id)


def _line(document: dict[str, Any]) -> bytes:
    import json

    return json.dumps(document).encode()


def document(run: RunDirectory, view: RunView, now: float | None = None) -> dict[str, Any]:
    """Everything about a run that scripts may read."""
    moment = now if now is not None else datetime.now(UTC).timestamp()
    return {
        **line(run, view, moment),
        "reason": view.reason or view.ending,
        "phases": {
            name: {"state": phase.mark.value, "seconds": round(phase.seconds(moment), 3)}
            for name, phase in view.phases.items()
        },
        "missing": view.missing,
        "image": image_document(view.image),
        "images": [image_document(image) for image in view.images],
        "nodes": [node_document(node) for node in view.nodes.values()],
        "cases": [case_document(view, view.case(name)) for name in view.case_names],
        "parallel": view.parallel,
        "running": [case.name for case in view.running()],
        "first_failure": _failure(view),
        "followers": [asdict(group) for group in followers(view)],
        "leftovers": list(view.leftovers),
        "notices": [text for _, text in view.notices],
        "log_gaps": view.log_gaps,
        "files": view.files,
    }


def line(run: RunDirectory, view: RunView, now: float) -> dict[str, Any]:
    """The short form: an element of ``ps --json``."""
    return entry(run, view, now, state_of(run, view, now))


def entry(run: RunDirectory, view: RunView, now: float, state: str) -> dict[str, Any]:
    """``line`` for a state that is known: the controller's own ``status.json`` begins with it."""
    return {
        "v": SCHEMA,
        "id": run.run_id,
        "name": view.name or run.name,
        "state": state,
        "exit_code": view.exit_code,
        "target": view.target,
        "job_id": view.job_id,
        "nodes_expected": view.expected,
        "nodes_joined": view.joined,
        "started_at": stamp(view.started_at),
        "finished_at": stamp(view.finished_at),
        "seconds": round(view.seconds(now), 3),
        "rows": view.rows,
        "directory": str(Path(run.path)),
    }


def image_document(image: ImageView) -> dict[str, Any]:
    """What the log tells of an image of the run's cases. ``case``: that asked for it, "" for the first."""
    return {
        "reference": image.reference,
        "id": image.id,
        "case": image.case,
        "source": image.source,
        "bytes": image.size,
        "transfer": asdict(image.transfer) if image.transfer is not None else None,
        "error": image.error,
    }


def node_document(node: NodeView) -> dict[str, Any]:
    """What the log tells of a node."""
    return {
        "node": node.name,
        "node_rank": node.node_rank,
        "state": node.state,
        "address": node.address,
        "detail": node.detail,
        "image_id": node.image_id,
        "facts": node.facts or None,
    }


def case_document(view: RunView, case: CaseView) -> dict[str, Any]:
    """A case with the ends of its ranks."""
    return {
        "case": case.name,
        "state": case.state,
        "status": case.status,
        "reason": case.reason,
        "error": case.error,
        "nodes": list(case.nodes),
        "gpus": list(case.gpus),
        "rows": [dict(row) for row in case.rows],
        "notes": list(case.notes),
        "left_out": list(case.left_out),
        "ranks": [
            {
                "step": rank.step,
                "node": rank.node,
                "rank": rank.rank,
                "status": rank.status if rank.cause is not None else None,
                "cause": rank.cause.value if rank.cause is not None else None,
                "words": end_words(rank.status, rank.cause),
                "seconds": rank.seconds,
            }
            for rank in view.ranks.values()
            if rank.case == case.name
        ],
    }


def _failure(view: RunView) -> dict[str, Any] | None:
    first = view.failure
    if first is None:
        return None
    return {
        "fault": first.fault.value,
        "at": stamp(first.at),
        "node": first.node,
        "case": first.case,
        "step": first.step,
        "rank": first.rank if first.rank >= 0 else None,
        "lrank": first.local if first.rank >= 0 else None,
        "status": first.status,
        "cause": first.cause.value if first.cause is not None else None,
        "detail": first.detail,
    }


def stamp(at: float | None) -> str | None:
    """A wall-clock time as RFC 3339 in UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
