"""Sizes, durations and counts as people write them on the command line. Each function raises InputError."""

from __future__ import annotations

import math
import re

from phalanx.protocol.messages import Ulimit

from ..workflow.errors import InputError, did_you_mean

#: Ten years; what is longer is a mistake of units, and the protocol refuses it.
LONGEST_S = 10 * 365 * 86400.0
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|min|[dhms]?)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
#: Names of setrlimit(2) resources as docker takes them.
ULIMIT_NAMES = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip


def duration(text: str, name: str) -> float:
    """Seconds of ``90``, ``90s``, ``1h30m``, ``2d``; ``name`` is the option for the error."""
    words = text.strip().lower()
    parts = list(_DURATION_PART.finditer(words))
    whole = "".join(part.group() for part in parts) == words and bool(words)
    bare = sum(1 for part in parts if not part[2])
    if not whole or (bare and len(parts) > 1):
        raise InputError(
            f"cannot use {name}: expected a duration such as 90, 30s, 5m or 1h30m, found {text!r}"
        )
    seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    if seconds > LONGEST_S:
        raise InputError(f"cannot use {name}: {text!r} is more than ten years")
    return seconds


def size(text: str, name: str) -> int:
    """Bytes of ``512m``, ``16G``, ``1.5GiB``; powers of 1024, as docker has them."""
    match = _SIZE.fullmatch(text.strip())
    amount = float(match[1]) * 1024 ** _POWERS[match[2].lower()] if match else 0.0
    if not 1 <= amount < 2**63:
        raise InputError(f"cannot use {name}: expected a size such as 512m or 16g, found {text!r}")
    return int(amount)


def cpus(text: str, name: str) -> float:
    """A number of CPUs, fractions allowed."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount <= 65536:
        raise InputError(f"cannot use {name}: expected a number of CPUs such as 4 or 1.5, found {text!r}")
    return amount


def cpuset(text: str, name: str) -> str:
    """A list of CPUs such as ``0-3,8``."""
    words = text.replace(" ", "")
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", words):
        raise InputError(f"cannot use {name}: expected CPUs such as 0-3,8, found {text!r}")
    return words


def ulimit(text: str, name: str) -> Ulimit:
    """``nofile=1024:65536``, ``memlock=-1`` or ``memlock=unlimited``."""
    resource, equals, limits = text.partition("=")
    if resource not in ULIMIT_NAMES:
        raise InputError(f"cannot use {name} {text!r}: no such limit{did_you_mean(resource, ULIMIT_NAMES)}")
    soft, colon, hard = limits.partition(":")
    try:
        low = _limit(soft)
        high = _limit(hard) if colon else low
    except ValueError:
        equals = ""
    if not equals:
        raise InputError(
            f"cannot use {name} {text!r}: expected NAME=SOFT[:HARD] with numbers, or -1 for none"
        )
    if high != -1 and (low == -1 or low > high):
        raise InputError(f"cannot use {name} {text!r}: the soft limit is above the hard one")
    return Ulimit(resource, low, high)


def _limit(text: str) -> int:
    if text == "unlimited":
        return -1
    value = int(text)
    if not -1 <= value < 2**63:
        raise ValueError(text)
    return value


def whole_number(text: str, name: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise InputError(f"cannot use {name}: expected a whole number from {low} to {high}, found {text!r}")
    return value
