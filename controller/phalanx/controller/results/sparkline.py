"""Values as a small picture in a line of text."""

from __future__ import annotations

from collections.abc import Sequence

_BARS, _PLAIN = "▁▂▃▄▅▆▇█", "12345678"


def sparkline(values: Sequence[float], unicode: bool = True) -> str:
    """One sign for each value, from the lowest of them to the highest; equal values lie in the middle."""
    signs = _BARS if unicode else _PLAIN
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high:
        return signs[len(signs) // 2 - 1] * len(values)
    # Divided first: the difference of two finite values may be infinite.
    span = high / 2 - low / 2
    return "".join(signs[round((value / 2 - low / 2) / span * (len(signs) - 1))] for value in values)
