"""A baseline: values that later ones are held against, each with what it may lose. Pure.

What makes two values the same measurement is model, metric, number of nodes and of GPUs, launcher, GPU
architecture and precision: change one of these and another machine or other arithmetic is asked to do the
work, so the values say nothing about each other. What is left out is what a gate exists to compare: image,
commit and machine, which are new in every build. Arguments are left out as well: they hold paths, seeds and
ports, and a model whose work changes gets a name or a baseline anew. ``gpus_per_node`` follows from the rest.

A model that is measured no more is a regression unless that is allowed: a benchmark that has stopped working
must not make a gate green. Values are compared as exact fractions of what was written: 2 % below 1861 is
1823.78 and not a neighbour of it, so that a value on the edge is within on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from fractions import Fraction

from .direction import Direction, direction_of

#: What a value may lose when nobody says otherwise: 2 %.
DEFAULT_TOLERANCE = Fraction(2, 100)


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """What a value is a value of. All fields are cells of perf.csv."""

    model: str
    metric: str
    nnodes: str = ""
    n_gpus: str = ""
    launcher: str = ""
    gpu_architecture: str = ""
    training_precision: str = ""


IDENTITY = tuple(one.name for one in fields(Identity))


@dataclass(frozen=True, slots=True)
class Measured:
    """What a row says. ``value`` None: it has none that counts, and ``status`` is why."""

    identity: Identity
    value: float | None
    status: str = "SUCCESS"


@dataclass(frozen=True, slots=True)
class Baseline:
    """Values by identity. ``tolerances`` and ``directions``: by metric, where the user said so.

    ``made_at``: RFC 3339; ``made_from``: the run or file that the values are from.
    """

    name: str
    values: Mapping[Identity, float]
    tolerance: Fraction = DEFAULT_TOLERANCE
    tolerances: Mapping[str, Fraction] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)
    made_at: str = ""
    made_from: str = ""

    def tolerance_of(self, metric: str) -> Fraction:
        """What a metric may lose, as a fraction of its value."""
        return self.tolerances.get(metric, self.tolerance)

    def direction_of(self, metric: str) -> Direction:
        """Which way a metric gets better."""
        return self.directions.get(metric) or direction_of(metric)


class Verdict(Enum):
    """What became of a measurement."""

    WITHIN = "within"
    IMPROVED = "improved"
    REGRESSED = "regressed"
    #: In the baseline, and not measured now.
    MISSING = "missing"
    #: Measured now, and not in the baseline.
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measurement then and now. ``change``: a fraction of the value then, None where that means nothing.

    ``note``: what explains the verdict, or "".
    """

    identity: Identity
    then: float | None
    now: float | None
    allowed: Fraction
    direction: Direction
    verdict: Verdict
    change: float | None = None
    note: str = ""


def measured(row: Mapping[str, str]) -> Measured:
    """A row of perf.csv as a measurement."""
    status = row.get("status", "").strip()
    identity = Identity(*(row.get(name, "").strip() for name in IDENTITY))
    try:
        value = float(row.get("performance", ""))
    except ValueError:
        value = math.nan
    counts = math.isfinite(value) and status in ("SUCCESS", "")
    return Measured(identity, value if counts else None, status or "no value")


def compare(baseline: Baseline, now: Iterable[Measured]) -> list[Comparison]:
    """Every measurement of the baseline and every new one, sorted by identity.

    The order of ``now`` makes no difference. Of several values of one measurement the worst counts.
    """
    rows = sorted(now, key=lambda row: (row.identity, row.status))
    values: dict[Identity, list[float]] = {}
    for row in rows:
        if row.value is not None:
            values.setdefault(row.identity, []).append(row.value)
    found = [_held(baseline, one, values.get(one, []), rows) for one in sorted(baseline.values)]
    new = [
        Comparison(
            one,
            None,
            worst(values[one], baseline.direction_of(one.metric)),
            baseline.tolerance_of(one.metric),
            baseline.direction_of(one.metric),
            Verdict.NEW,
        )
        for one in sorted(set(values) - set(baseline.values))
    ]
    return sorted([*found, *new], key=lambda one: one.identity)


def worst(values: Iterable[float], direction: Direction) -> float:
    """The value that a gate has to look at."""
    return max(values) if direction is Direction.LOWER else min(values)


def regressions(found: Iterable[Comparison], allow_missing: bool = False) -> list[Comparison]:
    """What a gate stops at."""
    bad = {Verdict.REGRESSED} if allow_missing else {Verdict.REGRESSED, Verdict.MISSING}
    return [one for one in found if one.verdict in bad]


def counted(found: Iterable[Comparison]) -> str:
    """``2 within, 1 regressed``: how many of each verdict there are, the good ones first."""
    numbers = dict.fromkeys(Verdict, 0)
    for one in found:
        numbers[one.verdict] += 1
    return (
        ", ".join(f"{number} {verdict.value}" for verdict, number in numbers.items() if number) or "nothing"
    )


def exact(value: float) -> Fraction:
    """The number that a person would write for it, not the nearest one in base 2."""
    return Fraction(repr(value))


def _held(baseline: Baseline, identity: Identity, values: list[float], rows: list[Measured]) -> Comparison:
    """A measurement of the baseline against what there is of it now."""
    then, metric = baseline.values[identity], identity.metric
    allowed, direction = baseline.tolerance_of(metric), baseline.direction_of(metric)
    if not values:
        note = _why_missing(identity, rows)
        return Comparison(identity, then, None, allowed, direction, Verdict.MISSING, None, note)
    now = worst(values, direction)
    verdict = judged(then, now, allowed, direction)
    note = f"the worst of {len(values)} values" if len(values) > 1 else ""
    return Comparison(identity, then, now, allowed, direction, verdict, change_of(then, now), note)


def judged(then: float, now: float, allowed: Fraction, direction: Direction) -> Verdict:
    """The verdict on a value. On the edge of what is allowed it is within."""
    room = abs(exact(then)) * allowed
    gain = exact(now) - exact(then) if direction is Direction.HIGHER else exact(then) - exact(now)
    if gain < -room:
        return Verdict.REGRESSED
    return Verdict.IMPROVED if gain > room else Verdict.WITHIN


def change_of(then: float, now: float) -> float | None:
    """The change as a fraction of the value then; None when that was 0 or the change is beyond a float."""
    if not then:
        return None
    try:
        return float((exact(now) - exact(then)) / abs(exact(then)))
    except OverflowError:
        return None


def _why_missing(identity: Identity, rows: list[Measured]) -> str:
    """What there is instead: the model's own failure, or its value in another shape."""
    failed = [row for row in rows if row.identity.model == identity.model and row.value is None]
    others = [row.identity for row in rows if row.value is not None and row.identity.model == identity.model]
    if others:
        nearest = min(others, key=lambda one: (len(_differs(identity, one)), one))
        said = [f"{name} {getattr(nearest, name) or 'none'}" for name in _differs(identity, nearest)]
        return f"measured with {', '.join(said)}"
    return failed[0].status if failed else "not run"


def _differs(one: Identity, other: Identity) -> list[str]:
    return [name for name in IDENTITY if getattr(one, name) != getattr(other, name)]
