"""The page of a table of results: the latest of each model with its history, and all rows. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from phalanx.controller.results.summary import Summary, number
from phalanx.controller.runs.words import duration

from .grid import grid, statuses_of
from .rendering import render, tone
from .trend import Trend, trends

#: Histories that a page draws; those with most rows when there are more.
MOST_TRENDS = 300


@dataclass(frozen=True, slots=True)
class Tile:
    """A fact of the head of a page. ``tone``: good, bad, warn or ""."""

    label: str
    words: str
    tone: str = ""


def csv_page(name: str, folder: str, summary: Summary) -> bytes:
    """The page of the table in file ``name``; ``folder`` says where it lies."""
    rows = list(summary.records())
    found = trends(rows) if "model" in summary.columns else []
    return render(
        "table.html.j2",
        title=name,
        folder=folder,
        tiles=tiles(summary, found),
        trends=shown_trends(found),
        more_trends=max(0, len(found) - MOST_TRENDS),
        grid=grid(summary),
        total=len(summary.rows),
    )


def shown_trends(found: Sequence[Trend]) -> list[Trend]:
    """Those to draw, in the order of the table; none at all when there is no history to see."""
    if not any(trend.rows > 1 for trend in found):
        return []
    longest = sorted(found, key=lambda trend: -trend.rows)[:MOST_TRENDS]
    kept = {id(trend) for trend in longest}
    return [trend for trend in found if id(trend) in kept]


def tiles(summary: Summary, found: Sequence[Trend]) -> list[Tile]:
    """The head: rows, models and how they stand, time, nodes."""
    facts = [Tile("rows", f"{len(summary.rows)}")]
    latest = {trend.model: trend.status for trend in found}
    if latest:
        facts.insert(0, _models(list(latest.values())))
    for status, count in statuses_of(summary.columns, summary.rows)[:4]:
        facts.append(Tile(status, f"{count}", "bad" if status == "FAILURE" else ""))
    seconds = sum(_seconds(cell) for cell in _column(summary, "test_duration"))
    if seconds and math.isfinite(seconds):
        facts.append(Tile("time in tests", duration(seconds)))
    nodes = [value for cell in _column(summary, "nnodes") if (value := number(cell)) is not None]
    if nodes:
        low, high = int(min(nodes)), int(max(nodes))
        facts.append(Tile("nodes", f"{high}" if low == high else f"{low} to {high}"))
    return facts


def _models(statuses: Sequence[str]) -> Tile:
    """How many models there are, and how their last rows stand."""
    tones = [tone(status) for status in statuses]
    failed, well, count = tones.count("bad"), tones.count("good"), len(tones)
    if failed:
        return Tile("models", f"{failed} of {count} failed last", "bad")
    if well == count:
        return Tile("models", f"all {count} well" if count > 1 else "1, well", "good")
    return Tile("models", f"{well} of {count} well" if well else f"{count}")


def _column(summary: Summary, name: str) -> list[str]:
    if name not in summary.columns:
        return []
    place = summary.columns.index(name)
    return [row[place] for row in summary.rows]


def _seconds(cell: str) -> float:
    """A duration as madengine writes it: ``12.34``, on clusters ``12.34s``."""
    return max(0.0, number(cell.removesuffix("s")) or 0.0)
