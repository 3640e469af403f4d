"""``phalanx baseline``: values to hold later ones against, on the command line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click
from phalanx.controller.cli.gating import gate_document, gate_table, number, read_baseline
from phalanx.controller.cli.selecting import json_option, put, refuse
from phalanx.controller.cli.tables import table
from phalanx.controller.cli.verbs import Verbs
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text

NAME_HELP = """\b
NAME is that of a baseline below $XDG_STATE_HOME/phalanx/baselines, or the path of its file (with a /,
or ending in .json): one that lies in a repository is checked in its CI. RUN is what every verb takes;
a perf.csv does as well, with the last row of each measurement.
"""
SET_EPILOG = f"""\b
Examples:
  phalanx baseline set main                             the last run, 2 % tolerance
  phalanx baseline set main @latest --tolerance 3% --tolerance tok/s=5%
  phalanx baseline set main perf.csv --file ci/main.json
  phalanx baseline set main --lower-is-better stalls

{NAME_HELP}
A baseline that is set anew keeps its tolerances and directions. Times, losses and errors are better
when lower, all else when higher: docs/history.md has the rule.
"""
CHECK_EPILOG = f"""\b
Examples:
  phalanx baseline check main
  phalanx baseline check ci/main.json perf.csv --json
  phalanx run --tags smoke -N 2 --baseline main         runs and checks

{NAME_HELP}
Exit: 0 nothing got worse than allowed, 7 something did or is measured no more, 4 bad arguments.
"""


file_option = click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False), help="Where the baseline is, or is to be."
)
source_argument = click.argument("source", required=False, default="@latest", metavar="[RUN|perf.csv]")


@click.group(cls=Verbs)
def command() -> None:
    """Values to hold later ones against."""


@command.command("set", epilog=SET_EPILOG)
@click.argument("name")
@source_argument
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="[METRIC=]PERCENT",
    help="What values may lose, all or those of METRIC; 2% if nothing is said.",
)
@click.option("--lower-is-better", "lower", multiple=True, metavar="METRIC")
@click.option("--higher-is-better", "higher", multiple=True, metavar="METRIC")
@file_option
def set_(
    name: str,
    source: str,
    tolerances: tuple[str, ...],
    lower: tuple[str, ...],
    higher: tuple[str, ...],
    file: Path | None,
) -> int:
    """Make what a run measured the baseline NAME."""
    from phalanx.controller.results import baseline_file
    from phalanx.controller.results.baseline_making import make, wishes_of
    from phalanx.controller.runs.directory import SelectionError
    from phalanx.controller.runs.gate import source_of
    from phalanx.controller.runs.status import stamp
    from phalanx.controller.workflow.errors import InputError

    try:
        wishes = wishes_of(tolerances, lower, higher)
        path = file.absolute() if file else baseline_file.place_of(name, os.environ)
        before = baseline_file.load(name, path, os.environ) if path.exists() else None
        given = source_of(source)
        own = baseline_file.name_of(name)
        made = make(own, given.rows, wishes, before, (stamp(time.time()) or "", given.shown))
        baseline_file.save(made, path)
    except (InputError, SelectionError) as error:
        refuse(clean_text(str(error)), Exit.USAGE)
    gone = sorted(set(before.values) - set(made.values)) if before else []
    put(f"baseline {made.name}: {len(made.values)} measured in {clean_text(given.shown)}; {path}")
    if gone:
        names = ", ".join(dict.fromkeys(clean_text(one.model) for one in gone))
        click.echo(f"phalanx: no longer in it: {names}", err=True)
    return Exit.OK


@command.command("check", epilog=CHECK_EPILOG)
@click.argument("name")
@source_argument
@click.option("--allow-missing", is_flag=True, help="What is measured no more is no regression.")
@file_option
@json_option
def check(name: str, source: str, allow_missing: bool, file: Path | None, as_json: bool) -> int:
    """Hold a run against the baseline NAME; exit 7 when something got worse than it allows."""
    from phalanx.controller.runs.directory import SelectionError
    from phalanx.controller.runs.gate import hold, source_of
    from phalanx.controller.workflow.errors import InputError

    baseline = read_baseline(name, file)
    try:
        gate = hold(baseline, source_of(source), allow_missing)
    except (InputError, SelectionError) as error:
        refuse(clean_text(str(error)), Exit.USAGE)
    if as_json:
        put(json.dumps(gate_document(gate), ensure_ascii=False))
    else:
        put("\n".join([*gate_table(gate.found), "", clean_text(gate.line)]))
    return Exit.REGRESSION if gate.regressions else Exit.OK


@command.command("list")
@json_option
def list_(as_json: bool) -> int:
    """The baselines of this user."""
    from phalanx.controller.results.baseline_file import known_baselines, load
    from phalanx.controller.results.state_home import baselines_directory
    from phalanx.controller.results.tolerance import in_words
    from phalanx.controller.workflow.errors import InputError

    found = []
    for name, path in known_baselines(os.environ):
        try:
            found.append((name, path, load(name, path, os.environ)))
        except InputError as error:
            click.echo(f"phalanx: {clean_text(str(error))}", err=True)
    if as_json:
        documents = [
            {"name": name, "file": str(path), "measurements": len(one.values)}
            | {"made_at": one.made_at, "made_from": one.made_from}
            for name, path, one in found
        ]
        put(json.dumps({"v": 1, "baselines": documents}, ensure_ascii=False))
    elif found:
        rows = [
            (name, str(len(one.values)), in_words(one.tolerance), one.made_at or "-", one.made_from or "-")
            for name, _, one in found
        ]
        put("\n".join(table(("NAME", "VALUES", "TOLERANCE", "SET", "FROM"), rows)))
    else:
        folder = baselines_directory(os.environ)
        click.echo(f"no baselines in {folder}; make one with: phalanx baseline set NAME", err=True)
    return Exit.OK


@command.command("show")
@click.argument("name")
@file_option
@json_option
def show(name: str, file: Path | None, as_json: bool) -> int:
    """The values of the baseline NAME, what they may lose and which way they get better."""
    from phalanx.controller.results.baseline_file import to_document
    from phalanx.controller.results.tolerance import in_words

    baseline = read_baseline(name, file)
    if as_json:
        put(json.dumps(to_document(baseline), ensure_ascii=False))
        return Exit.OK
    rows = [
        (
            one.model,
            one.metric,
            one.nnodes or "-",
            one.n_gpus or "-",
            one.launcher or "-",
            one.gpu_architecture or "-",
            one.training_precision or "-",
            number(baseline.values[one]),
            in_words(baseline.tolerance_of(one.metric)),
            baseline.direction_of(one.metric).value,
        )
        for one in sorted(baseline.values)
    ]
    head = (
        "MODEL",
        "METRIC",
        "NODES",
        "GPUS",
        "LAUNCHER",
        "ARCH",
        "PRECISION",
        "VALUE",
        "MAY LOSE",
        "BETTER",
    )
    put("\n".join(table(head, rows)))
    return Exit.OK


@command.command("remove")
@click.argument("name")
def remove(name: str) -> int:
    """Remove the baseline NAME."""
    from phalanx.controller.results.baseline_file import place_of

    baseline = read_baseline(name)  # nothing else is removed
    path = place_of(name, os.environ)
    try:
        path.unlink()
    except OSError as error:
        refuse(f"cannot remove baseline {path}: {error.strerror}")
    put(f"removed baseline {clean_text(baseline.name)}: {path}")
    return Exit.OK
