"""How the results of each model went from row to row of one table. Pure.

A table of results is appended to: earlier rows are earlier runs. Rows of one model and metric are its
history; a row of the model without a metric (it failed) is a gap in all of them, and in those of the models
that are its results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from phalanx.controller.results.compare import change
from phalanx.controller.results.parts import Parts, is_failure
from phalanx.controller.results.summary import number
from phalanx.controller.results.table import has_value

#: Values that are kept and drawn, the latest; the range is that of these.
MOST_VALUES = 60


@dataclass(frozen=True, slots=True)
class Trend:
    """The values of one metric of one model, oldest first, None where it failed; the latest as written.

    ``change``: of the latest value against the one before it, in percent. ``rows``: all there are.
    """

    model: str
    metric: str
    values: tuple[float | None, ...]
    latest: str
    status: str
    change: float | None
    rows: int

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values that are there."""
        return tuple(value for value in self.values if value is not None)


@dataclass(slots=True)
class _Series:
    values: list[float | None] = field(default_factory=list)
    latest: str = ""
    status: str = ""
    rows: int = 0

    def add(self, value: float | None, text: str, status: str) -> None:
        self.values.append(value)
        del self.values[:-MOST_VALUES]
        self.latest, self.status = text, status
        self.rows += 1


def trends(rows: Iterable[Mapping[str, str]]) -> list[Trend]:
    """A trend for each model and metric in the order of their first rows; one that only failed too."""
    found: dict[str, dict[str, _Series]] = {}
    parts = Parts()
    for row in rows:
        ended = parts.add(row)
        series = found.setdefault(row.get("model", ""), {})
        metric, text, status = row.get("metric", ""), row.get("performance", ""), row.get("status", "")
        if not is_failure(row):
            name = metric if has_value(metric) else ""
            series.setdefault(name, _Series()).add(number(text), text, status)
            continue
        of_parts = [one for part in ended for one in found[part].values()]
        for one in [*(series.values() or [series.setdefault("", _Series())]), *of_parts]:
            one.add(None, "", status)
    return [
        _trend(model, metric, one)
        for model, series in found.items()
        for metric, one in series.items()
        if metric or len(series) == 1
    ]


def _trend(model: str, metric: str, series: _Series) -> Trend:
    numbers = [value for value in series.values if value is not None]
    latest = series.values[-1]
    before = numbers[-2] if latest is not None and len(numbers) > 1 else None
    moved = change(before, latest)
    return Trend(model, metric, tuple(series.values), series.latest, series.status, moved, series.rows)
