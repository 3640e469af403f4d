"""Which node stands where in which shape: who may be a parent, in what order, in which trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .needs import Need, closed_up, filled_up, groups
from .sync_plan import Links, Shape, SyncPlan
from .topology import CHAIN_MAX, FANOUT_MAX, Parents, chain, k_ary, two_tree


@dataclass(frozen=True, slots=True)
class Layout:
    """``trees``: one per stripe, over the positions of ``order``. ``slow``: who hangs beside them, by name.

    ``fanout``: readers that a node of this shape feeds at full speed.
    """

    shape: Shape
    fanout: int
    order: Sequence[Need]
    trees: Sequence[Parents]
    slow: Sequence[Need]


def lay_out(needs: Sequence[Need], links: Links, previous: SyncPlan | None) -> Layout:
    """The layout, as near to that of ``previous`` as these nodes allow."""
    normal, slow = _sorted_out(needs)
    grouped = groups(normal)
    shape, fanout = _shape(len(normal), links, previous)
    before = previous.order if previous is not None else ()
    order = (closed_up if shape == "chain" else filled_up)(grouped, before)
    return Layout(shape, fanout, order, _trees(shape, fanout, [len(group) for group in grouped]), slow)


def _sorted_out(needs: Sequence[Need]) -> tuple[list[Need], list[Need]]:
    """Nodes that may be parents, and slow ones. When all are slow none is: there is nobody to be spared."""
    needy = [one for one in needs if one.missing]
    slow = sorted((one for one in needy if one.slow), key=lambda one: one.place)
    if len(slow) == len(needy):
        slow = []
    spared = {one.name for one in slow}
    normal = [one for one in needy if one.name not in spared]
    # Who needs nothing helps if it can give to someone all that this one lacks.
    furthest = max((one.first for one in normal), default=-1)
    holders = [one for one in needs if not one.missing and not one.slow and one.first <= furthest]
    return normal + holders, slow


def _shape(count: int, links: Links, previous: SyncPlan | None) -> tuple[Shape, int]:
    """A plan that lost a node keeps its shape, although it may now be small enough for a chain."""
    if not count:
        return "none", 0
    if previous is not None and previous.shape != "none":
        return previous.shape, previous.fanout
    fanout = min(FANOUT_MAX, int(links.uplink // links.ingest))
    if fanout >= 2:
        return "k-ary", fanout
    return ("chain", 1) if count <= CHAIN_MAX else ("two-tree", 2)


def _trees(shape: Shape, fanout: int, counts: Sequence[int]) -> list[Parents]:
    if shape == "two-tree":
        return two_tree(counts)
    return k_ary(sum(counts), fanout) if shape == "k-ary" else chain(sum(counts))
