"""Results side by side: what each model reached, what changed against the first, and what ran differently.

Pure. A table of results may be a history: what counts of a model is its last row for each metric, and a row
without a metric (the run failed) takes the place of all that came before it, of its results' own rows too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .parts import Parts, is_failure
from .summary import number
from .table import has_value

#: Version of the document of ``compare --json``. 1: first version.
SCHEMA = 1
#: What a result depends on and a row tells: a change of it is named beside the change of the result.
CONFIGURATION = (
    "args", "training_precision", "n_gpus", "nnodes", "gpus_per_node", "gpu_architecture", "launcher",
    "deployment_type", "docker_file", "base_docker", "docker_image", "docker_sha", "git_commit", "dataname",
    "additional_docker_run_options",
)  # fmt: skip
#: Worst first: a model whose rows differ has the worst of their statuses.
_WORST = ("FAILURE", "CANCELLED", "SKIPPED")


@dataclass(frozen=True, slots=True)
class Measured:
    """A value: as a number (None when it is none) and as it is written; ``rows``: how many there are."""

    value: float | None
    text: str
    rows: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one model: its value in each table (None where it has none), and the change in percent
    of each against the first (None where that cannot be said)."""

    model: str
    metric: str
    values: tuple[Measured | None, ...]
    changes: tuple[float | None, ...]

    @property
    def numbers(self) -> tuple[float | None, ...]:
        """The values that are numbers."""
        return _numbers(self.values)


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A model that did not end alike everywhere; "" where it is not."""

    model: str
    statuses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A column in which these models were run differently; "" where a model is not or says nothing."""

    column: str
    values: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """All that differs and all that was measured. ``added`` and ``missing``: models that are not in all
    tables, against the first, each with the places of the tables that have or lack it."""

    tables: int
    metrics: tuple[Comparison, ...]
    statuses: tuple[StatusChange, ...]
    added: tuple[tuple[str, tuple[int, ...]], ...]
    missing: tuple[tuple[str, tuple[int, ...]], ...]
    configuration: tuple[Difference, ...]
    models: int


@dataclass(slots=True)
class _Model:
    """What the rows of one table say of a model, as the last of them have it."""

    last: dict[str, str] = field(default_factory=dict)
    by_metric: dict[str, Measured] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    status_of: dict[str, str] = field(default_factory=dict)

    def add(self, row: Mapping[str, str]) -> None:
        metric, text = row.get("metric", ""), row.get("performance", "")
        status = row.get("status", "")
        self.last = dict(row)
        if is_failure(row):
            self.end(status)
            return
        self.status_of.pop("", None)
        metric = metric if has_value(metric) else ""
        self.seen[metric] = self.seen.get(metric, 0) + 1
        self.status_of[metric] = status
        self.by_metric[metric] = Measured(number(text), text, self.seen[metric])

    def end(self, status: str) -> None:
        """It failed: what was before counts no more."""
        self.by_metric.clear()
        self.status_of = {"": status}

    @property
    def status(self) -> str:
        found = list(self.status_of.values())
        return next((word for word in _WORST if word in found), found[-1] if found else "")


def compare(tables: Sequence[Iterable[Mapping[str, str]]]) -> Compared:
    """Compare tables of results with the first of them; each is its rows by column, oldest first."""
    known = [_models(rows) for rows in tables]
    names = list(dict.fromkeys(name for models in known for name in models))
    return Compared(
        tables=len(known),
        metrics=tuple(_metrics(names, known)),
        statuses=tuple(_statuses(names, known)),
        added=_elsewhere(names, known, there=False),
        missing=_elsewhere(names, known, there=True),
        configuration=_configuration(names, known),
        models=len(names),
    )


def change(first: float | None, other: float | None) -> float | None:
    """By how many percent ``other`` differs from ``first``; None without two numbers, from zero, or beyond
    what a number can say."""
    if not first or other is None:
        return None
    moved = (other - first) / abs(first) * 100.0
    return moved if math.isfinite(moved) else None


def _numbers(values: Sequence[Measured | None]) -> tuple[float | None, ...]:
    return tuple(value.value if value is not None else None for value in values)


def document(compared: Compared) -> dict[str, Any]:
    """The comparison as JSON values, tables by their place; numbers that are none are null."""
    return {
        "v": SCHEMA,
        "metrics": [
            {
                "model": one.model,
                "metric": one.metric,
                "values": list(one.numbers),
                "texts": [value.text if value else "" for value in one.values],
                "rows": [value.rows if value else 0 for value in one.values],
                "change_percent": list(one.changes),
            }
            for one in compared.metrics
        ],
        "status_changes": [{"model": one.model, "statuses": list(one.statuses)} for one in compared.statuses],
        "added": [{"model": model, "tables": list(places)} for model, places in compared.added],
        "missing": [{"model": model, "tables": list(places)} for model, places in compared.missing],
        "configuration": [
            {"column": one.column, "values": list(one.values), "models": list(one.models)}
            for one in compared.configuration
        ],
    }


def _models(rows: Iterable[Mapping[str, str]]) -> dict[str, _Model]:
    found: dict[str, _Model] = {}
    parts = Parts()
    for row in rows:
        found.setdefault(row.get("model", ""), _Model()).add(row)
        for part in parts.add(row):
            found[part].end(row.get("status", ""))
    return found


def _metrics(names: Sequence[str], known: Sequence[dict[str, _Model]]) -> Iterable[Comparison]:
    for name in names:
        sides = [models[name].by_metric if name in models else {} for models in known]
        for metric in dict.fromkeys(metric for side in sides for metric in side):
            values = tuple(side.get(metric) for side in sides)
            numbers = _numbers(values)
            yield Comparison(name, metric, values, tuple(change(numbers[0], value) for value in numbers))


def _statuses(names: Sequence[str], known: Sequence[dict[str, _Model]]) -> Iterable[StatusChange]:
    for name in names:
        statuses = tuple(models[name].status if name in models else "" for models in known)
        if len(set(filter(None, statuses))) > 1:
            yield StatusChange(name, statuses)


def _elsewhere(
    names: Sequence[str], known: Sequence[dict[str, _Model]], *, there: bool
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Models that the first table has (``there``) and others lack, or lacks and others have."""
    found = []
    for name in names:
        places = tuple(place for place, models in enumerate(known) if (name in models) is not there)
        if (name in known[0]) is there and places:
            found.append((name, places))
    return tuple(found)


def _configuration(names: Sequence[str], known: Sequence[dict[str, _Model]]) -> tuple[Difference, ...]:
    """Columns that say different things of a model; models with the same difference stand together."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name in names:
        rows = [models[name].last if name in models else {} for models in known]
        for column in CONFIGURATION:
            values = tuple(row.get(column, "") for row in rows)
            if len({_alike(value) for value in values if has_value(value)}) > 1:
                groups.setdefault((column, values), []).append(name)
    order = {column: place for place, column in enumerate(CONFIGURATION)}
    found = [Difference(column, values, tuple(models)) for (column, values), models in groups.items()]
    return tuple(sorted(found, key=lambda one: order[one.column]))


def _alike(cell: str) -> float | str:
    """What two equal settings have in common: a table through pandas has 8.0 where another has 8."""
    value = number(cell)
    return cell if value is None else value
