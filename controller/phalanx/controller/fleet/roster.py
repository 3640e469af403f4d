"""The nodes of a run and what is known of each: the membership table applied to the event log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from phalanx.protocol.membership import Member, Seat, advance

from .events import AgentFacts, AgentJoined, AgentLeft, AgentLost, AgentSilent, Event
from .hardware import Hardware, hardware_of


@dataclass(slots=True)
class NodeRecord:
    """One node. ``address``: where its agent connected from; ``facts``: as it reported them, or None.

    ``hardware``: the GPUs among them.
    """

    node: str
    node_rank: int
    state: Member = Member.EXPECTED
    incarnation: str = ""
    address: str = ""
    facts: dict[str, Any] | None = None
    hardware: Hardware | None = None
    detail: str = ""
    leftovers: tuple[str, ...] = ()


@dataclass(slots=True)
class Roster:
    """All nodes of the allocation, by name, in the order of their ranks."""

    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    _count: Counter[Member] = field(default_factory=Counter)

    def expect(self, names: tuple[str, ...]) -> None:
        """These nodes should send an agent each; their position is their node rank."""
        self.nodes = {name: NodeRecord(name, rank) for rank, name in enumerate(names)}
        self._count = Counter(record.state for record in self.nodes.values())

    def seat(self, node: str) -> Seat | None:
        """The seat of a node for ``membership.judge``; None for a stranger."""
        record = self.nodes.get(node)
        if record is None:
            return None
        return Seat(record.node, record.node_rank, record.state, record.incarnation)

    def address(self, node: str) -> str:
        """Where a node's agent connected from, "" for a stranger."""
        record = self.nodes.get(node)
        return record.address if record is not None else ""

    def apply(self, event: Event) -> bool:
        """Take an agent event. False when it changes nothing (a repeat, or a node that is given up)."""
        record = self.nodes.get(getattr(event, "node", ""))
        if record is None:
            return False
        if isinstance(event, AgentFacts):
            record.facts, record.hardware = event.facts, hardware_of(event.facts)
            return True
        trigger = _TRIGGERS.get(type(event))
        if trigger is None or not self._move(record, trigger):
            return False
        if isinstance(event, AgentJoined):
            record.incarnation, record.address = event.incarnation, event.address
        elif isinstance(event, AgentLeft):
            record.leftovers = event.leftovers
        elif isinstance(event, AgentSilent | AgentLost):
            record.detail = event.detail
        return True

    def _move(self, record: NodeRecord, trigger: str) -> bool:
        try:
            state = advance(record.state, trigger)
        except ValueError:
            return False
        self._count[record.state] -= 1
        self._count[state] += 1
        record.state = state
        return True

    def any(self, state: Member) -> bool:
        """Whether a node is in this state. Asked for every agent that comes or goes, so it counts none."""
        return self._count[state] > 0

    def of(self, *states: Member) -> tuple[str, ...]:
        """Names of the nodes in one of these states, by rank."""
        return tuple(record.node for record in self.nodes.values() if record.state in states)

    @property
    def present(self) -> tuple[str, ...]:
        """Nodes whose agent is there, or may come back."""
        return self.of(Member.JOINED, Member.SILENT)


_TRIGGERS: dict[type[Event], str] = {
    AgentJoined: "joined",
    AgentSilent: "silent",
    AgentLost: "lost",
    AgentLeft: "left",
}
