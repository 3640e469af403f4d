"""Node sets as people write and read them: ClusterShell's syntax, which holds Slurm's hostlists.

ClusterShell does the work and is imported when it is first needed: most commands never fold a node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

#: Above this, names with several numbers take ClusterShell seconds to fold: people then get a count.
IRREGULAR_LIMIT = 1024
_NUMBER = re.compile(r"(\d+)")


class NodesetError(Exception):
    """A node set that cannot be read. The message names it and says what was expected."""


def expand(text: str) -> tuple[str, ...]:
    """The nodes of a node set, in natural order: ``node[001-003,007]``, unions ``a,b``, differences ``a!b``.

    Raises NodesetError.
    """
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        return natural(str(node) for node in NodeSet(text))
    except NodeSetException as error:
        raise NodesetError(
            f"cannot read node set {text!r}: {error}; write it like node[001-016,020] or a,b"
        ) from error


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


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of ``0-7,12``. Raises NodesetError."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise NodesetError(
                f"cannot read ranks {text!r}: {part!r} is no number or range; write them like 0-7,12"
            )
        found.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(dict.fromkeys(found))
