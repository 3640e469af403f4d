"""What each node lacks and can give, and the order in which nodes may feed one another.

A node gives the layers that it is to load, cached ones at once and the others as they come; not what its
engine has, though the cache may have it as well: a sync opens nothing below its first layer. Nodes are
grouped by that layer: within a group anyone can feed anyone, and a group can feed all later ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from .sync_plan import Candidate


@dataclass(frozen=True, slots=True)
class Need:
    """``first``: it loads, and gives, every layer from here on. ``missing``: those that must travel to it."""

    name: str
    rack: str
    first: int
    missing: tuple[int, ...]
    slow: bool

    @property
    def place(self) -> tuple[int, bool, str, str]:
        """Where it stands among the others: who can give most first, then who needs nothing itself."""
        return (self.first, bool(self.missing), self.rack, self.name)

    def can_feed(self, child: Need) -> bool:
        """Whether everything that ``child`` lacks can be had here. Right for a suffix, careful else."""
        return not child.missing or self.first <= child.missing[0]


def need(candidate: Candidate, layers: int) -> Need:
    """Raises ValueError for a first layer that the image does not have."""
    if not 0 <= candidate.first <= layers:
        raise ValueError(f"cannot plan for {candidate.name}: layer {candidate.first} of {layers}")
    wanted = range(candidate.first, layers)
    missing = tuple(layer for layer in wanted if layer not in candidate.cached)
    return Need(candidate.name, candidate.rack, candidate.first, missing, candidate.slow)


def each_once(sizes: Sequence[int], repeated: Collection[int]) -> tuple[int, ...]:
    """Bytes that travel of each layer: none of one that comes again above, since it is got for that place."""
    return tuple(0 if layer in repeated else size for layer, size in enumerate(sizes))


def groups(needs: Iterable[Need]) -> list[list[Need]]:
    """By what they can give, most first; within, who needs nothing first, then by rack and name."""
    made: dict[int, list[Need]] = {}
    for one in sorted(needs, key=lambda one: one.place):
        made.setdefault(one.first, []).append(one)
    return list(made.values())


def closed_up(grouped: Sequence[Sequence[Need]], before: Sequence[str]) -> list[Need]:
    """In the order of ``before``, newcomers last in their group: for a chain, where a gap moves nobody."""
    slot = {name: index for index, name in enumerate(before)}
    return [
        one for group in grouped for one in sorted(group, key=lambda one: slot.get(one.name, len(before)))
    ]


def filled_up(grouped: Sequence[Sequence[Need]], before: Sequence[str]) -> list[Need]:
    """Each keeps its slot of ``before`` if its group still has it; the others fill the gaps.

    For trees, where a slot is a role: one node that goes moves one other for each group.
    """
    slot = {name: index for index, name in enumerate(before)}
    order: list[Need] = []
    for group in grouped:
        start, end = len(order), len(order) + len(group)
        held = {slot[one.name]: one for one in group if one.name in slot and start <= slot[one.name] < end}
        others = iter([one for one in group if held.get(slot.get(one.name, -1)) is not one])
        order += [held[index] if index in held else next(others) for index in range(start, end)]
    return order
