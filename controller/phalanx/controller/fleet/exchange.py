"""Barriers and key-value exchange between the ranks of a case: what workloads share. Pure.

Arrivals and values are not in the event log (they are no verdicts); the outcome of a barrier is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from phalanx.protocol.barrier import BarrierBook, Failed, Outcome, Released, to_ranges
from phalanx.protocol.messages import (
    BarrierEnter,
    BarrierFail,
    BarrierRelease,
    KvGet,
    KvPut,
    KvReply,
    Message,
)

from .events import BarrierFailed, BarrierReleased, Event

#: Keys and bytes that one case may keep: names and values come from the workload.
MOST_KEYS = 65536
MOST_BYTES = 64 * 1024 * 1024
#: Names of barriers whose failure is told, once each: after a death a workload might go on to ever new ones.
MOST_TOLD = 256


@dataclass(frozen=True, slots=True)
class Reply:
    """A message for some nodes."""

    nodes: tuple[str, ...]
    message: Message


@dataclass(slots=True)
class CaseExchange:
    """What the ranks of one case exchange. ``node_of``: the node of each rank."""

    case: str
    node_of: dict[int, str]
    book: BarrierBook = field(init=False)
    values: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    #: who waits for a key: of each node its last request, since its ranks ask as one
    _readers: dict[str, dict[str, int]] = field(default_factory=dict)
    _reading: int = 0
    _ranks_on: dict[str, list[int]] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    _size: int = 0

    def __post_init__(self) -> None:
        self.book = BarrierBook(self.node_of)
        for rank, node in self.node_of.items():
            self._ranks_on.setdefault(node, []).append(rank)

    # --- barriers

    def enter(self, node: str, message: BarrierEnter) -> list[Reply]:
        """A rank of ``node`` arrives at a barrier."""
        if self.node_of.get(message.member) != node:
            reason = f"rank {message.member} is not on {node}"
            return [Reply((node,), BarrierFail(self.case, message.name, message.generation, reason))]
        outcome = self.book.enter(message.name, message.generation, message.member, message.expected)
        return [self._tell(outcome)] if outcome else []

    def ranks_on(self, node: str) -> list[int]:
        """The ranks of a node."""
        return self._ranks_on.get(node, [])

    def leave(self, ranks: Iterable[int], reason: str) -> list[Reply]:
        """Ranks are over: barriers that wait for them fail, by name."""
        return [self._tell(failed) for rank in ranks for failed in self.book.leave(rank, reason)]

    def _tell(self, outcome: Outcome) -> Reply:
        if isinstance(outcome, Released):
            count = len(outcome.members)
            self.events.append(BarrierReleased(outcome.name, outcome.generation, count, self.case))
            nodes = self._nodes(outcome.members)
            ranges = to_ranges(outcome.members)
            return Reply(nodes, BarrierRelease(self.case, outcome.name, outcome.generation, ranges))
        return self._tell_failed(outcome)

    def _tell_failed(self, failed: Failed) -> Reply:
        if failed.news and failed.name not in self._failed and len(self._failed) < MOST_TOLD:
            self._failed.add(failed.name)
            self.events.append(BarrierFailed(failed.name, failed.generation, failed.reason, self.case))
        message = BarrierFail(self.case, failed.name, failed.generation, failed.reason)
        return Reply(self._nodes(failed.waiting), message)

    def _nodes(self, ranks: Iterable[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.node_of[rank] for rank in ranks if rank in self.node_of))

    def take_events(self) -> list[Event]:
        """Outcomes since the last call, to be recorded."""
        events, self.events = self.events, []
        return events

    # --- key-value

    def put(self, node: str, message: KvPut) -> list[Reply]:
        """Set a key; those who wait for it get it."""
        grown = self._size + len(message.value) - len(self.values.get(message.key, b""))
        if grown > MOST_BYTES or (message.key not in self.values and len(self.values) >= MOST_KEYS):
            words = f"the case holds {len(self.values)} keys, {self._size} bytes already"
            return [Reply((node,), KvReply(message.request, None, words))]
        self.values[message.key] = message.value
        self._size = grown
        woken = self._readers.pop(message.key, {})
        self._reading -= len(woken)
        return [
            Reply((node,), KvReply(message.request, None, "")),
            *(Reply((who,), KvReply(request, message.value, "")) for who, request in woken.items()),
        ]

    def get(self, node: str, message: KvGet) -> list[Reply]:
        """Read a key, or wait until it is set: how long its ranks wait is the agent's business."""
        value = self.values.get(message.key)
        if value is not None or message.wait_s <= 0:
            return [Reply((node,), KvReply(message.request, value, "" if value is not None else "not set"))]
        waiting = self._readers.setdefault(message.key, {})
        if node not in waiting:
            if self._reading >= MOST_KEYS:
                return [Reply((node,), KvReply(message.request, None, "too many readers wait"))]
            self._reading += 1
        waiting[node] = message.request
        return []
