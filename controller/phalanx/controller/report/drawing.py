"""Coordinates of the drawings in pages: lines of values, bars, axes. Pure; templates write the SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phalanx.controller.runs.words import duration

#: Lengths between two marks of an axis, in seconds: what people count in.
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)
#: Marks that fit under a drawing.
_MARKS = 10
#: Space between the edge of a line's drawing and the outermost point, so that no dot is cut.
_PAD = 3.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line through the values that are there, as SVG points. ``gaps``: the places of those that are not.
    ``last``: the place of the last one, None when that is missing."""

    width: float
    height: float
    points: str
    gaps: tuple[float, ...]
    last: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on an axis and its words."""

    x: float
    words: str


def line(values: Sequence[float | None], width: float = 120.0, height: float = 26.0) -> Line:
    """The line of ``values``, evenly spaced, from the lowest at the bottom to the highest at the top."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    # Halved before the difference: the range of two finite numbers may be infinite.
    half = high / 2 - low / 2
    step = (width - 2 * _PAD) / max(1, len(values) - 1)

    def place(index: int, value: float) -> tuple[float, float]:
        share = 0.5 if half <= 0 else (value / 2 - low / 2) / half
        return round(_PAD + index * step, 1), round(height - _PAD - share * (height - 2 * _PAD), 1)

    known_places = [place(index, value) for index, value in enumerate(values) if value is not None]
    gaps = tuple(round(_PAD + index * step, 1) for index, value in enumerate(values) if value is None)
    last = known_places[-1] if values and values[-1] is not None else None
    return Line(width, height, " ".join(f"{x:g},{y:g}" for x, y in known_places), gaps, last)


def shares(values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Lengths of bars, 0 to 1: each value against the largest by amount."""
    most = max((abs(value) for value in values if value is not None), default=0.0)
    return tuple(None if value is None else (abs(value) / most if most else 0.0) for value in values)


def axis(seconds: float, width: float) -> tuple[Mark, ...]:
    """Marks of an axis of time that is ``width`` long."""
    if seconds <= 0:
        return ()
    step = next((step for step in _STEPS if seconds / step <= _MARKS), None)
    if step is None:
        step = 86400.0 * (int(seconds / 86400 / _MARKS) + 1)
    count = int(seconds / step + 1e-9)
    return tuple(
        Mark(round(index * step / seconds * width, 1), "0" if index == 0 else _time(index * step, step))
        for index in range(count + 1)
    )


def _time(seconds: float, step: float) -> str:
    if step < 1:
        return f"{seconds:.1f} s"
    return f"{seconds:g} s" if seconds < 60 else duration(seconds)
