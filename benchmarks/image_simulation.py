"""Images from node to node without a network: plays a plan's parent lists chunk by chunk.

Time is cut where who reads from whom changes: a node dies, its readers move on, a new plan comes. Between
two cuts every edge has one rate, so the arrival of each chunk follows from its arrival at the parent, from
the top of a tree down. Nodes that have the same history, a parent of the same history and the same rate
have the same future: it is computed once. So ten thousand nodes with chunks of true size take what some
dozen histories take.

A parent's uplink is shared as TCP does: evenly, but who cannot take its share leaves it to the others.
Stripes of a node share what it takes in evenly. The fabric between is taken to carry everything. A chunk
that was under way from a parent that is left is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from phalanx.controller.images.planner import Links, SyncPlan
from phalanx.controller.images.predict import stripe_bytes


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """When each chunk of a stripe was verified, in order; bytes of the next one that are there."""

    times: tuple[float, ...] = ()
    partial: float = 0.0


@dataclass
class Fleet:
    """Nodes that read an image of ``size`` bytes by a plan. ``factors``: speed of a node, 1.0 unless
    given."""

    size: int
    links: Links
    plan: SyncPlan
    factors: Mapping[str, float] = field(default_factory=dict)
    now: float = 0.0

    def __post_init__(self) -> None:
        stripes = range(self.plan.stripes)
        chunk = self.plan.chunk_bytes
        self._bytes = [stripe_bytes(self.size, chunk, stripe, len(stripes)) for stripe in stripes]
        self._counts = [-(-total // chunk) for total in self._bytes]
        empty = History()
        self._have = [dict.fromkeys(self.plan.routes, empty) for _ in stripes]
        self._reads: list[dict[str, str | None]] = [{} for _ in stripes]
        self._dead: set[str] = set()
        self.follow(self.plan)

    def follow(self, plan: SyncPlan) -> None:
        """Everyone reads from its first parent of this plan."""
        self.plan = plan
        for stripe in range(len(self._reads)):
            for name, route in plan.routes.items():
                self._read(stripe, name, route.parents[stripe][0])

    def die(self, name: str) -> None:
        """It is gone; who reads from it waits and does not know."""
        self._dead.add(name)
        for reads in self._reads:
            reads[name] = None
        for stripe, reads in enumerate(self._reads):
            for child in [child for child, parent in reads.items() if parent == name]:
                self._read(stripe, child, None)

    def move_on(self) -> None:
        """Who waits has noticed, and reads from the next of its list."""
        for stripe, reads in enumerate(self._reads):
            for child in [child for child, parent in reads.items() if parent is None]:
                if child not in self._dead:
                    line = self.plan.routes[child].parents[stripe]
                    self._read(stripe, child, next(name for name in line if name not in self._dead))

    def run(self, until: float = inf) -> None:
        """Let time pass."""
        rates = self._rates()
        for stripe, reads in enumerate(self._reads):
            have = self._have[stripe]
            after: dict[str, History] = {}
            known: dict[tuple[int, int, float], History] = {}
            for name in _downward(reads):
                parent = reads[name]
                giver = None if parent == self.plan.root else after.get(parent or "", have.get(parent or ""))
                key = (id(have[name]), id(giver), rates.get((stripe, name), 0.0))
                if key not in known:
                    known[key] = self._advanced(stripe, have[name], giver, key[2], until)
                after[name] = known[key]
            have.update(after)
        self.now = until

    def finished(self, names: Iterable[str]) -> list[float]:
        """When these had everything; inf for who never has."""
        return [max(self._end(stripe, name) for stripe in range(len(self._have))) for name in names]

    def _end(self, stripe: int, name: str) -> float:
        times = self._have[stripe][name].times
        if len(times) < self._counts[stripe]:
            return inf
        return times[-1] if times else 0.0

    def _read(self, stripe: int, name: str, parent: str | None) -> None:
        before = self._reads[stripe].get(name)
        self._reads[stripe][name] = parent
        had = self._have[stripe][name]
        if before != parent and had.partial:
            self._have[stripe][name] = History(had.times)

    def _rates(self) -> dict[tuple[int, str], float]:
        """Bytes per second of each edge that still has something to carry."""
        readers: dict[str, list[tuple[float, int, str]]] = {}
        for stripe, reads in enumerate(self._reads):
            for name, parent in reads.items():
                if parent is None or len(self._have[stripe][name].times) == self._counts[stripe]:
                    continue
                takes = self.links.rate * self.factors.get(name, 1.0) / self._open_stripes(name)
                readers.setdefault(parent, []).append((takes, stripe, name))
        rates = {}
        for parent, edges in readers.items():
            left = self.links.uplink * self.factors.get(parent, 1.0)
            edges.sort()
            for index, (takes, stripe, name) in enumerate(edges):
                rates[stripe, name] = min(takes, left / (len(edges) - index))
                left -= rates[stripe, name]
        return rates

    def _open_stripes(self, name: str) -> int:
        pairs = zip(self._have, self._counts, strict=True)
        return sum(len(have[name].times) < count for have, count in pairs)

    def _advanced(
        self, stripe: int, own: History, giver: History | None, rate: float, until: float
    ) -> History:
        """``own`` at ``until``, reading at ``rate`` from ``giver``; None: from the root, which has
        everything."""
        count, chunk, hop = self._counts[stripe], self.plan.chunk_bytes, self.links.hop_s
        if not rate:
            return own
        times, partial, free = list(own.times), own.partial, self.now
        last = self._bytes[stripe] - (count - 1) * chunk
        available = giver.times if giver is not None else (0.0,) * count
        for index in range(len(times), min(count, len(available))):
            free = max(free, available[index] + hop)
            size = (chunk if index < count - 1 else last) - partial
            if free + size / rate > until:
                partial += max(0.0, until - free) * rate
                break
            free += size / rate
            times.append(free)
            partial = 0.0
        return History(tuple(times), partial)


def _downward(reads: Mapping[str, str | None]) -> list[str]:
    """Each parent before its readers."""
    below: dict[str, list[str]] = {}
    for name, parent in reads.items():
        below.setdefault(parent if parent and parent in reads else "", []).append(name)
    order = below.get("", [])
    for name in order:  # grows while it is walked
        order += below.get(name, [])
    return order
