"""What the engine asks the shell to do. Values only: the engine decides, the shell acts."""

from __future__ import annotations

from dataclasses import dataclass, field

from phalanx.protocol.messages import Message

from ..plan.model import Share
from .events import OWN, Event


@dataclass(frozen=True, slots=True)
class Instruction:
    """Base of all instructions."""


@dataclass(frozen=True, slots=True)
class Record(Instruction):
    """Write this event to the log, then hand it back to the engine."""

    event: Event


@dataclass(frozen=True, slots=True)
class Tell(Instruction):
    """Send a message to each of these nodes that is connected."""

    nodes: tuple[str, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class SetTimer(Instruction):
    """Call ``engine.on_timer(name)`` after ``seconds``; a timer of that name that runs is replaced."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DropTimer(Instruction):
    """Forget a timer."""

    name: str


@dataclass(frozen=True, slots=True)
class AllocateNodes(Instruction):
    """Get nodes; record allocation.granted or allocation.refused."""


@dataclass(frozen=True, slots=True)
class StopAllocating(Instruction):
    """Stop asking for nodes, and give back what may have been granted meanwhile."""


@dataclass(frozen=True, slots=True)
class SpawnAgents(Instruction):
    """Start an agent on each node of the allocation."""

    job_id: str
    nodes: tuple[str, ...]
    owned: bool


@dataclass(frozen=True, slots=True)
class ExplainMissing(Instruction):
    """Record join.timeout with the best known reason for each of these nodes."""

    nodes: tuple[str, ...]
    joined: int
    expected: int


@dataclass(frozen=True, slots=True)
class FindImage(Instruction):
    """Find out what the image is and where its layers are; record image.source.

    ``node``: a node whose engine has it, "" for none. ``nodes``: one of these may pull it from its registry.
    ``image_id``: which image is meant, "" for whatever has the name. ``held``: the likeness of what all
    nodes have under the name, "" when they differ: when the login node's engine has that, there is no more to
    find.
    """

    reference: str
    archive: str
    node: str
    nodes: tuple[str, ...]
    request: int = OWN
    image_id: str = ""
    held: str = ""


@dataclass(frozen=True, slots=True)
class RequestImage(Instruction):
    """Number a request for the image of a case that is due, and record it as image.requested."""

    case: str
    reference: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskLayers(Instruction):
    """Ask these nodes what they hold of the image; each answer is recorded as image.layers."""

    nodes: tuple[str, ...]
    request: int = OWN


@dataclass(frozen=True, slots=True)
class OpenRelays(Instruction):
    """Let these nodes serve others; each answer is recorded as relay.opened."""

    nodes: tuple[str, ...]
    request: int = OWN


@dataclass(frozen=True, slots=True)
class SeedOn(Instruction):
    """Let this node, whose engine has it, seed the image for one that is lost; record image.source."""

    node: str
    request: int = OWN


Parents = dict[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True, slots=True)
class SyncImage(Instruction):
    """Bring the image to nodes. ``first``: the first layer that each lacks; ``parents``: per stripe, from
    whom it reads, in order of preference; ``fanout``: readers that a node feeds at full speed."""

    first: dict[str, int]
    parents: Parents
    fanout: int = 1
    request: int = OWN


@dataclass(frozen=True, slots=True)
class ChangeParents(Instruction):
    """These nodes read from others from now on; none: they wait."""

    parents: Parents
    request: int = OWN


#: The purpose of a bundle of modules: the engine's client, or with a name behind it that distribution.
LIBRARY = "library"


@dataclass(frozen=True, slots=True)
class Ship(Instruction):
    """Bring a blob to these nodes; record image.fetched for each.

    ``purpose``: "workspace", or see ``LIBRARY``. ``shares``: what a workspace is made of. ``case``: whose it
    is.
    """

    purpose: str
    shares: tuple[Share, ...]
    nodes: tuple[str, ...]
    request: int = OWN
    case: str = ""


@dataclass(frozen=True, slots=True)
class CaseEnd:
    """How a case went on the nodes, before its results are looked at. ``skipped``: why it did not run."""

    nodes: tuple[str, ...]
    ranks: int
    completed: bool
    failure: str
    cancelled: bool
    seconds: float
    failed_node: str = ""
    failed_rank: int = -1
    machine_names: tuple[str, ...] = field(default_factory=tuple)
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class JudgeCase(Instruction):
    """Work out the verdict and the rows of a case from what is in the run directory; record case.finished."""

    case: str
    outcome: CaseEnd


@dataclass(frozen=True, slots=True)
class AskScheduler(Instruction):
    """Ask the target what became of the allocation; record allocation.ended when it is over."""


@dataclass(frozen=True, slots=True)
class EndAgents(Instruction):
    """End what is left of spawner and agents, then record spawn.ended."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class ReleaseAllocation(Instruction):
    """Give the allocation back if it is ours; record allocation.released."""
