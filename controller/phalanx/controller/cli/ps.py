"""``phalanx ps``: the runs of this directory, newest first."""

from __future__ import annotations

import json
import time
from itertools import islice
from typing import Any

import click
from phalanx.controller.cli.selecting import json_option, put, refuse
from phalanx.controller.cli.tables import table
from phalanx.controller.exits import Exit
from phalanx.controller.runs.directory import SelectionError, all_runs, runs_root, unreadable
from phalanx.controller.runs.words import duration

ONGOING = ("starting", "pending", "running", "ending", "unknown")


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="All runs, not only the last 20.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@json_option
def command(everything: bool, quiet: bool, as_json: bool) -> int:
    """List the runs of this directory, newest first.

    A run whose controller is gone before the run was over is shown as lost.
    """
    from phalanx.controller.runs.status import line, summary

    root = runs_root()
    try:
        runs = list(islice(all_runs(root), None if everything else 20))
    except SelectionError as error:
        refuse(str(error), Exit.USAGE)
    if quiet:
        for run in runs:
            put(run.run_id)
        return Exit.OK
    now = time.time()
    for run in runs:
        if why := unreadable(run):
            click.echo(f"phalanx: cannot read run {run.run_id}: {why}", err=True)
    lines = [line(run, summary(run), now) for run in runs if not unreadable(run)]
    if as_json:
        put(json.dumps(lines, ensure_ascii=False))
    elif lines:
        put(
            "\n".join(
                table(("RUN", "STATE", "EXIT", "NODES", "TOOK", "JOB"), [_row(entry) for entry in lines])
            )
        )
    elif not runs:
        click.echo(f"no runs in {root}; start one with: phalanx run -- COMMAND", err=True)
    return Exit.OK


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    nodes = str(entry["nodes_expected"] or "-")
    if entry["state"] in ONGOING and entry["nodes_joined"] != entry["nodes_expected"]:
        nodes = f"{entry['nodes_joined']}/{nodes}"
    code = "-" if entry["exit_code"] is None else str(entry["exit_code"])
    took = duration(entry["seconds"]) if entry["started_at"] else "-"
    return entry["id"], entry["state"], code, nodes, took, entry["job_id"] or "-"
