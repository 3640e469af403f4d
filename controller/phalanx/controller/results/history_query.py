"""What the history is asked: results newest first, trends, and the part that a node had in runs.

Two values can be compared when they are of the same model and metric, in the same shape: as many nodes, as
many GPUs, the same launcher. The value before is the last one of that kind that was measured earlier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..workflow.errors import did_you_mean
from .history import History, said

#: Values behind a trend.
TREND = 20


class UnclearName(Exception):
    """A name is none, or more than one thing, in the history. The message is for the user."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which results are meant; "" and None are all. ``model``: a name, or a pattern with * and ?.

    ``since``: wall clock, seconds; nothing older.
    """

    model: str = ""
    node: str = ""
    metric: str = ""
    status: str = ""
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A row of a run. ``before``: the last value of its kind before it, None when there is none."""

    at: float
    run: str
    model: str
    performance: str
    value: float | None
    metric: str
    status: str
    nnodes: str
    n_gpus: str
    launcher: str
    before: float | None

    @property
    def change(self) -> float | None:
        """The change against the value before as a fraction of it, None where that means nothing."""
        if self.value is None or not self.before:
            return None
        change = (self.value - self.before) / abs(self.before)
        return change if math.isfinite(change) else None


@dataclass(frozen=True, slots=True)
class Trend:
    """The values of one kind, oldest first, at most ``TREND`` of them; ``count``: of all."""

    model: str
    metric: str
    nnodes: str
    n_gpus: str
    launcher: str
    count: int
    last_at: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NodePart:
    """A run that had a node. ``failed_first``: it was there that the run failed first; ``why``: in words."""

    at: float
    run: str
    state: str
    exit_code: int
    models: tuple[str, ...]
    failed_first: bool
    why: str


_SAME_KIND = " AND ".join(
    f"b.{name} = r.{name}" for name in ("model", "metric", "nnodes", "n_gpus", "launcher")
)


def results(history: History, wanted: Filter, limit: int) -> list[Result]:
    """The newest results, newest first. Raises HistoryError."""
    where, values = _where(wanted)
    query = f"""
        SELECT r.at, r.run, r.model, r.performance, r.value, r.metric, r.status,
               r.nnodes, r.n_gpus, r.launcher,
               (SELECT b.value FROM "rows" b
                WHERE {_SAME_KIND} AND b.at < r.at AND {_measured("b")}
                ORDER BY b.at DESC LIMIT 1) AS before
        FROM (SELECT * FROM "rows" r WHERE {where} ORDER BY r.at DESC, r.run DESC, r.number LIMIT ?) r
        ORDER BY r.at DESC, r.run DESC, r.number
    """  # noqa: S608 - names and marks of ours only
    with said(history.path):
        return [Result(*row) for row in history.connection.execute(query, (*values, limit))]


def trends(history: History, wanted: Filter, limit: int) -> list[Trend]:
    """What was measured, a line for each kind of value, the one that was measured last first.

    Raises HistoryError.
    """
    where, values = _where(wanted)
    kind = "r.model, r.metric, r.nnodes, r.n_gpus, r.launcher"
    query = f"""
        SELECT {kind}, count(*), max(r.at) AS last FROM "rows" r
        WHERE {where} AND {_measured("r")} GROUP BY {kind} ORDER BY last DESC, {kind} LIMIT ?
    """  # noqa: S608 - names and marks of ours only
    last = f"""
        SELECT r.value FROM "rows" r
        WHERE {where} AND {_measured("r")} AND ({kind}) = (?, ?, ?, ?, ?)
        ORDER BY r.at DESC LIMIT {TREND}
    """  # noqa: S608 - names and marks of ours only
    with said(history.path):
        found = history.connection.execute(query, (*values, limit)).fetchall()
        return [
            Trend(
                *(model, metric, nnodes, n_gpus, launcher, counted, at),
                _values(history, last, (*values, model, metric, nnodes, n_gpus, launcher)),
            )
            for model, metric, nnodes, n_gpus, launcher, counted, at in found
        ]


def _values(history: History, query: str, given: tuple[object, ...]) -> tuple[float, ...]:
    """The values that a query gives newest first, oldest first."""
    return tuple(row[0] for row in history.connection.execute(query, given))[::-1]


def parts(history: History, wanted: Filter, limit: int) -> list[NodePart]:
    """The newest runs that had the node, newest first. Raises HistoryError."""
    of_rows, values = _where(Filter(wanted.model, "", wanted.metric, wanted.status, None))
    has = f'SELECT 1 FROM "rows" r WHERE r.run = u.id AND {of_rows}'  # noqa: S608 - names and marks of ours only
    narrowed = "" if of_rows == "1" else f"AND EXISTS ({has})"
    query = f"""
        SELECT u.finished, u.id, u.state, u.exit_code, n.failed_first, n.why
        FROM nodes n JOIN runs u ON u.id = n.run
        WHERE n.node = ? AND u.finished >= ? {narrowed}
        ORDER BY u.finished DESC, u.id DESC LIMIT ?
    """  # noqa: S608 - names and marks of ours only
    with said(history.path):
        given = (wanted.node, wanted.since or 0.0, *values, limit)
        found = history.connection.execute(query, given).fetchall()
        return [
            NodePart(at, run, state, code, _models_of(history, run), bool(first), why)
            for at, run, state, code, first, why in found
        ]


def named(history: History, wanted: Filter, name: str) -> Filter:
    """The filter for a bare name, which is that of a model or a node: whichever the history knows.

    Raises UnclearName when it knows neither or both, and HistoryError.
    """
    where, values = _where(Filter(model=name))
    model = _any(history, f'SELECT 1 FROM "rows" r WHERE {where} LIMIT 1', *values)  # noqa: S608
    node = _any(history, "SELECT 1 FROM nodes WHERE node = ? LIMIT 1", name)
    if model and node:
        raise UnclearName(
            f"cannot tell whether {name!r} means a model or a node: say --model {name} or --node {name}"
        )
    if not model and not node:
        hint = did_you_mean(name, _names(history))
        raise UnclearName(f"cannot find {name!r}: no model or node in {history.path} is called so{hint}")
    return replace(wanted, model=name) if model else replace(wanted, node=name)


def _names(history: History) -> list[str]:
    query = 'SELECT DISTINCT model FROM "rows" UNION SELECT DISTINCT node FROM nodes'
    with said(history.path):
        return [row[0] for row in history.connection.execute(query)]


def failed_first(found: Sequence[NodePart]) -> int:
    """In how many of these runs the node failed first."""
    return sum(1 for one in found if one.failed_first)


def _any(history: History, query: str, *values: object) -> bool:
    with said(history.path):
        return history.connection.execute(query, values).fetchone() is not None


def _models_of(history: History, run: str) -> tuple[str, ...]:
    query = 'SELECT DISTINCT model FROM "rows" WHERE run = ? ORDER BY number'
    return tuple(row[0] for row in history.connection.execute(query, (run,)))


def _measured(alias: str) -> str:
    """Rows that hold a value that counts."""
    return f"{alias}.value IS NOT NULL AND {alias}.status = 'SUCCESS'"


def _where(wanted: Filter) -> tuple[str, tuple[object, ...]]:
    """A condition on rows ``r`` and its values; "1" for all."""
    parts: list[tuple[str, object]] = []
    if wanted.model:
        pattern = "*" in wanted.model or "?" in wanted.model
        parts.append(("r.model GLOB ?", _glob(wanted.model)) if pattern else ("r.model = ?", wanted.model))
    if wanted.metric:
        parts.append(("r.metric = ?", wanted.metric))
    if wanted.status:
        parts.append(("r.status = ?", wanted.status))
    if wanted.since is not None:
        parts.append(("r.at >= ?", wanted.since))
    return " AND ".join(part[0] for part in parts) or "1", tuple(part[1] for part in parts)


def _glob(pattern: str) -> str:
    """Only * and ? are special in our patterns; SQLite's GLOB has sets besides."""
    return pattern.replace("[", "[[]")
