"""The events of a run: the one truth from which status, screens and exit code derive.

An event is a frozen dataclass here and a line of ``events.jsonl`` on disk:
``{"v":1,"seq":7,"ts":"2026-01-01T00:00:00.000Z","type":"agent.joined","run":"...","data":{...}}``.
A line is fsynced before the event is believed. Readers ignore types and keys that they do not know.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

EVENT_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; ``TYPE`` is the name on disk and in ``--json``."""

    TYPE: ClassVar[str] = ""


EVENTS: dict[str, type[Event]] = {}
E = TypeVar("E", bound=type[Event])


def event(name: str) -> Any:
    """Register an event class under its name on disk."""

    def register(cls: E) -> E:
        cls.TYPE = name
        EVENTS[name] = cls
        return cls

    return register


# --- run -----------------------------------------------------------------------------------------------


@event("run.started")
@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """The controller has the plan and begins. ``parallel``: cases that may run at a time."""

    name: str
    target: str
    nodes: int
    cases: tuple[str, ...]
    controller_pid: int = 0
    parallel: int = 1


@event("run.ending")
@dataclass(frozen=True, slots=True)
class RunEnding(Event):
    """Nothing more will be started; what runs is being ended and cleaned up."""

    reason: str


@event("run.finished")
@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """The last event of a run. ``state``: succeeded, failed or cancelled."""

    state: str
    exit_code: int
    reason: str
    leftovers: tuple[str, ...] = ()


@event("cancel.requested")
@dataclass(frozen=True, slots=True)
class CancelRequested(Event):
    """Someone asked to stop. ``level`` 1 drains (TERM, grace, results), 2 kills."""

    level: int
    by: str


# --- allocation and spawn ------------------------------------------------------------------------------


@event("allocation.requested")
@dataclass(frozen=True, slots=True)
class AllocationRequested(Event):
    """The scheduler was asked; ``argv`` can be pasted."""

    argv: tuple[str, ...]


@event("allocation.granted")
@dataclass(frozen=True, slots=True)
class AllocationGranted(Event):
    """Nodes in the order of their node ranks. ``owned``: phalanx gives it back at the end."""

    job_id: str
    nodes: tuple[str, ...]
    owned: bool


@event("allocation.refused")
@dataclass(frozen=True, slots=True)
class AllocationRefused(Event):
    """There will be no nodes, in the scheduler's own words."""

    reason: str


@event("allocation.ended")
@dataclass(frozen=True, slots=True)
class AllocationEnded(Event):
    """The scheduler took the nodes away while the run needed them. ``state`` is the scheduler's word.

    It comes again when the scheduler says more: a job that is COMPLETING will have been CANCELLED or TIMEOUT.
    """

    state: str
    reason: str


@event("allocation.released")
@dataclass(frozen=True, slots=True)
class AllocationReleased(Event):
    """The allocation was given back; or ``error`` says why that could not be done."""

    job_id: str
    error: str = ""


@event("spawn.started")
@dataclass(frozen=True, slots=True)
class SpawnStarted(Event):
    """Agents are being started; ``argv`` can be pasted (it needs the bootstrap line on stdin)."""

    argv: tuple[str, ...]


@event("spawn.said")
@dataclass(frozen=True, slots=True)
class SpawnSaid(Event):
    """A line from the spawner (srun's own words) or from an agent that has not joined; ``node`` may be "".

    ``gone``: the line says that this node's agent has ended.
    """

    node: str
    text: str
    gone: bool = False


@event("spawn.ended")
@dataclass(frozen=True, slots=True)
class SpawnEnded(Event):
    """The spawner's process is over (it lives as long as its agents do), with this exit status."""

    status: int
    text: str = ""


# --- agents --------------------------------------------------------------------------------------------


@event("agent.joined")
@dataclass(frozen=True, slots=True)
class AgentJoined(Event):
    """A node's agent passed the handshake. The same incarnation again is a reconnect: ``resumed``."""

    node: str
    node_rank: int
    incarnation: str
    address: str
    resumed: bool = False


@event("agent.facts")
@dataclass(frozen=True, slots=True)
class AgentFacts(Event):
    """What a node is (``phalanx.protocol.messages.Facts`` as a dict)."""

    node: str
    facts: dict[str, Any]


@event("agent.silent")
@dataclass(frozen=True, slots=True)
class AgentSilent(Event):
    """Nothing was heard from a node for a while, or its connection broke; not a verdict yet."""

    node: str
    detail: str


@event("agent.lost")
@dataclass(frozen=True, slots=True)
class AgentLost(Event):
    """A node is given up: its ranks are lost."""

    node: str
    detail: str


@event("agent.draining")
@dataclass(frozen=True, slots=True)
class AgentDraining(Event):
    """The node is being taken away (SIGTERM from the scheduler)."""

    node: str
    reason: str


@event("agent.notice")
@dataclass(frozen=True, slots=True)
class AgentNotice(Event):
    """Something a person should know."""

    node: str
    text: str


@event("agent.left")
@dataclass(frozen=True, slots=True)
class AgentLeft(Event):
    """An agent went as asked; ``leftovers`` is what it could not remove."""

    node: str
    leftovers: tuple[str, ...] = ()


@event("peer.refused")
@dataclass(frozen=True, slots=True)
class PeerRefused(Event):
    """Connections that did not prove themselves; counted, at most one event a second."""

    count: int
    source: str
    reason: str


@event("join.timeout")
@dataclass(frozen=True, slots=True)
class JoinTimeout(Event):
    """Not all nodes joined in time. ``missing``: node to the reason, as far as it is known."""

    joined: int
    expected: int
    missing: dict[str, str]


@event("fleet.joined")
@dataclass(frozen=True, slots=True)
class FleetJoined(Event):
    """All nodes (or enough of them) are there."""

    nodes: int
    expected: int
    seconds: float


# --- image ---------------------------------------------------------------------------------------------

#: The request for the first image of a run's cases; others are made while it goes on (image.requested).
OWN = 1


@event("runtime.opened")
@dataclass(frozen=True, slots=True)
class RuntimeOnNode(Event):
    """A node's runtime answers; or it needs the engine's client first; or ``error`` says what is missing."""

    node: str
    runtime: str
    needs_library: bool = False
    error: str = ""
    request: int = OWN


@event("image.status")
@dataclass(frozen=True, slots=True)
class ImageOnNode(Event):
    """What a node's engine has: ``image_id`` "" for nothing. After a sync: verified, config and layers.

    ``likeness``: the same on nodes that have the same image, in hexadecimal, "" when it is not known;
    ``by_manifest``: the id is of a manifest, so that other nodes may have the image under another.
    """

    node: str
    reference: str
    image_id: str
    error: str = ""
    request: int = OWN
    likeness: str = ""
    by_manifest: bool = False


@event("image.source")
@dataclass(frozen=True, slots=True)
class ImageSource(Event):
    """Where the image comes from: ``where`` in words, ``node`` the node that seeds it ("": the login node).
    A second one names the node that seeds on when the first is lost.

    ``image_id``: "sha256:" and the digest of its configuration. ``size``: bytes of its layers, each of which
    ``layers`` has in order. ``likeness``: as nodes tell it. ``engine_id``: what the engine calls it that
    gives it, where that is something else. ``repeated``: indexes of layers that come again above.
    """

    where: str
    reference: str
    image_id: str
    size: int
    error: str = ""
    node: str = ""
    layers: tuple[int, ...] = ()
    request: int = OWN
    likeness: str = ""
    engine_id: str = ""
    repeated: tuple[int, ...] = ()


@event("image.layers")
@dataclass(frozen=True, slots=True)
class LayersOnNode(Event):
    """What a node holds of the image: see ``phalanx.protocol.messages.LayersStatus``."""

    node: str
    present: bool
    in_engine: int
    in_cache: tuple[int, ...]
    deltas: bool
    free_bytes: int
    engine_free_bytes: int
    error: str = ""
    request: int = OWN
    one_disk: bool = False

    @property
    def first(self) -> int:
        """The first layer to be loaded: an engine that takes no deltas gets all of them."""
        return self.in_engine if self.deltas else 0


@event("image.inventory")
@dataclass(frozen=True, slots=True)
class ImagesOnNode(Event):
    """The images of a node's engine (reference, image_id, size, likeness, by_manifest), and what lies in
    its cache of layers; ``error`` when it could not be asked. See messages.ImagesStatus."""

    node: str
    images: tuple[dict[str, Any], ...] = ()
    more: int = 0
    layers: int = 0
    layer_bytes: int = 0
    freed_bytes: int = 0
    error: str = ""


@event("relay.opened")
@dataclass(frozen=True, slots=True)
class RelayOnNode(Event):
    """A node can serve others at this port; or ``error``."""

    node: str
    port: int
    error: str = ""
    request: int = OWN


@event("image.planned")
@dataclass(frozen=True, slots=True)
class ImagePlanned(Event):
    """How the layers travel. ``source_bytes`` leave the root ("": the login node); ``bytes`` arrive in all,
    ``saved_bytes`` need not travel because nodes hold them."""

    shape: str
    root: str
    nodes: int
    bytes: int
    source_bytes: int
    saved_bytes: int
    predicted_s: float
    request: int = OWN


@event("image.arrived")
@dataclass(frozen=True, slots=True)
class ImageArrived(Event):
    """A node has every byte of an image that another node seeds; its engine may still be loading."""

    node: str
    request: int = OWN


@event("image.slow")
@dataclass(frozen=True, slots=True)
class SlowNodes(Event):
    """Nodes that take their bytes so slowly that they would hold up those behind them: they are fed last.

    The whole verdict as it stands; a later one may take names back.
    """

    nodes: tuple[str, ...]
    request: int = OWN


@event("image.parent_failed")
@dataclass(frozen=True, slots=True)
class ParentLeft(Event):
    """A node reads from another now. ``corrupt``: what the old one sent did not match its digest."""

    node: str
    parent: str
    corrupt: bool
    reason: str
    request: int = OWN


@event("image.fetched")
@dataclass(frozen=True, slots=True)
class BlobFetched(Event):
    """A node holds a blob (workspace, library), verified; or ``error``. ``case``: whose workspace it is."""

    node: str
    purpose: str
    blob: str
    size: int
    error: str = ""
    request: int = OWN
    case: str = ""


@event("image.ready")
@dataclass(frozen=True, slots=True)
class ImageReady(Event):
    """Every node shows the same image. ``sent_bytes``: what left the source; ``read_bytes``: what nodes read
    from the network in all; ``slowest``: the node that was last, in ``transfer_s`` seconds."""

    reference: str
    image_id: str
    nodes: int
    seconds: float
    sent_bytes: int = 0
    read_bytes: int = 0
    saved_bytes: int = 0
    slowest: str = ""
    transfer_s: float = 0.0
    request: int = OWN


@event("image.requested")
@dataclass(frozen=True, slots=True)
class ImageRequested(Event):
    """Someone wants one more image on these nodes while the run goes on, or a case that is due does.
    ``archive``: a file of the login node, "" for wherever it can be had. ``case``: whose image it is, "" for
    no case's. Answered with image.ready or image.failed."""

    request: int
    reference: str
    archive: str
    nodes: tuple[str, ...]
    case: str = ""


@event("image.called_off")
@dataclass(frozen=True, slots=True)
class ImageCalledOff(Event):
    """Whoever asked for an image has left."""

    request: int


@event("image.failed")
@dataclass(frozen=True, slots=True)
class ImageFailed(Event):
    """An image that was asked for while the run goes on is not on every node: why, and the exit code of who
    asked. A case whose image it is has failed by that; else it is no failure of the run."""

    request: int
    reference: str
    reason: str
    exit_code: int


# --- cases and steps -----------------------------------------------------------------------------------


@event("case.started")
@dataclass(frozen=True, slots=True)
class CaseStarted(Event):
    """A case begins; ``nodes`` by node rank order, ``ranks`` in all. ``gpus``: indexes of those that it has
    on each node while others may run beside it."""

    case: str
    nodes: tuple[str, ...]
    ranks: int
    gpus: tuple[int, ...] = ()


@event("case.opened")
@dataclass(frozen=True, slots=True)
class CaseOpenedOn(Event):
    """The case's container (or directory) is there on a node; or ``error``."""

    case: str
    node: str
    container: str
    error: str = ""


@event("step.begun")
@dataclass(frozen=True, slots=True)
class StepBegun(Event):
    """A step was sent to the nodes of its case."""

    case: str
    step: str
    argv: tuple[str, ...]


@event("step.started")
@dataclass(frozen=True, slots=True)
class RankStarted(Event):
    """The process of a rank runs; ``rank`` -1 for a step that runs once on its node."""

    case: str
    step: str
    node: str
    rank: int


@event("step.exited")
@dataclass(frozen=True, slots=True)
class RankExited(Event):
    """The process of a rank is over. ``cause`` is a value of ``phalanx.protocol.messages.Cause``."""

    case: str
    step: str
    node: str
    rank: int
    status: int
    cause: str
    seconds: float
    detail: str = ""


@event("barrier.released")
@dataclass(frozen=True, slots=True)
class BarrierReleased(Event):
    """A workload barrier opened."""

    name: str
    generation: int
    members: int
    case: str = ""


@event("barrier.failed")
@dataclass(frozen=True, slots=True)
class BarrierFailed(Event):
    """A workload barrier can never open."""

    name: str
    generation: int
    reason: str
    case: str = ""


@event("workload.ready")
@dataclass(frozen=True, slots=True)
class RankReady(Event):
    """A rank says that it is ready."""

    case: str
    rank: int


@event("workload.metric")
@dataclass(frozen=True, slots=True)
class RankMetric(Event):
    """A number that a rank reported."""

    case: str
    rank: int
    name: str
    value: float
    unit: str = ""


@event("case.diagnosed")
@dataclass(frozen=True, slots=True)
class CaseDiagnosedOn(Event):
    """A node wrote what it sees (processes, sockets, memory, OOM lines) to its diagnostics log."""

    case: str
    node: str
    error: str = ""


@event("file.collected")
@dataclass(frozen=True, slots=True)
class FileCollected(Event):
    """A file of a node is in the run directory at ``kept``, digest verified; or ``error``."""

    case: str
    node: str
    path: str
    size: int
    digest: str
    kept: str
    error: str = ""


@event("case.collected")
@dataclass(frozen=True, slots=True)
class CaseCollectedOn(Event):
    """All that a node offered for a case is in; ``left_out`` says what is not and why.

    ``answered``: False for a node that did not say in time what it has.
    """

    case: str
    node: str
    files: int
    left_out: tuple[str, ...] = ()
    answered: bool = True


@event("case.closed")
@dataclass(frozen=True, slots=True)
class CaseClosedOn(Event):
    """Nothing of the case is left on a node; or ``error``."""

    case: str
    node: str
    error: str = ""


@event("case.finished")
@dataclass(frozen=True, slots=True)
class CaseFinished(Event):
    """The verdict of a case and its rows. ``status``: SUCCESS, FAILURE, SKIPPED or CANCELLED.

    ``rows``: rows of perf.csv as dicts of strings. ``error``: why rows, or what is written beside them, could
    not be written. ``notes``: how results were chosen, what could not be read, on what nodes differ.
    """

    case: str
    status: str
    reason: str
    rows: tuple[dict[str, str], ...] = field(default_factory=tuple)
    error: str = ""
    notes: tuple[str, ...] = ()


@event("log.ended")
@dataclass(frozen=True, slots=True)
class LogEnded(Event):
    """A stream is complete on the controller's disk: ``length`` bytes, ``missing`` of them declared lost."""

    node: str
    path: str
    length: int
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its place in the log: sequence number from 1, wall clock in seconds."""

    seq: int
    at: float
    event: Event


def to_line(run_id: str, recorded: Recorded) -> bytes:
    """The JSON line of an event, newline included."""
    moment = datetime.fromtimestamp(recorded.at, UTC).isoformat(timespec="milliseconds")
    document = {
        "v": EVENT_SCHEMA,
        "seq": recorded.seq,
        "ts": moment.replace("+00:00", "Z"),
        "type": recorded.event.TYPE,
        "run": run_id,
        "data": {name: getattr(recorded.event, name) for name in _names(type(recorded.event))},
    }
    return _ENCODER.encode(document).encode("utf-8", "replace") + b"\n"


#: Made once: a thousand agents that join at a time are a thousand lines.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=dataclasses.asdict)


def _names(kind: type[Event]) -> tuple[str, ...]:
    """The fields of an event class, in order; looked up once per class."""
    names = _FIELDS.get(kind)
    if names is None:
        names = _FIELDS[kind] = tuple(field.name for field in dataclasses.fields(kind))
    return names


_FIELDS: dict[type[Event], tuple[str, ...]] = {}


def from_line(line: bytes) -> Recorded | None:
    """The event of a line, or None when its type is not known here.

    Raises ValueError for a line that is not an event at all.
    """
    document = json.loads(line)
    if not isinstance(document, dict) or "type" not in document or "seq" not in document:
        raise ValueError("not an event line")
    kind = EVENTS.get(document["type"])
    if kind is None:
        return None
    known = {f.name: f for f in dataclasses.fields(kind)}
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in document.get("data", {}).items()
        if name in known
    }
    at = datetime.fromisoformat(document["ts"].replace("Z", "+00:00")).timestamp()
    return Recorded(document["seq"], at, kind(**values))
