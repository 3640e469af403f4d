"""What is known of a run, as values: the nouns that ``view`` fills and that screens and ``status`` read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from phalanx.controller.fleet.events import OWN, ImageOnNode
from phalanx.protocol.messages import NODE_LEVEL, Cause


class Mark(Enum):
    """How a phase stands."""

    WAITING = "waiting"
    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"


#: The phases of a run in their order, as screens name them.
PHASES = ("allocation", "agents", "image", "run", "results")


@dataclass(slots=True)
class PhaseView:
    """One phase: when it began and ended (wall clock, seconds)."""

    mark: Mark = Mark.WAITING
    began: float | None = None
    ended: float | None = None

    def begin(self, at: float) -> None:
        """The first sign of the phase."""
        if self.mark is Mark.WAITING:
            self.mark, self.began = Mark.ACTIVE, at

    def end(self, at: float, mark: Mark = Mark.DONE) -> None:
        """Its last sign; a phase that failed stays so."""
        self.begin(at)
        if self.mark is not Mark.FAILED:
            self.mark, self.ended = mark, at

    def seconds(self, now: float) -> float:
        """How long it took, or takes so far."""
        if self.began is None:
            return 0.0
        return max(0.0, (self.ended if self.ended is not None else now) - self.began)


@dataclass(slots=True)
class NodeView:
    """A node: ``state`` is waiting, missing, joined, silent, lost, draining or left."""

    name: str
    node_rank: int = -1
    state: str = "waiting"
    address: str = ""
    detail: str = ""
    joined_at: float | None = None
    reconnects: int = 0
    image: ImageOnNode | None = None
    image_error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()

    @property
    def image_id(self) -> str:
        """What its engine has under the name that was asked for last, "" for nothing."""
        return self.image.image_id if self.image is not None else ""


@dataclass(slots=True)
class RankView:
    """The process of a rank in one step, or that of a node (``rank`` -1). ``cause`` is None while it runs."""

    case: str
    step: str
    node: str
    rank: int
    began: float | None = None
    ended: float | None = None
    status: int = 0
    cause: Cause | None = None
    seconds: float = 0.0
    detail: str = ""
    ready: bool = False

    @property
    def failed(self) -> bool:
        """Over, and not well: a bad status or any cause but ending by itself."""
        return self.cause is not None and (self.status != 0 or self.cause is not Cause.EXITED)


@dataclass(slots=True)
class CaseView:
    """A case: ``status`` is "" until its verdict. ``gpus``: indexes of those that it has on each node while
    others may run beside it."""

    name: str
    nodes: tuple[str, ...] = ()
    ranks: int = 0
    gpus: tuple[int, ...] = ()
    step: str = ""
    status: str = ""
    reason: str = ""
    error: str = ""
    rows: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    files: int = 0
    left_out: tuple[str, ...] = ()
    began: float | None = None
    ended: float | None = None

    @property
    def state(self) -> str:
        """waiting, running or over."""
        if self.status:
            return "over"
        return "waiting" if self.began is None else "running"

    @property
    def ranks_per_node(self) -> int:
        """Ranks are dealt in blocks: node i has ranks i*n .. i*n+n-1."""
        return max(1, self.ranks // len(self.nodes)) if self.nodes else 1

    def local(self, rank: int) -> int:
        """The rank's number on its own node; -1 for what runs once per node."""
        return rank if rank < 0 else rank % self.ranks_per_node


class Fault(Enum):
    """What kind of thing failed first."""

    RANK = "rank"
    NODE = "node"
    JOIN = "join"
    IMAGE = "image"
    ALLOCATION = "allocation"
    CASE = "case"
    SPAWN = "spawn"


@dataclass(frozen=True, slots=True)
class Failure:
    """The first thing that went wrong; all that follows is an echo of it until shown otherwise."""

    fault: Fault
    at: float
    detail: str = ""
    node: str = ""
    case: str = ""
    step: str = ""
    rank: int = NODE_LEVEL
    local: int = NODE_LEVEL
    status: int = 0
    cause: Cause | None = None


def failure_of(rank: RankView, local: int) -> Failure:
    """The end of a rank as a failure. ``local``: its number on its own node."""
    return Failure(
        Fault.RANK,
        rank.ended or 0.0,
        rank.detail,
        rank.node,
        rank.case,
        rank.step,
        rank.rank,
        local,
        rank.status,
        rank.cause,
    )


@dataclass(frozen=True, slots=True)
class Followers:
    """Ranks that ended badly in the same way after the first failure; ``ranks`` () for node-level steps."""

    words: str
    nodes: tuple[str, ...]
    ranks: tuple[int, ...]
    count: int


@dataclass(slots=True)
class TransferView:
    """How an image's layers travel to nodes that lack them: as planned, then as it was. Bytes and seconds.

    ``seconds``: of the travel alone; ``ready_s``: from the question who has it until every engine has.
    """

    shape: str
    nodes: int
    bytes: int
    source_bytes: int
    saved_bytes: int
    predicted_s: float
    slow: tuple[str, ...] = ()
    parents_left: int = 0
    read_bytes: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0
    ready_s: float = 0.0
    slowest: str = ""


@dataclass(slots=True)
class ImageView:
    """An image on its way to the nodes, or there. ``case``: the one that asked for it when it was due, "" for
    the first image of a run and for one that a person wants. ``had``: nodes that had it before. ``ready``:
    those that have got it. ``error``: why it is not on every node.
    """

    reference: str = ""
    id: str = ""
    case: str = ""
    source: str = ""
    size: int = 0
    had: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    transfer: TransferView | None = None
    error: str = ""


RankKey = tuple[str, str, str, int]


@dataclass(slots=True)
class RunView:
    """All of a run. ``state``: starting, pending, running, ending, then succeeded, failed or cancelled.

    ``parallel``: cases that may run at a time. ``request``: of which image this is the view: its own, which
    are those of its cases one after another, if not of one that was asked for later. ``image``: that one;
    ``earlier_images``: those before it.
    """

    run_id: str = ""
    request: int = OWN
    name: str = ""
    target: str = ""
    state: str = "starting"
    seq: int = 0
    expected: int = 0
    case_names: tuple[str, ...] = ()
    parallel: int = 1
    controller_pid: int = 0
    job_id: str = ""
    owned: bool = False
    nodes: dict[str, NodeView] = field(default_factory=dict)
    phases: dict[str, PhaseView] = field(default_factory=lambda: {name: PhaseView() for name in PHASES})
    cases: dict[str, CaseView] = field(default_factory=dict)
    ranks: dict[RankKey, RankView] = field(default_factory=dict)
    failure: Failure | None = None
    missing: dict[str, str] = field(default_factory=dict)
    spawner_said: list[tuple[str, str]] = field(default_factory=list)
    image: ImageView = field(default_factory=ImageView)
    earlier_images: list[ImageView] = field(default_factory=list)
    metrics: dict[str, tuple[int, float, str]] = field(default_factory=dict)
    notices: list[tuple[float, str]] = field(default_factory=list)
    cancels: list[tuple[int, str]] = field(default_factory=list)
    files: int = 0
    file_bytes: int = 0
    refused_peers: int = 0
    ending: str = ""
    reason: str = ""
    exit_code: int | None = None
    leftovers: tuple[str, ...] = ()
    log_gaps: dict[str, int] = field(default_factory=dict)
    started_at: float | None = None
    finished_at: float | None = None
    last_at: float | None = None

    @property
    def finished(self) -> bool:
        """Only run.finished ends a run."""
        return self.exit_code is not None

    @property
    def images(self) -> list[ImageView]:
        """All images of its cases of which something is known, in the order of their use."""
        return [*self.earlier_images, *([self.image] if self.image.reference else [])]

    @property
    def joined(self) -> int:
        """Nodes that have joined at some time."""
        return sum(1 for node in self.nodes.values() if node.joined_at is not None)

    @property
    def rows(self) -> int:
        """Rows that the cases gave."""
        return sum(len(case.rows) for case in self.cases.values())

    def seconds(self, now: float) -> float:
        """How long the run took, or takes so far."""
        if self.started_at is None:
            return 0.0
        return max(0.0, (self.finished_at if self.finished_at is not None else now) - self.started_at)

    def case(self, name: str) -> CaseView:
        """The case of this name; an empty one, which is not kept, when nothing is known of it yet."""
        return self.cases.get(name) or CaseView(name)

    def current(self) -> CaseView | None:
        """The case that was begun last."""
        return next(reversed(self.cases.values()), None)

    def running(self) -> list[CaseView]:
        """The cases that run, in the order in which they began."""
        return [case for case in self.cases.values() if case.state == "running"]

    def of_step(self, case: str, step: str) -> list[RankView]:
        """The processes of a step."""
        return [rank for key, rank in self.ranks.items() if key[0] == case and key[1] == step]
