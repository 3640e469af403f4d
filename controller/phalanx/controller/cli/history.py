"""``phalanx history``: what runs have left over time, on the command line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.gating import number
from phalanx.controller.cli.selecting import json_option, put, refuse, speaks_unicode
from phalanx.controller.cli.tables import WIDEST, table
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text

if TYPE_CHECKING:
    from phalanx.controller.results.history import History
    from phalanx.controller.results.history_query import Filter, NodePart, Result, Trend

EPILOG = """\b
Examples:
  phalanx history                            the newest results of all models
  phalanx history llama70b --since 7d
  phalanx history node087                    runs that had the node, and whether it failed first
  phalanx history --summary                  one line a model, with its trend
  phalanx history import old-runs/*          feed runs that were not recorded
  phalanx history prune --keep 90d --dry-run

Every run is recorded at its end in $XDG_STATE_HOME/phalanx/history.db (~/.local/state/phalanx);
$PHALANX_HISTORY is another file, or off. The change is against the last value of the same model,
metric, nodes, GPUs and launcher.
"""


class ListWithVerbs(click.Group):
    """What is no verb of its own is a list: the verb may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with ``list`` where no verb stands."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["list", *args])


@click.group(cls=ListWithVerbs)
def command() -> None:
    """Results and nodes of runs over time."""


@command.command("list", epilog=EPILOG)
@click.argument("name", required=False, default="", metavar="[MODEL|NODE]")
@click.option("--model", default="", metavar="MODEL", help="Results of this model; * and ? stand for others.")
@click.option("--node", default="", metavar="NODE", help="Runs that had this node.")
@click.option("--metric", default="", metavar="METRIC", help="Results of this metric.")
@click.option(
    "--status",
    default="",
    type=click.Choice(["", "SUCCESS", "FAILURE", "SKIPPED", "CANCELLED"], case_sensitive=False),
    metavar="STATUS",
    help="SUCCESS, FAILURE, SKIPPED or CANCELLED.",
)
@click.option("--since", default="", metavar="TIME", help="Not older than this, such as 12h or 7d.")
@click.option("--limit", type=click.IntRange(1, 10**9), default=20, show_default=True, metavar="COUNT")
@click.option("--summary", is_flag=True, help="One line for each model, metric and shape, with its trend.")
@json_option
def list_(name: str, as_json: bool, summary: bool, limit: int, since: str, **given: str) -> int:
    """Results of runs, newest first; of MODEL, or runs that had NODE. The word list may be left out."""
    from phalanx.controller.results import history_query

    wanted = history_query.Filter(since=_since(since), **{**given, "status": given["status"].upper()})
    if not _is_there(path := _path()):
        return _no_history(path)
    with _history(path) as history:
        if name:
            try:
                wanted = history_query.named(history, wanted, name)
            except history_query.UnclearName as error:
                refuse(clean_text(str(error)), Exit.USAGE)
        if wanted.node and summary:
            refuse("cannot sum up a node: --summary is of models; leave one of them out", Exit.USAGE)
        if wanted.node:
            return _show_parts(wanted, history_query.parts(history, wanted, limit), as_json)
        if summary:
            return _show_trends(history, history_query.trends(history, wanted, limit), as_json)
        return _show_results(history, history_query.results(history, wanted, limit), as_json)


@command.command("import")
@click.argument("directories", nargs=-1, required=True, metavar="RUN_DIR...", type=click.Path(path_type=Path))
def import_(directories: tuple[Path, ...]) -> int:
    """Record runs that were not: of another machine, or while the history was off. Twice is once."""
    from phalanx.controller.runs.directory import RunDirectory
    from phalanx.controller.runs.history import NotRecorded, read_entry

    added = known = unusable = 0
    with _history(_path()) as history:
        for path in dict.fromkeys(path.resolve() for path in directories):
            try:
                new = history.add(read_entry(RunDirectory(path)))
            except NotRecorded as error:
                click.echo(f"phalanx: {clean_text(str(error))}", err=True)
                unusable += 1
                continue
            added, known = added + new, known + (not new)
    put(f"{added} added, {known} known before" + (f", {unusable} unusable" if unusable else ""))
    return Exit.FAILURE if unusable else Exit.OK


@command.command("prune")
@click.option("--keep", required=True, metavar="TIME", help="Forget runs that ended longer ago, such as 90d.")
@click.option("--dry-run", is_flag=True, help="Only say what would be forgotten.")
def prune(keep: str, dry_run: bool) -> int:
    """Forget old runs. Run directories are not touched."""
    from phalanx.controller.runs.words import plural

    before = _ago(keep, "--keep")
    if not _is_there(path := _path()):
        return _no_history(path)
    with _history(path) as history:
        runs, rows = history.prune(before, dry_run)
    what = f"{plural(runs, 'run')} with {plural(rows, 'row')}"
    put(f"would forget {what}; nothing was touched" if dry_run else f"forgot {what}")
    return Exit.OK


def _path() -> Path:
    """Where the history of this user is, or a refusal."""
    from phalanx.controller.results.state_home import history_path

    path = history_path(os.environ)
    if path is None:
        refuse("cannot use the history: PHALANX_HISTORY is off; unset it, or name a file in it", Exit.USAGE)
    return path


@contextmanager
def _history(path: Path) -> Iterator[History]:
    """The history, or a refusal."""
    from phalanx.controller.results.history import HistoryError, opened

    try:
        with opened(path) as history:
            yield history
    except HistoryError as error:
        refuse(str(error))


def _is_there(path: Path) -> bool:
    """Whether there is a history, or a refusal where nobody lets us look."""
    try:
        return path.exists()
    except OSError as error:
        refuse(
            f"cannot read the history {path}: {error.strerror}; choose another file with PHALANX_HISTORY, "
            "or off"
        )


def _no_history(path: Path) -> int:
    click.echo(f"no history in {path} yet: every run adds to it at its end", err=True)
    return Exit.OK


def _since(text: str) -> float | None:
    return _ago(text, "--since") if text else None


def _ago(text: str, option: str) -> float:
    """The moment that lies so long back; wall clock, seconds."""
    from phalanx.controller.plan.quantities import duration
    from phalanx.controller.workflow.errors import InputError

    try:
        return time.time() - duration(text, option)
    except InputError as error:
        refuse(str(error), Exit.USAGE)


def _nothing(what: str) -> int:
    click.echo(f"nothing in {what} answers to that", err=True)
    return Exit.OK


def _show_results(history: History, found: list[Result], as_json: bool) -> int:
    if as_json:
        return _document({"v": 1, "results": [_result_document(one) for one in found]})
    if not found:
        return _nothing(str(history.path))
    head = ("TIME", "RUN", "MODEL", "NODES", "GPUS", "PERFORMANCE", "METRIC", "CHANGE", "STATUS")
    rows = [
        (
            _when(one.at),
            one.run,
            one.model,
            one.nnodes,
            one.n_gpus or "-",
            one.performance or "-",
            one.metric or "-",
            _percent(one.change),
            one.status or "-",
        )
        for one in found
    ]
    put("\n".join(table(head, rows, WIDEST)))
    return Exit.OK


def _show_trends(history: History, found: list[Trend], as_json: bool) -> int:
    if as_json:
        return _document({"v": 1, "trends": [_trend_document(one) for one in found]})
    if not found:
        return _nothing(str(history.path))
    from phalanx.controller.results.sparkline import sparkline

    head = ("LAST", "MODEL", "METRIC", "NODES", "GPUS", "LAUNCHER", "VALUES")
    rows = [
        (
            _when(one.last_at),
            one.model,
            one.metric,
            one.nnodes,
            one.n_gpus or "-",
            one.launcher or "-",
            str(one.count),
            number(one.values[-1]),
            number(min(one.values)),
            number(max(one.values)),
            sparkline(one.values, speaks_unicode()),
        )
        for one in found
    ]
    put("\n".join(table((*head, "LATEST", "LOWEST", "HIGHEST", "TREND"), rows, WIDEST)))
    return Exit.OK


def _show_parts(wanted: Filter, found: list[NodePart], as_json: bool) -> int:
    from phalanx.controller.results.history_query import failed_first
    from phalanx.controller.runs.words import plural

    blamed = failed_first(found)
    if as_json:
        runs = [_part_document(one) for one in found]
        return _document({"v": 1, "node": wanted.node, "failed_first": blamed, "runs": runs})
    node = clean_text(wanted.node)
    if not found:
        return _nothing(f"the runs of {node}")
    put(f"{node} failed first in {blamed} of the last {plural(len(found), 'run')}\n")
    rows = [
        (
            _when(one.at),
            one.run,
            one.state,
            str(one.exit_code),
            ",".join(one.models) or "-",
            f"failed first: {one.why}" if one.failed_first else one.why or "-",
        )
        for one in found
    ]
    put("\n".join(table(("TIME", "RUN", "STATE", "EXIT", "MODELS", "NODE"), rows)))
    return Exit.OK


def _document(document: dict[str, Any]) -> int:
    put(json.dumps(document, ensure_ascii=False))
    return Exit.OK


def _result_document(one: Result) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one), "at": _stamp(one.at), "change": one.change}


def _trend_document(one: Trend) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one), "last_at": _stamp(one.last_at)}


def _part_document(one: NodePart) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one), "at": _stamp(one.at)}


def _stamp(at: float) -> str | None:
    from phalanx.controller.runs.status import stamp

    return stamp(at)


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M}"


def _percent(change: float | None) -> str:
    return "-" if change is None else f"{change * 100:+.1f} %"
