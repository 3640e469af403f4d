"""Which nodes hold up the others, judged from how far each has come while the transfer runs.

A slow node in the middle starves all behind it, so a low rate says little. What tells it apart is its parent,
who has what it could take: it lags while its parent is well ahead and runs at twice its rate. A node whose
parent is not ahead waits for the parent, and is not to blame.

Two cases are not decided by rates. When all are equally slow nobody is slow. When the first node below the
root is slow, everyone behind it has its pace, which looks the same as a slow source; only a *trial* tells:
with ``expected`` given, that node is called slow, someone else takes its place in the next plan, and if
that one is no faster the verdict is taken back, for the source is to blame; if it is far slower, it is slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Seconds over which a rate is taken, and for which a parent must have been ahead.
WINDOW_S = 1.0
#: A message may be this late or early: two reports a second span a window although one came late.
JITTER_S = 0.25
#: Chunks by which a parent is ahead: more than what is under way between equals, one that the parent has just
#: verified and one on the wire, with one to spare.
AHEAD_CHUNKS = 3
#: Of what it could get; the same share as the planner's.
SLOW_SHARE = 0.5

#: The parent of each node, or one per stripe.
Parents = Mapping[str, str | tuple[str, ...]]
#: Times, and bytes lacking then.
Samples = list[tuple[float, int]]


@dataclass(slots=True)
class _Track:
    """What is known of one node: samples (time, bytes that it still lacks), of the last seconds.

    ``since``: judged from then on, for its parents were others before.
    """

    total: int
    samples: Samples = field(default_factory=list)
    parents: tuple[str, ...] = ()
    since: float = 0.0

    def add(self, now: float, left: int) -> None:
        if self.samples and (self.samples[-1][1] == 0 or now <= self.samples[-1][0]):
            return  # done: its last rate is kept for those who read from it
        self.samples.append((now, left))
        while self.samples[0][0] < now - 2 * WINDOW_S - 2 * JITTER_S:
            del self.samples[0]

    def left_at(self, time: float) -> int:
        """Bytes lacking, by the last report until then."""
        return next((left for at, left in reversed(self.samples) if at <= time), self.total)

    def window(self, end: float, since: float) -> Samples:
        """The samples of about one window up to ``end``; none when they do not span it."""
        inside = [
            sample for sample in self.samples if max(since, end - WINDOW_S - JITTER_S) <= sample[0] <= end
        ]
        spans = len(inside) > 1 and inside[-1][0] - inside[0][0] >= WINDOW_S - JITTER_S
        return inside if spans else []

    def rate(self, end: float, since: float = 0.0) -> float | None:
        """Bytes per second in the window; of a node that is done, those before its end. None: not known."""
        if self.samples and self.samples[-1][1] == 0:
            end = min(end, self.samples[-1][0])
        inside = self.window(end, since)
        return _rate(inside) if inside else None


class Pace:
    """The verdicts of one transfer.

    ``totals``: bytes that each node is to receive. ``fanout``: readers per stripe that a parent can feed at
    full speed (SyncPlan.fanout). ``expected``: bytes per second that a node below the root should get, 0
    for no trials.
    """

    def __init__(
        self, totals: Mapping[str, int], chunk_bytes: int, fanout: int = 1, expected: float = 0.0
    ) -> None:
        # Who is to receive nothing has everything: it is like a root to those who read from it.
        self._tracks = {name: _Track(total) for name, total in totals.items() if total}
        self._margin = AHEAD_CHUNKS * chunk_bytes
        self._fanout = fanout
        self._expected = expected
        self._slow: set[str] = set()
        self._tried: dict[str, float] = {}
        self._trial = ""
        self._since = 0.0
        self._first: frozenset[str] = frozenset()

    def observe(self, node: str, now: float, verified: int) -> None:
        """``node`` reports bytes that it has verified; ``now`` in seconds of any steady clock."""
        track = self._tracks.get(node)
        if track is not None:
            track.add(now, max(0, track.total - verified))

    def slow(self, parents: Parents, now: float) -> frozenset[str]:
        """Nodes that are slow by now, given from whom each reads. A verdict stays, but for a trial's.

        Never more than half of the nodes: more are not slow, they are what is usual here.
        """
        self._follow(parents, now)
        edges = _edges(parents)
        found = [name for name in sorted(parents) if self._lags(name, now, edges)]
        self._slow.update(found[: max(0, self._room())])
        self._judge_heads(parents, now)
        return frozenset(self._slow)

    def _room(self) -> int:
        return len(self._tracks) // 2 - len(self._slow)

    def _follow(self, parents: Parents, now: float) -> None:
        for name, given in parents.items():
            track = self._tracks.get(name)
            line = (given,) if isinstance(given, str) else given
            if track is not None and track.parents != line:
                if track.parents:
                    track.since = now
                track.parents = line

    def _lags(self, name: str, now: float, edges: Mapping[str, int]) -> bool:
        """Whether it is behind all its parents, and not for want of what they have or can send."""
        track = self._tracks.get(name)
        if track is None or name in self._slow or not track.samples or track.samples[-1][1] == 0:
            return False
        givers = [parent for parent in track.parents if parent in self._tracks]
        own = self._own_window(track, now)
        if not givers or not own:
            return False
        rate = _rate(own)
        return all(
            self._is_ahead(giver, own) and rate < SLOW_SHARE * self._could_give(giver, now, edges)
            for giver in givers
        )

    def _own_window(self, track: _Track, now: float) -> Samples:
        """Its samples of the last second. Nothing heard for a second is nothing received."""
        at, left = track.samples[-1]
        if now - at <= WINDOW_S:
            return track.window(at, track.since)
        start = now - WINDOW_S
        return [(start, left), (now, left)] if start >= track.since else []

    def _is_ahead(self, giver: str, own: Samples) -> bool:
        return all(left - self._tracks[giver].left_at(at) > self._margin for at, left in own)

    def _could_give(self, giver: str, now: float, edges: Mapping[str, int]) -> float:
        """What each of its readers gets, also when it feeds more than it can feed at full speed."""
        return (self._tracks[giver].rate(now) or 0.0) * min(1.0, self._fanout / edges[giver])

    def _heads(self, parents: Parents) -> dict[str, _Track]:
        """Nodes that read from the root and still lack something, not counting slow ones."""
        return {
            name: self._tracks[name]
            for name in sorted(parents)
            if name in self._tracks
            and name not in self._slow
            and self._tracks[name].samples
            and self._tracks[name].samples[-1][1] > 0
            and any(parent not in self._tracks for parent in self._tracks[name].parents)
        }

    def _judge_heads(self, parents: Parents, now: float) -> None:
        """Begin a trial, or end one."""
        if not self._expected:
            return
        heads = self._heads(parents)
        # Who took someone's place is no suspect: one trial for a chain, two for two trees.
        self._first = self._first or frozenset(heads)
        if self._trial:
            self._end_trial(heads, now)
            return
        for name, track in heads.items():
            rate = track.rate(now, track.since)
            before = track.rate(now - WINDOW_S, track.since)
            if rate is None or before is None or max(rate, before) >= SLOW_SHARE * self._expected:
                continue  # a trial costs all nodes a new plan: a second without CPU is no reason for one
            if name in self._first and name not in self._tried and self._room() > 0:
                self._tried[name], self._trial, self._since = rate, name, now
                self._slow.add(name)
                return

    def _end_trial(self, heads: Mapping[str, _Track], now: float) -> None:
        """Once the rate of who took its place is known; that one is slow if it has much less still."""
        for name, track in heads.items():
            rate = track.rate(now, track.since)
            if track.since <= self._since or rate is None:
                continue
            if rate * SLOW_SHARE <= self._tried[self._trial]:
                self._slow.discard(self._trial)
            if rate < SLOW_SHARE * self._tried[self._trial]:
                self._slow.add(name)
            self._trial = ""
            return


def _rate(samples: Samples) -> float:
    return (samples[0][1] - samples[-1][1]) / (samples[-1][0] - samples[0][0])


def _edges(parents: Parents) -> dict[str, int]:
    """Readers of each parent, once per stripe."""
    count: dict[str, int] = {}
    for given in parents.values():
        for parent in (given,) if isinstance(given, str) else given:
            count[parent] = count.get(parent, 0) + 1
    return count
