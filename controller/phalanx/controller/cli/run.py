"""``phalanx run``: make the plan, start the controller, attend the run.

From here a run is walked: ``planning`` (words to plan), ``runs/directory`` (its place), ``runs/launch`` (the
controller process, ``phalanx.controller.daemon``), ``attending`` (its client on this terminal).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.run_options import run_options
from phalanx.controller.cli.selecting import color_option, json_option, put, put_last, refuse
from phalanx.controller.cli.summarizing import summary_of
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text
from phalanx.controller.runs.directory import RunDirectory, create, point_latest, runs_root, write_private

if TYPE_CHECKING:
    from phalanx.controller.cli.building import PlannedBuild
    from phalanx.controller.plan.model import Plan
    from phalanx.controller.results.baseline import Baseline

EPILOG = """\b
Examples:
  phalanx run -N 2 -- hostname
  phalanx run -N 4 --ntasks-per-node 8 -p gpu -t 30 -- python3 train.py
  phalanx run --tags ring_allreduce -N 4 --image bench:1
  phalanx run -m build_manifest.json -N 8 -p gpu
  phalanx run --tags nightly --parallel 4 -p gpu --exclusive
  phalanx run --tags llama70b --additional-context '{"slurm": {"partition": "gpu", "nodes": 8}}'
  phalanx run --tags llama70b --performance last --summary-output summary.json
  phalanx run -d -N 128 --tags burn_in && phalanx logs -f
  phalanx run --tags smoke -N 2 --baseline main

Standard output is what the ranks write and nothing else. Ctrl-C once ends the run in good order,
twice kills it, a third time leaves at once. Exit: 0 all well, 3 a model failed (a command: the
highest code of its ranks), 4 bad arguments, 7 slower than --baseline allows, 8 nodes missing,
9 image, 10 scheduler, 75 contact lost.
"""


@click.command(
    epilog=EPILOG,
    context_settings={"allow_interspersed_args": False},
)
@run_options
@json_option
@color_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def command(**given: Any) -> int:
    """Run COMMAND, or the models that --tags chooses, on every node."""
    from phalanx.controller.cli.outputs import refuse_stream
    from phalanx.controller.cli.planning import planned, planned_as_built

    if bool(given["command"]) == bool(given["tags"] or given["manifest_file"]):
        refuse(
            "cannot run both models and a command: they are two runs"
            if given["command"]
            else f"cannot run: say what, --tags TAG, -m MANIFEST or -- COMMAND{time_hint(given)}",
            Exit.USAGE,
        )
    baseline = baseline_of(given)
    made = planned(given)
    plan = made.plan
    refuse_stream(plan.output_csv, "and runs append their rows under a lock; name a file with -o")
    for warning in (*(made.build.plan.warnings if made.build else ()), *plan.warnings):
        click.echo(f"phalanx: {clean_text(warning)}", err=True)
    if given["dry_run"]:
        return show_plan(plan, as_json=given["as_json"], build=made.build)
    if plan.refusals:
        refuse(plan.refusals[0], Exit.USAGE)
    if made.build and made.build.plan.unbuilt:
        refuse(f"{made.build.plan.unbuilt[0].error}; nothing was run: leave it out", Exit.BUILD)
    refuse_unappendable(plan.output_csv)
    summary = summary_of(given, plan)
    if made.build:
        from phalanx.controller.cli.building import built_for_run

        manifest, summary.build = built_for_run(made.build, given, summary.write_unbuilt)
        made = planned_as_built(made, given, manifest)
    run = started(made.plan, made.secrets)
    if given["detach"]:
        return put_last(left(run, given["as_json"]), f"run {run.run_id} has begun and goes on")
    code = summary.written(run, made.plan, attended(run, given))
    if baseline is None or code != Exit.OK:
        return code
    from phalanx.controller.cli.gating import gated

    return gated(run, baseline, quiet=given["quiet"])


def refuse_unappendable(output_csv: str) -> None:
    """Ends the command when rows could not be written at the end of the run; "" for no file."""
    from phalanx.controller.results.perf_csv import PerfCsvError, check_appendable

    try:
        if output_csv:
            check_appendable(Path(output_csv))
    except PerfCsvError as error:
        refuse(str(error), Exit.USAGE)


def baseline_of(given: Mapping[str, Any]) -> Baseline | None:
    """The baseline that the run will be held against, if any; one that cannot be used is refused."""
    if not given["baseline"]:
        return None
    if given["detach"]:
        refuse(
            "cannot leave a run and hold it against a baseline: leave out -d, or use phalanx wait RUN "
            f"and then phalanx baseline check {given['baseline']} RUN",
            Exit.USAGE,
        )
    from phalanx.controller.cli.gating import read_baseline

    return read_baseline(given["baseline"])


def time_hint(given: Mapping[str, Any]) -> str:
    """For who means tags by ``-t``, as madengine has it."""
    return "; -t is a time limit, as in srun: tags are given with --tags" if given["time"] else ""


def show_plan(plan: Plan, as_json: bool, build: PlannedBuild | None = None) -> int:
    """Print the plan, that of the build before it first; nothing was touched."""
    if as_json:
        from phalanx.controller.builds.words import plan_document
        from phalanx.controller.plan.codec import to_document

        document = to_document(plan) | ({"build": plan_document(build.plan)} if build else {})
        put(json.dumps(document, ensure_ascii=False, indent=2))
        return Exit.OK
    from phalanx.controller.builds.words import plan_lines
    from phalanx.controller.images.forecast import transfer_lines
    from phalanx.controller.plan.describe import describe

    if build:
        put("\n".join((*plan_lines(build.plan), "")))
    put(describe(plan, transfer_lines(plan)).rstrip())
    return Exit.OK


def started(plan: Plan, secrets: dict[str, str]) -> RunDirectory:
    """The run's directory with its plan in it and its controller answering."""
    # Attending is imported before the controller is forked off, which shares most of what that imports.
    from phalanx.controller.cli import attending  # noqa: F401
    from phalanx.controller.plan.codec import to_json
    from phalanx.controller.plan.text import is_text, no_text
    from phalanx.controller.runs.launch import LaunchError, start_controller, wait_until_reachable

    root = runs_root()
    if not is_text(str(root)):
        refuse(no_text("the path of PHALANX_RUNS_DIR"), Exit.USAGE)
    _refuse_unusable_cache()
    written, who = to_json(plan), json.dumps(identity(plan), indent=2).encode() + b"\n"
    try:
        run = create(root, plan.run_id)
        write_private(run.plan, written)
        write_private(run.identity, who)
        point_latest(run)
        process = start_controller(run, plan, secrets)
    except OSError as error:
        why = "it is no folder" if root.exists() and not root.is_dir() else error.strerror or str(error)
        refuse(f"cannot make a run in {root}: {why}; set PHALANX_RUNS_DIR to a folder of yours", Exit.USAGE)
    try:
        wait_until_reachable(run, process)
    except LaunchError as error:
        refuse(str(error))
    except KeyboardInterrupt:
        process.terminate()
        raise
    return run


def _refuse_unusable_cache() -> None:
    """Ends the command before a run is made whose controller would end at once: it needs the agent's file."""
    from phalanx.controller.targets.bundle import CacheError, cache_directory, private_directory

    try:
        private_directory(cache_directory(os.environ))
    except CacheError as error:
        refuse(str(error), Exit.USAGE)


def left(run: RunDirectory, as_json: bool) -> str:
    """What is said of a run that is left to itself: its id, or the short document that ``ps`` begins with."""
    if not as_json:
        return run.run_id
    return json.dumps({"v": 1, "id": run.run_id, "directory": str(run.path)}, ensure_ascii=False)


def identity(plan: Plan) -> dict[str, Any]:
    """What run.json says: who ran what, where, with which versions. Never changed afterwards."""
    from phalanx.controller.cli.attending import user
    from phalanx.protocol.release import VERSION

    return {
        "v": 1,
        "id": plan.run_id,
        "name": plan.name,
        "argv": list(plan.argv),
        "cwd": plan.cwd,
        "user": user(),
        "uid": os.getuid(),
        "host": platform.node(),
        "target": plan.target.kind,
        "nodes": plan.target.nodes,
        "versions": {"phalanx": VERSION, "python": platform.python_version()},
    }


def attended(run: RunDirectory, given: dict[str, Any]) -> int:
    from phalanx.controller.cli.attending import Showing, attend, log_tail, user
    from phalanx.controller.runs.attend import Manners
    from phalanx.controller.runs.model import RunView

    showing = Showing(
        progress="quiet" if given["quiet"] else given["progress"],
        color=given["color"],
        prefix=given["prefix"],
        as_json=given["as_json"],
        verbose=given["verbose"],
    )
    view = RunView(run_id=run.run_id)
    shown = given.get("live_output", True) and not given["as_json"]
    logs = log_tail(run, view, showing) if shown else None
    silent = given["quiet"] or given["as_json"] or given["progress"] == "json"
    if not silent and not sys.stderr.isatty():
        click.echo(f"run {run.run_id}", err=True)
    return attend(run, showing, Manners(True, given["reconnect_timeout"], user()), logs, view)
