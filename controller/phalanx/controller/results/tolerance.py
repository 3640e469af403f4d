"""``2%`` and ``tok/s=5%``: what a value may lose, in words and back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

from ..workflow.errors import InputError

_PERCENT = re.compile(r"(\d{1,4}(?:\.\d{1,6})?)\s*%")
#: Ten times the value: what is more is no tolerance.
_MOST = 1000


def tolerance(text: str) -> Fraction:
    """The fraction of a value that ``2%`` means. Raises InputError."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None or Fraction(match[1]) > _MOST:
        raise InputError(
            f"cannot use tolerance {text[:40]!r}: expected a percentage up to {_MOST}%, such as 2% or 0.5%"
        )
    return Fraction(match[1]) / 100


def in_words(allowed: Fraction) -> str:
    """A tolerance as ``tolerance`` reads it."""
    percent = Decimal(allowed.numerator * 100) / Decimal(allowed.denominator)
    text = f"{percent:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"


def tolerances(words: Iterable[str]) -> tuple[Fraction | None, dict[str, Fraction]]:
    """What ``--tolerance`` says for all metrics, None for nothing, and for single ones. Raises InputError."""
    general: Fraction | None = None
    by_metric: dict[str, Fraction] = {}
    for word in words:
        metric, equals, percent = word.rpartition("=")
        if not equals:
            general = tolerance(word)
        elif metric.strip():
            by_metric[metric.strip()] = tolerance(percent)
        else:
            raise InputError(f"cannot use tolerance {word[:40]!r}: it names no metric before the =")
    return general, by_metric
