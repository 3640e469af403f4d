"""Holding a run, or a perf.csv, against a baseline. It reads files; ``baseline`` decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phalanx.controller.results.baseline import Baseline, Comparison, Measured, compare, counted, measured
from phalanx.controller.results.baseline import regressions as stopping
from phalanx.controller.results.baseline_making import rows_of_csv
from phalanx.controller.runs.directory import RunDirectory, runs_root, select
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.records import read_all
from phalanx.controller.runs.view import fold
from phalanx.controller.workflow.errors import InputError


@dataclass(frozen=True, slots=True)
class Source:
    """Measurements, and where they are from."""

    shown: str
    rows: list[Measured]


@dataclass(frozen=True, slots=True)
class Gate:
    """A baseline that something was held against."""

    baseline: Baseline
    found: list[Comparison]
    allow_missing: bool = False

    @property
    def regressions(self) -> list[Comparison]:
        """What it stops at."""
        return stopping(self.found, self.allow_missing)

    @property
    def line(self) -> str:
        """``baseline main: 2 within, 1 regressed``."""
        return f"baseline {self.baseline.name}: {counted(self.found)}"


def hold(baseline: Baseline, source: Source, allow_missing: bool = False) -> Gate:
    """Compare."""
    return Gate(baseline, compare(baseline, source.rows), allow_missing)


def source_of(selector: str) -> Source:
    """A perf.csv by its path, else a run by any of its selectors.

    Raises InputError for a run that is not over and a file that is no perf.csv, SelectionError for no run.
    """
    path = Path(selector)
    if path.is_file():
        return Source(selector, rows_of_csv(path))
    return source_of_run(select(runs_root(), selector))


def source_of_run(run: RunDirectory) -> Source:
    """The measurements of a run that is over. Raises InputError."""
    view = fold(read_all(run.events), run.run_id)
    if not view.finished:
        raise InputError(f"cannot compare {run.run_id}: it is not over; see: phalanx wait {run.run_id}")
    return Source(run.run_id, measurements(view))


def measurements(view: RunView) -> list[Measured]:
    """What the cases of a run have measured."""
    return [measured(row) for case in view.cases.values() for row in case.rows]
