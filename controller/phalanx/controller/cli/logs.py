"""``phalanx logs``: what the ranks wrote, from the run's log files; with ``-f`` until the run is over."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.selecting import (
    chosen,
    color_option,
    node_names,
    prefix_option,
    rank_ranges,
    refuse,
    refuse_strange_case,
    refuse_strange_nodes,
    run_argument,
)
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text
from phalanx.controller.nodesets import natural

if TYPE_CHECKING:
    from phalanx.controller.cli.attending import Showing
    from phalanx.controller.logs.follow import LogTail
    from phalanx.controller.logs.sources import Selection, Source
    from phalanx.controller.runs.directory import RunDirectory
    from phalanx.controller.runs.model import RunView

EPILOG = """\b
Examples:
  phalanx logs -f
  phalanx logs --rank 691 --tail 50 -o raw | less
  phalanx logs @failed -w node[017-020] --stream err
  phalanx logs -f --since 5m -o json | jq .line

Control characters are removed, for your terminal's safety; -o raw gives the bytes as they were written.
"""


@click.command(epilog=EPILOG)
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is over. Ctrl-C only leaves.")
@click.option("-w", "--nodes", "nodeset", default="", metavar="NODESET", help="These nodes only.")
@click.option("--rank", "ranks", default="", metavar="RANKS", help="These global ranks only, such as 0-7,12.")
@click.option("--step", default="", help="This step only: main, pre-1, post-1, exec-1 ...")
@click.option("--case", default="", help="This case only.")
@click.option("--stream", type=click.Choice(["out", "err"]), default=None, help="Only one of the two.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="The last N lines of each stream.")
@click.option(
    "--since", default="", metavar="TIME", help="Only what came in the last 5m, 2h, or since 02:05:26."
)
@click.option("-t", "--timestamps", is_flag=True, help="When each line came.")
@click.option("-o", "--output", "form", type=click.Choice(["plain", "json", "raw"]), default="plain")
@prefix_option
@click.option(
    "--reconnect-timeout", type=click.FloatRange(0), default=10.0, show_default=True, metavar="SECONDS"
)
@color_option
def command(run: str, **given: Any) -> int:
    """Show what the ranks of RUN wrote."""
    from phalanx.controller.cli.attending import Showing, log_tail
    from phalanx.controller.logs.sources import Selection
    from phalanx.controller.runs.records import read_all
    from phalanx.controller.runs.view import fold

    found = chosen(run)
    selection = Selection(
        frozenset(node_names(given["nodeset"])),
        rank_ranges(given["ranks"]),
        given["step"],
        given["case"],
        given["stream"] or "",
    )
    showing = Showing(
        progress="quiet",
        color=given["color"],
        prefix=given["prefix"],
        form=given["form"],
        timestamps=given["timestamps"],
        selection=selection,
    )
    known = fold(read_all(found.events), found.run_id)
    _refuse_strangers(found, known, selection)
    since = moment(given["since"], time.time()) if given["since"] else None
    logs = log_tail(found, known, showing)
    logs.start(given["tail"], since)
    if not given["follow"] or known.finished:
        _write(logs.drain(final=known.finished))
        return Exit.OK
    return _follow(found, showing, logs, known, given["reconnect_timeout"])


def _refuse_strangers(run: RunDirectory, view: RunView, selection: Selection) -> None:
    """Refuse what nothing of this run can answer to: an empty answer would say that all is quiet."""
    from phalanx.controller.listing import listed
    from phalanx.controller.runs.asked import steps_of, strange_step

    refuse_strange_nodes(run, view, natural(selection.nodes), "cannot show logs of")
    refuse_strange_case(run, view, selection.case, "cannot show logs of")
    if selection.step and strange_step(run, view, selection.step):
        these = listed(list(steps_of(run, view)), 10)
        refuse(
            f"cannot show logs of step {clean_text(selection.step)}: no such step in {run.run_id}; "
            f"it has {these or 'none'}",
            Exit.USAGE,
        )


def _write(pieces: Iterable[tuple[Source, bytes]]) -> None:
    for _, data in pieces:
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _follow(found: RunDirectory, showing: Showing, logs: LogTail, view: RunView, patience_s: float) -> int:
    from phalanx.controller.cli.attending import attend
    from phalanx.controller.runs.attend import Manners

    if view.cases:
        _write(logs.drain(final=False))
    code = attend(found, showing, Manners(owns=False, patience_s=patience_s), logs, view)
    return Exit.OK if view.finished else code


def moment(text: str, now: float) -> float:
    """The wall-clock time that ``5m``, ``02:05:26``, ``2026-11-22T02:05:26`` or unix seconds mean."""
    from datetime import datetime

    from phalanx.controller.plan.quantities import duration
    from phalanx.controller.workflow.errors import InputError

    try:
        if "T" in text or text.count("-") == 2:
            return datetime.fromisoformat(text).astimezone().timestamp()
        if ":" in text:
            clock = datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M").time()
            return datetime.combine(datetime.fromtimestamp(now).date(), clock).timestamp()
        if text.isdigit() and len(text) >= 10:
            return float(text)
        return now - duration(text, "--since")
    except (ValueError, InputError):
        refuse(f"cannot use --since {text!r}: expected a duration (5m, 2h) or a time (02:05:26)", Exit.USAGE)
