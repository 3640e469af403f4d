"""Baselines on the command line: reading one, showing a gate. Shared by ``baseline`` and ``run``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.selecting import refuse
from phalanx.controller.cli.tables import WIDEST, table
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text

if TYPE_CHECKING:
    from phalanx.controller.results.baseline import Baseline, Comparison
    from phalanx.controller.runs.directory import RunDirectory
    from phalanx.controller.runs.gate import Gate


def read_baseline(name: str, file: Path | None = None) -> Baseline:
    """The baseline that a name, or a file, means; or a usage error."""
    from phalanx.controller.results.baseline_file import load, place_of
    from phalanx.controller.workflow.errors import InputError

    try:
        found = load(name, file or place_of(name, os.environ), os.environ)
    except InputError as error:
        refuse(clean_text(str(error)), Exit.USAGE)
    if file is not None and found.name != name:
        other = clean_text(found.name)
        refuse(f"cannot use {file} as baseline {name!r}: it is the baseline {other!r}", Exit.USAGE)
    return found


def gated(run: RunDirectory, baseline: Baseline, quiet: bool) -> Exit:
    """Hold a run that has succeeded against a baseline, say how it went on standard error; 0 or 7."""
    from phalanx.controller.runs.gate import hold, source_of_run
    from phalanx.controller.workflow.errors import InputError

    try:
        gate = hold(baseline, source_of_run(run))
    except InputError as error:
        refuse(str(error))
    if gate.regressions or not quiet:
        click.echo(clean_text(gate.line), err=True)
    if gate.regressions:
        click.echo("\n".join(gate_table(gate.regressions)), err=True)
    return Exit.REGRESSION if gate.regressions else Exit.OK


def gate_table(found: Sequence[Comparison]) -> list[str]:
    """What was measured then and now, a line each."""
    head = ("MODEL", "METRIC", "NODES", "BASELINE", "NOW", "CHANGE", "ALLOWED", "VERDICT", "NOTE")
    return table(head, [_cells(one) for one in found], WIDEST)


def gate_document(gate: Gate) -> dict[str, Any]:
    """The same for scripts."""
    from dataclasses import asdict

    return {
        "v": 1,
        "baseline": gate.baseline.name,
        "regressed": bool(gate.regressions),
        "measurements": [
            {
                **asdict(one.identity),
                "baseline": one.then,
                "now": one.now,
                "change": one.change,
                "allowed": float(one.allowed),
                "direction": one.direction.value,
                "verdict": one.verdict.value,
                "note": one.note,
            }
            for one in gate.found
        ],
    }


def _cells(one: Comparison) -> tuple[str, ...]:
    from phalanx.controller.results.direction import Direction
    from phalanx.controller.results.tolerance import in_words

    sign = "+" if one.direction is Direction.LOWER else "-"
    return (
        one.identity.model,
        one.identity.metric,
        one.identity.nnodes or "-",
        number(one.then),
        number(one.now),
        "-" if one.change is None else f"{one.change * 100:+.2f}%",
        "-" if one.then is None else f"{sign}{in_words(one.allowed)}",
        one.verdict.value,
        one.note,
    )


def number(value: float | None) -> str:
    """A value as it was written, short."""
    return "-" if value is None else f"{value:.12g}"
