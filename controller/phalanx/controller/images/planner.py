"""Who reads which layers of an image from whom: a pure function, so that 10,000 nodes can be tried at a desk.

Every node reads from one parent per stripe, and knows further ancestors in case that one fails. Lists hold
ancestors only, so nodes that move along them can never wait for each other in a circle. A slow node is
nobody's parent: it hangs from a node that has room, and delays no other.

A plan is made again when nodes die, come back or turn out to be slow: with the candidates as they were at
first, less the dead, and the plan before it, whose layout is kept as far as it can be. Ties are
broken by name: the same input gives the same plan.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from phalanx.protocol.blob import layer_chunk_bytes

from .layout import Layout, lay_out
from .needs import Need, need
from .predict import finishes, loading_after, pendant_finish, stripe_bytes
from .sync_plan import CONTROLLER, Candidate, Links, Route, Shape, SyncPlan
from .topology import ROOT, Parents, downward

__all__ = ["CONTROLLER", "PARENTS_MAX", "Candidate", "Links", "Route", "Shape", "SyncPlan", "make_plan"]

#: Longest list of parents, the root included: each is a ticket and a line of a message. Seven ancestors in
#: a row that fail within one transfer are left to the root.
PARENTS_MAX = 8


def make_plan(
    sizes: Sequence[int],
    candidates: Sequence[Candidate],
    root: str,
    links: Links = Links(),  # noqa: B008 - frozen
    previous: SyncPlan | None = None,
) -> SyncPlan:
    """The plan for an image with layers of ``sizes`` bytes, read from ``root``: CONTROLLER or a node that
    seeds.

    ``previous``: the plan that this one replaces. Raises ValueError for candidates that make no sense.
    """
    _check(candidates, root)
    needs = [need(candidate, len(sizes)) for candidate in candidates]
    return _Drawing(sizes, needs, root, links, lay_out(needs, links, previous)).plan()


def _check(candidates: Sequence[Candidate], root: str) -> None:
    names = {candidate.name for candidate in candidates}
    if len(names) < len(candidates):
        raise ValueError("cannot plan for two nodes of one name")
    if CONTROLLER in names:
        raise ValueError("cannot plan for a node without a name: that is the controller")
    if root in names:
        raise ValueError(f"cannot plan for {root}: it has the image to give")


class _Drawing:
    """The plan on its way from positions to names."""

    def __init__(
        self, sizes: Sequence[int], needs: Sequence[Need], root: str, links: Links, layout: Layout
    ) -> None:
        self._sizes, self._needs, self._root, self._links = sizes, needs, root, links
        self._layout, self._order, self._trees = layout, layout.order, layout.trees
        self._chunk = layer_chunk_bytes(sum(sizes))
        self._amounts: dict[tuple[tuple[int, ...], int], int] = {}
        self._lines = [_lines(tree, [one.name for one in self._order]) for tree in self._trees]
        self._readers = _readers(self._trees, self._order)
        self._routes: dict[str, Route] = {}

    def plan(self) -> SyncPlan:
        done = self._finishes()
        parents_of_slow = self._feeders(done)
        for position, one in enumerate(self._order):
            self._add(one, position, done[position])
        for one in self._layout.slow:
            self._add_pendant(one, parents_of_slow[one.name], done)
        for one in self._needs:
            if one.name not in self._routes:
                self._routes[one.name] = self._route(one, [() for _ in self._trees], 0, 0.0)
        return self._result({one.name: self._routes[one.name] for one in self._needs})

    def _amount(self, missing: tuple[int, ...], stripe: int) -> int:
        """Bytes of these layers in one stripe. Few sets of layers are asked for, by many nodes."""
        known = self._amounts.get((missing, stripe))
        if known is None:
            stripes = len(self._trees)
            known = sum(stripe_bytes(self._sizes[layer], self._chunk, stripe, stripes) for layer in missing)
            self._amounts[missing, stripe] = known
        return known

    def _finishes(self) -> list[float]:
        """Per position, when its last stripe is there."""
        rate = self._links.rate / len(self._trees)
        per_stripe = [
            finishes(
                tree,
                [self._amount(one.missing, stripe) for one in self._order],
                self._chunk,
                rate,
                self._links.hop_s,
            )
            for stripe, tree in enumerate(self._trees)
        ]
        return [max(times) for times in zip(*per_stripe, strict=True)]

    def _feeders(self, done: Sequence[float]) -> dict[str, int]:
        """For each slow node the position that feeds it: the fewest readers, then the earliest end."""
        free = [
            (self._readers[position], done[position], one.name, position)
            for position, one in enumerate(self._order)
        ]
        heapq.heapify(free)
        chosen: dict[str, int] = {}
        for child in self._layout.slow:
            unfit = []
            while free and not self._order[free[0][3]].can_feed(child):
                unfit.append(heapq.heappop(free))
            chosen[child.name] = ROOT
            if free:
                readers, end, name, position = heapq.heappop(free)
                chosen[child.name] = position
                self._readers[position] += len(self._trees)
                unfit.append((readers + len(self._trees), end, name, position))
            for entry in unfit:
                heapq.heappush(free, entry)
        return chosen

    def _size(self, one: Need) -> int:
        return sum(self._amount(one.missing, stripe) for stripe in range(len(self._trees)))

    def _route(
        self, one: Need, lists: Iterable[tuple[str, ...]], children: int, end: float, pendant: bool = False
    ) -> Route:
        return Route(one.name, one.missing, self._size(one), tuple(lists), children, end, pendant)

    def _add(self, one: Need, position: int, end: float) -> None:
        lists = [(*lines[position], self._root) if one.missing else () for lines in self._lines]
        self._routes[one.name] = self._route(one, lists, self._readers[position], end)

    def _add_pendant(self, one: Need, position: int, done: Sequence[float]) -> None:
        if position == ROOT:
            above: list[tuple[str, ...]] = [() for _ in self._trees]
            behind = 0.0
        else:
            feeder = self._order[position].name
            above = [(feeder, *lines[position])[: PARENTS_MAX - 1] for lines in self._lines]
            behind = done[position]
        end = pendant_finish(behind, self._size(one), self._links)
        lists = [(*line, self._root) for line in above]
        self._routes[one.name] = self._route(one, lists, 0, end, pendant=True)

    def _result(self, routes: dict[str, Route]) -> SyncPlan:
        loading: dict[tuple[int, tuple[int, ...]], float] = {}
        loaded = source = 0.0
        for one in self._needs:
            key = (one.first, one.missing)
            if key not in loading:
                loading[key] = loading_after(self._sizes, *key, self._links)
            loaded = max(loaded, routes[one.name].finish_s + loading[key])
            for stripe, parents in enumerate(routes[one.name].parents):
                source += self._amount(one.missing, stripe) if parents[:1] == (self._root,) else 0
        moved = sum(route.bytes for route in routes.values())
        return SyncPlan(
            root=self._root,
            shape=self._layout.shape,
            chunk_bytes=self._chunk,
            routes=routes,
            predicted_s=max((route.finish_s for route in routes.values()), default=0.0),
            source_bytes=int(source),
            saved_bytes=len(routes) * sum(self._sizes) - moved,
            loaded_s=loaded,
            fanout=self._layout.fanout,
            order=tuple(one.name for one in self._order),
        )


def _lines(tree: Parents, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Per position its nearest ancestors, nearest first, without the root."""
    lines: list[tuple[str, ...]] = [()] * len(tree)
    for position in downward(tree):
        parent = tree[position]
        if parent != ROOT:
            lines[position] = (names[parent], *lines[parent])[: PARENTS_MAX - 1]
    return lines


def _readers(trees: Sequence[Parents], order: Sequence[Need]) -> list[int]:
    """Per position the readers that it has, over all stripes."""
    readers = [0] * len(order)
    for tree in trees:
        for position, parent in enumerate(tree):
            if parent != ROOT and order[position].missing:
                readers[parent] += 1
    return readers
