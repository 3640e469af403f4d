"""Who is in the fleet: one table of states per node, and the rule for a newcomer at the door.

A node has one seat. A live agent is never pushed out of it: a second one with the join key is refused
until the first is gone. The agent that sat there comes back with the key that only it was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .messages import Channel, Hello


class Member(Enum):
    """What is known of a node's agent."""

    #: an agent should come from this node
    EXPECTED = "expected"
    #: it joined and is heard
    JOINED = "joined"
    #: it joined, but its connection broke or it is not heard; it may come back
    SILENT = "silent"
    #: it was silent for too long, or its process is known to be gone: its ranks are lost
    LOST = "lost"
    #: it went as it was asked to
    LEFT = "left"


TRANSITIONS: dict[Member, dict[str, Member]] = {
    Member.EXPECTED: {"joined": Member.JOINED, "lost": Member.LOST},
    Member.JOINED: {"silent": Member.SILENT, "lost": Member.LOST, "left": Member.LEFT},
    Member.SILENT: {"joined": Member.JOINED, "lost": Member.LOST, "left": Member.LEFT},
    Member.LOST: {},
    Member.LEFT: {},
}


def advance(state: Member, trigger: str) -> Member:
    """The next state. Raises ValueError, naming both, for what the table does not allow."""
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise ValueError(f"{trigger} is not allowed for a node that is {state.value}") from None


class Entry(Enum):
    """The answer at the door."""

    #: take the seat, proving the join key
    JOIN = "join"
    #: sit down again, proving the resume key
    RESUME = "resume"
    #: no; the reason goes to the controller's log only
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Seat:
    """What the controller knows of a node: its rank, its state and the incarnation that sits there."""

    node: str
    node_rank: int
    state: Member = Member.EXPECTED
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer and why."""

    entry: Entry
    reason: str


def judge(run_id: str, agent_build: str, seat: Seat | None, hello: Hello) -> Verdict:
    """Whether a hello may try to prove itself, and with which key. It proves nothing by itself.

    ``seat`` is that of the node the hello names, None when the run does not expect it.
    """
    if hello.run_id != run_id:
        return Verdict(Entry.REFUSE, f"it is for run {hello.run_id!r}")
    if seat is None or hello.node_rank != seat.node_rank:
        return Verdict(
            Entry.REFUSE, f"no agent is expected from {hello.node!r} as node rank {hello.node_rank}"
        )
    if hello.agent_build != agent_build:
        return Verdict(
            Entry.REFUSE,
            f"agent of {hello.node} is build {hello.agent_build[:12]!r}, {agent_build[:12]!r} was sent",
        )
    if hello.resume or hello.channel is Channel.BULK:
        return _judge_resume(seat, hello)
    if seat.state is Member.EXPECTED:
        return Verdict(Entry.JOIN, "expected")
    if seat.state in (Member.JOINED, Member.SILENT) and seat.incarnation == hello.incarnation:
        # It never heard our welcome. Its incarnation is a random number that only it and we know.
        return Verdict(Entry.JOIN, "the same incarnation, which was not told that it is in")
    if seat.state is Member.JOINED:
        return Verdict(Entry.REFUSE, f"{seat.node} has joined already; a live agent keeps its seat")
    return Verdict(Entry.REFUSE, f"{seat.node} is {seat.state.value}; another incarnation cannot take over")


def _judge_resume(seat: Seat, hello: Hello) -> Verdict:
    if not hello.resume:
        return Verdict(Entry.REFUSE, "a bulk connection needs the resume key")
    if seat.incarnation != hello.incarnation:
        return Verdict(Entry.REFUSE, f"incarnation {hello.incarnation!r} never joined as {seat.node}")
    if seat.state in (Member.JOINED, Member.SILENT):
        return Verdict(Entry.RESUME, "known incarnation")
    return Verdict(Entry.REFUSE, f"{seat.node} is {seat.state.value} and fenced")
