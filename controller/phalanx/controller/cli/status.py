"""``phalanx status``: how a run stands, or the last screen of one that is over."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click
from phalanx.controller.cli.selecting import chosen, color_option, json_option, put, run_argument, style_for
from phalanx.controller.exits import Exit
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.words import Style

if TYPE_CHECKING:
    from phalanx.controller.runs.model import RunView


@click.command()
@run_argument
@json_option
@color_option
def command(run: str, as_json: bool, color: str) -> int:
    """How RUN stands, or how it ended. Exits 0 whatever the run's own code is; see: phalanx wait."""
    from phalanx.controller.runs.records import read_all
    from phalanx.controller.runs.status import document
    from phalanx.controller.runs.view import fold

    found = chosen(run)
    view = fold(read_all(found.events), found.run_id)
    if as_json:
        put(json.dumps(document(found, view), ensure_ascii=False, indent=2))
    else:
        put("\n".join(lines(found, view, style_for(color, sys.stdout), time.time())))
    return Exit.OK


def lines(run: RunDirectory, view: RunView, style: Style, now: float) -> list[str]:
    """The picture of a run at this moment."""
    from phalanx.controller.runs.ending import ending
    from phalanx.controller.runs.evidence import gather
    from phalanx.controller.runs.screen import progress
    from phalanx.controller.runs.status import state_of

    state = state_of(run, view, now)
    until = view.finished_at or (now if state not in ("lost", "unknown") else view.last_at or now)
    shown = progress(view, until, style)
    if view.finished:
        return [*shown, "", *ending(view, gather(run, view), style, run.shown())]
    if state == "lost":
        words = "its controller is gone and the log has no end: what became of the run is not known"
        return [
            *shown,
            "",
            f"  {style.mark('warn')} lost         {words}",
            f"  next   less {run.shown()}/logs/controller.log",
        ]
    return [*shown, "", f"  state  {state}", f"  next   phalanx logs -f {run.run_id}"]
