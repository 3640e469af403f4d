"""When which node did what: spans of time of a run, from its events. Pure.

A node waits for its agent, gets the image, and then does each step of each case; a step spans from the first
of its ranks that began to the last that ended. Nodes that had trouble come first when there are too many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from phalanx.controller.fleet import events as ev
from phalanx.controller.logs.sources import EXEC_STEP
from phalanx.controller.nodesets import natural_key
from phalanx.controller.runs.echoes import end_words
from phalanx.controller.runs.view import cause_of
from phalanx.protocol.messages import MAIN_STEP, Cause

#: Nodes that are drawn; the rest is counted. A screen and a printed page hold about as many.
MOST_NODES = 48
#: Spans of a node: a case has a handful of steps, and beyond this many nothing can be told apart.
MOST_SPANS = 400


@dataclass(frozen=True, slots=True)
class Span:
    """Something that a node did from ``begin`` to ``end`` (seconds since the run began).

    ``kind``: join, image, main, step (any other step), failed, stopped, lost.
    ``detail``: what it says to who points at it.
    """

    begin: float
    end: float
    kind: str
    label: str
    detail: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A node and its spans in time order. ``trouble``: one of them went wrong."""

    node: str
    spans: tuple[Span, ...]
    trouble: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lanes that are drawn, how many nodes are not, and how long it all took (seconds)."""

    lanes: tuple[Lane, ...]
    left_out: int
    seconds: float

    @property
    def kinds(self) -> frozenset[str]:
        """Those that occur."""
        return frozenset(span.kind for lane in self.lanes for span in lane.spans)


@dataclass(slots=True)
class _Step:
    """The ranks of one step of one case on one node, so far."""

    begin: float
    end: float | None = None
    running: int = 0
    ranks: int = 0
    worst: str = ""
    words: str = ""


@dataclass(slots=True)
class _Node:
    joined: float | None = None
    lost: float | None = None
    lost_words: str = ""
    image_began: float | None = None
    images: list[Span] = field(default_factory=list)
    steps: dict[tuple[str, str], _Step] = field(default_factory=dict)


@dataclass(slots=True)
class _Reader:
    """Takes the events one by one; times are as in the log."""

    start: float = 0.0
    last: float = 0.0
    spawned: float | None = None
    cases: int = 1
    image_asked: dict[int, float] = field(default_factory=dict)
    nodes: dict[str, _Node] = field(default_factory=dict)

    def node(self, name: str) -> _Node:
        return self.nodes.setdefault(name, _Node())

    def take(self, at: float, event: ev.Event) -> None:
        self.last = at
        if isinstance(event, ev.RunStarted):
            self.start, self.cases = at, len(event.cases)
        elif isinstance(event, ev.AllocationGranted):
            for name in event.nodes:
                self.node(name)
        elif isinstance(event, ev.SpawnStarted):
            self.spawned = at if self.spawned is None else self.spawned
        elif isinstance(event, ev.AgentJoined | ev.AgentLost | ev.JoinTimeout):
            self._of_agent(at, event)
        elif isinstance(event, ev.ImageOnNode):
            self._image(at, event)
        elif isinstance(event, ev.RankStarted | ev.RankExited):
            self._of_rank(at, event)

    def _of_agent(self, at: float, event: ev.AgentJoined | ev.AgentLost | ev.JoinTimeout) -> None:
        if isinstance(event, ev.JoinTimeout):
            for name, reason in event.missing.items():
                node = self.node(name)
                node.lost, node.lost_words = at, reason or "it never joined"
        elif isinstance(event, ev.AgentLost):
            node = self.node(event.node)
            node.lost, node.lost_words = at, event.detail
        else:
            node = self.node(event.node)
            node.joined = at if node.joined is None else node.joined

    def _image(self, at: float, event: ev.ImageOnNode) -> None:
        """A node first says what it has; it speaks again when the image is there, or could not be."""
        node = self.node(event.node)
        began = self.image_asked.setdefault(event.request, at)
        if not event.image_id and not event.error:
            node.image_began = at
            return
        kind, words = ("failed", event.error) if event.error else ("image", event.image_id[:19])
        begin = node.image_began if node.image_began is not None else began
        node.images.append(Span(begin, at, kind, "image", f"{event.reference}: {words}"))
        node.image_began = None

    def _of_rank(self, at: float, event: ev.RankStarted | ev.RankExited) -> None:
        if event.step.startswith(EXEC_STEP):
            return
        step = self.node(event.node).steps.setdefault((event.case, event.step), _Step(at))
        if isinstance(event, ev.RankStarted):
            step.running += 1
            step.ranks += 1
            return
        step.running -= 1
        step.end = at
        cause = cause_of(event.cause)
        bad = "" if not event.status and cause is Cause.EXITED else _kind_of(cause)
        if bad and step.worst not in ("failed", "lost"):
            step.worst, step.words = bad, end_words(event.status, cause)


def _kind_of(cause: Cause) -> str:
    return {Cause.STOPPED: "stopped", Cause.LOST: "lost"}.get(cause, "failed")


def timeline(events: Iterable[ev.Recorded], most: int = MOST_NODES) -> Timeline:
    """The lanes of a run's nodes. A run that goes on, or whose log has no end, ends with its last event."""
    reader = _Reader()
    for recorded in events:
        reader.take(recorded.at, recorded.event)
    lanes = [_lane(name, node, reader) for name, node in reader.nodes.items()]
    lanes = [lane for lane in lanes if lane.spans]
    chosen = _chosen(lanes, most)
    return Timeline(tuple(chosen), len(lanes) - len(chosen), max(0.0, reader.last - reader.start))


def _chosen(lanes: Sequence[Lane], most: int) -> list[Lane]:
    """At most ``most``, those with trouble before others, shown in the order people count."""
    by_name = sorted(lanes, key=lambda lane: natural_key(lane.node))
    picked = sorted(by_name, key=lambda lane: not lane.trouble)[:most]
    return sorted(picked, key=lambda lane: natural_key(lane.node))


def _lane(name: str, node: _Node, reader: _Reader) -> Lane:
    spans: list[Span] = []
    if reader.spawned is not None and (node.joined is not None or node.lost is not None):
        if node.joined is not None:
            spans.append(Span(reader.spawned, node.joined, "join", "join", "its agent starts and joins"))
        else:
            spans.append(Span(reader.spawned, node.lost or reader.last, "failed", "join", node.lost_words))
    spans += node.images
    if node.image_began is not None:
        spans.append(Span(node.image_began, node.lost or reader.last, "image", "image", "on its way"))
    for (case, step), seen in node.steps.items():
        spans.append(_step_span(case, step, seen, node, reader))
    spans = sorted(spans, key=lambda span: span.begin)[:MOST_SPANS]
    moved = tuple(
        Span(
            max(0.0, span.begin - reader.start),
            max(0.0, span.end - reader.start),
            span.kind,
            span.label,
            span.detail,
        )
        for span in spans
    )
    trouble = node.lost is not None or any(span.kind in ("failed", "lost") for span in moved)
    return Lane(name, moved, trouble)


def _step_span(case: str, step: str, seen: _Step, node: _Node, reader: _Reader) -> Span:
    over = seen.end is not None and seen.running <= 0
    end = seen.end if seen.end is not None and over else (node.lost or reader.last)
    kind = seen.worst or ("main" if step == MAIN_STEP else "step")
    label = step if reader.cases <= 1 else case if step == MAIN_STEP else f"{case} {step}"
    ranks = f"{seen.ranks} rank{'' if seen.ranks == 1 else 's'}"
    how = seen.words or ("ok" if over else "no end known")
    return Span(seen.begin, max(seen.begin, end), kind, label, f"{case}, step {step}, {ranks}: {how}")
