"""State changes of a run as single lines: what a log of CI, or a terminal that cannot redraw, gets to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from phalanx.controller.fleet import events as ev
from phalanx.controller.logs.clean import clean_text
from phalanx.controller.logs.sources import EXEC_STEP
from phalanx.controller.nodesets import counted, fold_numbers
from phalanx.controller.runs.echoes import end_words
from phalanx.controller.runs.model import Mark, RunView
from phalanx.controller.runs.screen import case_counts, rank_counts
from phalanx.controller.runs.view import cause_of
from phalanx.controller.runs.words import duration, plural, short_image, size

_WORDS: dict[type[ev.Event], Callable[[RunView, Any], str]] = {
    ev.RunStarted: lambda view, e: f"run {view.run_id} started: {plural(e.nodes, 'node')}, target {e.target}",
    ev.RunEnding: lambda view, e: f"ending: {e.reason}",
    ev.CancelRequested: lambda view, e: f"{'cancel' if e.level == 1 else 'kill'} requested by {e.by}",
    ev.AllocationRequested: lambda view, e: f"asking for nodes: {' '.join(e.argv)}",
    ev.AllocationGranted: lambda view, e: (
        f"nodes {counted(e.nodes)}" + (f" in job {e.job_id}" if e.job_id else "")
    ),
    ev.AllocationRefused: lambda view, e: f"no nodes: {e.reason}",
    ev.AllocationEnded: lambda view, e: f"the scheduler took the nodes away ({e.state}): {e.reason}",
    ev.AgentSilent: lambda view, e: f"{e.node} is not heard from: {e.detail}",
    ev.AgentLost: lambda view, e: f"{e.node} is lost: {e.detail}",
    ev.AgentDraining: lambda view, e: f"{e.node} is being taken away: {e.reason}",
    ev.AgentNotice: lambda view, e: f"{e.node}: {e.text}",
    ev.JoinTimeout: lambda view, e: f"agents {e.joined}/{e.expected} joined, missing {counted(e.missing)}",
    ev.FleetJoined: lambda view, e: f"agents {e.nodes}/{e.expected} joined in {duration(e.seconds)}",
    ev.ImagePlanned: lambda view, e: (
        f"image to {plural(e.nodes, 'node')} ({e.shape}): {size(e.bytes)} in all, {size(e.source_bytes)} "
        f"from its source, {size(e.saved_bytes)} saved, about {duration(e.predicted_s)}"
    ),
    ev.SlowNodes: lambda view, e: (
        f"slow, fed last: {counted(e.nodes)}" if e.nodes else "no node is held to be slow any more"
    ),
    ev.ParentLeft: lambda view, e: (
        f"{e.node} reads no more from {e.parent}{' (damaged bytes)' if e.corrupt else ''}: {e.reason}"
    ),
    ev.ImageReady: lambda view, e: (
        f"image {e.reference} {short_image(e.image_id)} on {plural(e.nodes, 'node')}"
    ),
    ev.ImageRequested: lambda view, e: (
        f"image {e.reference} is asked for on {counted(e.nodes)}" + (f" for case {e.case}" if e.case else "")
    ),
    ev.ImageFailed: lambda view, e: f"image {e.reference} is not on every node: {e.reason}",
    ev.CaseStarted: lambda view, e: (
        f"case {e.case}: {plural(e.ranks, 'rank')} on {counted(e.nodes)}"
        + (f", GPU {fold_numbers(e.gpus)}" if e.gpus else "")
    ),
    ev.BarrierFailed: lambda view, e: f"{_whose(view, e.case)}barrier {e.name} cannot open: {e.reason}",
    ev.CaseFinished: lambda view, e: f"case {e.case}: {e.status}" + (f" ({e.reason})" if e.reason else ""),
}


def _whose(view: RunView, case: str) -> str:
    """Names the case of a line where others run beside it."""
    return f"case {case}: " if view.parallel > 1 else ""


def words(view: RunView, recorded: ev.Recorded) -> str:
    """The line for an event that a person should see, "" for the others. ``view`` has the event already."""
    event = recorded.event
    if isinstance(event, ev.AgentJoined):
        return f"{clean_text(event.node)} is back" if event.resumed else ""
    if isinstance(event, ev.ImageSource):
        return clean_text(event.error or f"image from {event.where}, {size(event.size)}")
    if isinstance(event, ev.RankExited):
        return _rank(view, event)
    make = _WORDS.get(type(event))
    return clean_text(make(view, event)) if make is not None else ""


def said(recorded: ev.Recorded) -> str:
    """A line of the spawner, "" for any other event."""
    event = recorded.event
    if not isinstance(event, ev.SpawnSaid):
        return ""
    return clean_text(f"{event.node or 'spawner'}: {event.text}")


def _rank(view: RunView, event: ev.RankExited) -> str:
    """Only the bad ends, and not those that phalanx itself brought about."""
    cause = cause_of(event.cause)
    if (
        event.step.startswith(EXEC_STEP)
        or event.cause == "stopped"
        or (not event.status and event.cause == "exited")
    ):
        return ""
    where = f"{event.node} rank {event.rank}" if event.rank >= 0 else event.node
    detail = f": {event.detail}" if event.detail else ""
    where = _whose(view, event.case) + where
    return clean_text(f"{where} {event.step} failed, {end_words(event.status, cause)}{detail}")


def heartbeat(view: RunView, now: float) -> str:
    """A line for when nothing has changed for a while, so that no idle timeout of CI fires."""
    took, running = duration(view.seconds(now)), view.running()
    if view.parallel > 1 and running and view.state != "ending":
        return f"{case_counts(view)}: {', '.join(clean_text(case.name) for case in running)} ({took})"
    way = view.phases["image"]
    if way.mark is Mark.ACTIVE and view.state != "ending":
        there = f"{len(view.image.ready | view.image.had)}/{view.expected} nodes"
        return f"image {clean_text(view.image.reference)} on {there} ({duration(way.seconds(now))})"
    case = view.current()
    if view.state == "pending":
        return f"waiting for {plural(view.expected, 'node')} ({took})"
    if case is not None and not case.status:
        return f"{rank_counts(view, case)} ({took})"
    if view.expected and view.joined < view.expected:
        return f"agents {view.joined}/{view.expected} joined ({took})"
    return f"{view.state} ({took})"
