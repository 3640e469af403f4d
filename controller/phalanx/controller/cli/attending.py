"""Attending a run from a verb: which screen, which log lines, how it ends. Shared by run, logs and wait."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
import time
from dataclasses import dataclass

from phalanx.controller.cli.selecting import put_last, speaks_unicode, style_for, wants_color
from phalanx.controller.logs.follow import LogTail
from phalanx.controller.logs.show import Look, Render, Shower, auto_prefix, json_lines, raw
from phalanx.controller.logs.sources import ALL, Selection, Source
from phalanx.controller.runs.attend import Attendance, Left, Manners
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.ending import ending
from phalanx.controller.runs.evidence import gather
from phalanx.controller.runs.history_note import noted
from phalanx.controller.runs.live import Screen, Writer, choose
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.records import read_all
from phalanx.controller.runs.status import document
from phalanx.controller.runs.view import fold


@dataclass(frozen=True, slots=True)
class Showing:
    """How to show a run. ``form``: plain, json, raw or none (no log lines)."""

    progress: str = "auto"
    color: str = "auto"
    prefix: str = "auto"
    form: str = "plain"
    timestamps: bool = False
    selection: Selection = ALL
    as_json: bool = False
    verbose: bool = False


def log_tail(run: RunDirectory, view: RunView, showing: Showing) -> LogTail:
    """The log lines that were asked for; their prefix is settled with the first of them."""

    def local(source: Source) -> int:
        case = view.cases.get(source.case)
        return case.local(source.rank) if case is not None else source.rank

    def render() -> Render:
        if showing.form == "raw":
            return raw
        if showing.form == "json":
            return json_lines(run.run_id, local)
        return Shower(_look(view, showing), local).plain

    def only_case() -> str:
        return next(iter(view.cases), "") if len(view.case_names) <= 1 else ""

    timed = showing.timestamps or showing.form == "json"
    return LogTail(run.path, showing.selection, render, only_case=only_case, timed=timed)


def _look(view: RunView, showing: Showing) -> Look:
    tty = sys.stdout.isatty()
    prefix = showing.prefix
    members = list(_members(view, showing.selection))
    if prefix == "auto":
        prefix = auto_prefix(members)
    width = max((len(node) + (2 if prefix == "both" else 0) for _, node, _ in members), default=0)
    cases = view.parallel > 1 and showing.prefix != "none" and not showing.selection.case
    if cases:
        width += 1 + max(len(name) for name in view.case_names)
    color = wants_color(showing.color, sys.stdout)
    return Look(prefix, tty, color, speaks_unicode(), showing.timestamps, width, cases)


def _members(view: RunView, selection: Selection) -> list[tuple[str, str, int]]:
    """Case, node and rank of every stream that the selection can show."""
    found = []
    for case in view.cases.values():
        for place, node in enumerate(case.nodes):
            for local in range(case.ranks_per_node):
                rank = place * case.ranks_per_node + local
                wanted = Source("", node, case.name, selection.step, rank, selection.output)
                if selection.takes(wanted):
                    found.append((case.name, node, rank))
    return found


def attend(run: RunDirectory, showing: Showing, manners: Manners, logs: LogTail | None, view: RunView) -> int:
    """Stay with a run until it is over or the user leaves; the exit code."""
    writer = Writer()
    screen = choose(
        "quiet" if showing.as_json else showing.progress,
        writer,
        style_for(showing.color, sys.stderr),
        time.time,
    )
    screen.verbose = showing.verbose
    left = asyncio.run(_stay(run, screen, manners, logs, view, showing))
    if left.over and showing.as_json:
        # Read again from disk: the document is that of ``status --json``, whoever asks.
        found = json.dumps(document(run, fold(read_all(run.events), run.run_id)))
        lost = put_last(found, f"see: phalanx status {run.run_id} --json")
        return left.code or lost
    return left.code


async def _stay(
    run: RunDirectory, screen: Screen, manners: Manners, logs: LogTail | None, view: RunView, showing: Showing
) -> Left:
    left = await Attendance(run, screen, logs, manners, view).stay()
    if left.over:
        await noted(run)
    if not left.over:
        if left.words:
            await screen.end(None, [f"phalanx: {left.words}"])
    elif manners.owns and not (showing.as_json and left.code == 0):
        style = style_for(showing.color, sys.stderr)
        await screen.end(view, ending(view, gather(run, view), style, run.shown()))
    return left


def user() -> str:
    """Who we are, for the record of a cancel."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "user"
