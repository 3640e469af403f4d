"""Node sets as people write and read them: ClusterShell's syntax, which holds Slurm's hostlists.

ClusterShell does the work and is imported when it is first needed: most commands never fold a node.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache

#: Above this, names with several numbers take ClusterShell seconds to fold: people then get a count.
IRREGULAR_LIMIT = 1024
#: The most names that a node set may stand for, those of a plan: each takes room here once it is written out.
MOST_NAMES = 100_000
_NUMBER = re.compile(r"(\d+)")
#: One operand of a node set, and in its brackets each range; a number of more digits is none of a node.
_OPERAND = re.compile(r"(?:\[[^\]]*\]|[^\[\],!&^\s])+")
_BRACKETS = re.compile(r"\[([^\]]*)\]")
_RANGE = re.compile(r"\s*(\d{1,18})\s*-\s*(\d{1,18})\s*(?:/\s*(\d{1,18})\s*)?")
_LONG = re.compile(r"\d{19}")


class NodesetError(Exception):
    """A node set that cannot be read. The message names it and says what was expected."""


def expand(text: str) -> tuple[str, ...]:
    """The nodes of a node set, in natural order: ``node[001-003,007]``, unions ``a,b``, differences ``a!b``.

    Raises NodesetError, before a set is written out that no run could have.
    """
    if _written_out(text) > MOST_NAMES:
        raise NodesetError(
            f"cannot read node set {text!r}: it stands for more than {MOST_NAMES} nodes, the most of a run"
        )
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        return natural(str(node) for node in NodeSet(text))
    except NodeSetException as error:
        raise NodesetError(
            f"cannot read node set {text!r}: {error}; write it like node[001-016,020] or a,b"
        ) from error


def _written_out(text: str) -> int:
    """How many names all operands of a node set have together, by their ranges alone."""
    return sum(
        math.prod(
            sum(_length(part) for part in brackets.split(",")) for brackets in _BRACKETS.findall(operand)
        )
        for operand in _OPERAND.findall(text)
    )


def _length(part: str) -> int:
    """Names of one part within brackets; 1 for what is no range, which ClusterShell looks at."""
    match = _RANGE.fullmatch(part)
    if match is None:
        return MOST_NAMES + 1 if _LONG.search(part) else 1
    low, high, step = int(match[1]), int(match[2]), int(match[3] or 1)
    return (high - low) // step + 1 if step and high >= low else 1


def fold(names: Iterable[str]) -> str:
    """The names as one short text: ``node[001-128]``. "" for none."""
    return _fold(tuple(names))


def counted(names: Iterable[str]) -> str:
    """``fold`` with the count in parentheses when there is more than one: ``node[001-128] (128)``."""
    known = tuple(dict.fromkeys(names))
    return f"{_fold(known)} ({len(known)})" if len(known) > 1 else _fold(known)


@lru_cache(maxsize=256)
def _fold(names: tuple[str, ...]) -> str:
    if len(names) <= 1:
        return names[0] if names else ""
    if len(names) > IRREGULAR_LIMIT and any(len(_NUMBER.findall(name)) > 1 for name in names):
        return f"{natural(names)[0]} … and {len(names) - 1} more"
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        return str(NodeSet.fromlist(list(names)))
    except NodeSetException:
        # A name that is no host name for ClusterShell: shown as it is rather than not at all.
        return ",".join(natural(names))


def natural(names: Iterable[str]) -> tuple[str, ...]:
    """In the order people count: node2 before node10."""
    return tuple(sorted(names, key=natural_key))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key of one name: its digits as numbers."""
    parts = _NUMBER.split(name)
    return tuple((1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts if part)


def fold_numbers(numbers: Iterable[int]) -> str:
    """Ranks as ranges: ``0-6,9``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def ranges(text: str) -> tuple[range, ...]:
    """The numbers of ``0-7,12``, as ranges: they may be long. Raises NodesetError."""
    found: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise NodesetError(
                f"cannot read ranks {text!r}: {part!r} is no number or range; write them like 0-7,12"
            )
        found.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(found)
