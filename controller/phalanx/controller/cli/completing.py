"""What a shell offers for a word that is not written out yet: models and tags, runs, allowances.

A key is pressed and waits for this: nothing is imported that a list of words can do without, no program of a
project is run, and whatever is wrong with a file is told by the verb, not in the middle of a command line.
"""

from __future__ import annotations

import os

import click

#: Runs that are offered, the newest.
RUNS_OFFERED = 200


def tag_words(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names and tags of the project's models, for the last of the tags that commas divide."""
    from phalanx.controller.workflow.offered import offered

    before, comma, word = incomplete.rpartition(",")
    try:
        found = offered(os.environ.get("MODEL_DIR") or ".")
    except Exception:  # noqa: BLE001 - the line that a person is typing is protected from what a project holds
        return []
    return [f"{before}{comma}{known}" for known in found if known.startswith(word)]


def allowance_words(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Words of ``--allow``, for the last of those that commas divide."""
    from phalanx.controller.plan.allowances import WORDS

    before, comma, word = incomplete.rpartition(",")
    return [f"{before}{comma}{known}" for known in WORDS if known.startswith(word)]


def run_ids(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """``@latest``, ``@failed`` and the runs of this directory, newest first."""
    from phalanx.controller.runs.directory import SelectionError, all_runs, runs_root

    try:
        runs = [run.run_id for run in all_runs(runs_root()) if run.run_id.startswith(incomplete)]
    except (OSError, SelectionError):
        runs = []
    return [word for word in ("@latest", "@failed") if word.startswith(incomplete)] + runs[:RUNS_OFFERED]
