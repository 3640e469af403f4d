"""Whether more of a metric is better or less, read from the words of its name.

A metric is better when it is higher, unless its name says that it is a time, a loss or an error. The words of
a name are its runs of letters (``stepTime`` has two). What comes after ``/`` or ``per`` is not looked at: it
only says per what, so ``tok/s`` and ``samples_per_second`` are rates and higher is better, while
``ms/step`` and ``seconds per token`` are times. Where that is wrong, the user says so.
"""

from __future__ import annotations

import re
from enum import Enum


class Direction(Enum):
    """Which change of a metric is the good one."""

    HIGHER = "higher"
    LOWER = "lower"


LOWER_WORDS = frozenset(
    {
        # units of time
        "ns", "us", "µs", "ms", "s", "sec", "secs", "second", "seconds", "minute", "minutes",
        "hour", "hours", "millisecond", "milliseconds", "microsecond", "microseconds",
        # what takes time
        "time", "runtime", "walltime", "latency", "duration", "delay", "elapsed", "overhead", "jitter",
        "ttft", "tpot", "itl",
        # what is wrong with a result
        "loss", "perplexity", "ppl", "error", "errors", "mae", "mse", "rmse", "wer",
    }
)  # fmt: skip
_WORD = re.compile(r"[A-Zµ]?[a-zµ]+|[A-Z]+(?![a-z])")


def direction_of(metric: str) -> Direction:
    """The direction of a metric by the rule above."""
    counted = metric.split("/")[0]
    words = [word.lower() for word in _WORD.findall(counted)]
    if "per" in words:
        words = words[: words.index("per")]
    return Direction.LOWER if LOWER_WORDS.intersection(words) else Direction.HIGHER
