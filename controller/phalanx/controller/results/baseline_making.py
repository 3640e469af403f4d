"""A baseline from rows, and rows from where they are: pure but for reading a perf.csv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..workflow.errors import InputError, did_you_mean
from .baseline import DEFAULT_TOLERANCE, Baseline, Identity, Measured, measured
from .direction import Direction
from .parts import Parts
from .perf_csv import KNOWN_BY, unguarded
from .table import LINE_LIMIT, TableError, read_table
from .tolerance import tolerances

#: Measurements that an error names.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user says about tolerance and direction; the rest is as it was, or by default."""

    tolerance: Fraction | None = None
    tolerances: Mapping[str, Fraction] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)


def wishes_of(tolerances_given: Iterable[str], lower: Iterable[str], higher: Iterable[str]) -> Wishes:
    """The wishes in the words of the command line. Raises InputError."""
    general, by_metric = tolerances(tolerances_given)
    directions = dict.fromkeys(lower, Direction.LOWER)
    for metric in higher:
        if metric in directions:
            raise InputError(f"cannot tell which way {metric!r} gets better: both lower and higher were said")
        directions[metric] = Direction.HIGHER
    return Wishes(general, by_metric, directions)


def rows_of_csv(path: Path) -> list[Measured]:
    """The measurements of a perf.csv, each known by what its run said. Raises InputError.

    Runs append to the file: the last row of a measurement is the one that counts.
    """
    try:
        table = read_table(path, LINE_LIMIT)
    except TableError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    missing = [name for name in (*KNOWN_BY, "metric") if name not in table.columns]
    if missing:
        raise InputError(f"cannot read {path}: it is no perf.csv, it has no column {', '.join(missing)}")
    last: dict[Identity, Measured] = {}
    # A failure has no metric, so it is no later row of a measurement: it ends all that its model had before.
    newest: dict[tuple[str, str], Measured] = {}
    parts = Parts()
    for cells in table.rows:
        row = {name: unguarded(cell) for name, cell in cells.items()}
        for model in (row["model"], *parts.add(row)):
            one = measured({**row, "model": model})
            last[one.identity] = newest[_work(one.identity)] = one
    return [
        one for one in last.values() if one.value is None or newest[_work(one.identity)].value is not None
    ]


def _work(identity: Identity) -> tuple[str, str]:
    return identity.model, identity.nnodes


def make(
    name: str, rows: Iterable[Measured], wishes: Wishes, before: Baseline | None, made: tuple[str, str]
) -> Baseline:
    """A baseline of these values. ``before``: that of the name so far, whose tolerances and directions stay.

    ``made``: when (RFC 3339) and from what. Raises InputError for rows without a value, for two values of
    one measurement, and for wishes about a metric that is not measured.
    """
    values: dict[Identity, float] = {}
    twice: list[Identity] = []
    for row in rows:
        if row.value is not None:
            twice += [row.identity] if row.identity in values else []
            values[row.identity] = row.value
    if not values:
        raise InputError(f"cannot set baseline {name!r}: {made[1]} has no successful row with a performance")
    if twice:
        some = ", ".join(f"{one.model} {one.metric}" for one in twice[:_NAMED])
        raise InputError(
            f"cannot set baseline {name!r}: {made[1]} has several values of {some}, and no column that "
            "phalanx knows tells them apart; give them names of their own in the column model"
        )
    _are_measured(name, wishes, sorted({one.metric for one in values}))
    old = before or Baseline(name, {}, DEFAULT_TOLERANCE)
    return Baseline(
        name,
        values,
        old.tolerance if wishes.tolerance is None else wishes.tolerance,
        {**old.tolerances, **wishes.tolerances},
        {**old.directions, **wishes.directions},
        *made,
    )


def _are_measured(name: str, wishes: Wishes, metrics: Sequence[str]) -> None:
    for metric in (*wishes.tolerances, *wishes.directions):
        if metric not in metrics:
            hint = did_you_mean(metric, metrics) or f"; there are: {', '.join(metrics)}"
            raise InputError(f"cannot set baseline {name!r}: no row has the metric {metric!r}{hint}")
