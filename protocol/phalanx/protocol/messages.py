"""Every message that crosses the wire, declared once.

The annotations are the schema (see ``schema``): encoder, decoder, the table in ``docs/protocol.md`` and the
property tests derive from them. A code is never reused and never changes its meaning; a new field goes to
the end of its message and has a default, so that an older peer still understands the rest. ONLY APPEND.

Directions: C is the controller, A the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Annotated, Any, ClassVar, TypeVar

from .schema import (
    U16,
    U32,
    U63,
    Digest,
    Items,
    Name,
    Octets,
    Path,
    Payload,
    Range,
    Seconds,
    Text,
    Words,
)


class Kind(IntEnum):
    """The kind byte of a frame. It decides the size cap and the lane, before anything is decoded."""

    HANDSHAKE = 1
    CONTROL = 2
    LOG = 3
    BULK = 4


class Direction(Enum):
    """Who may send a message; the other direction is refused."""

    CONTROLLER = "C→A"
    AGENT = "A→C"
    BOTH = "C↔A"


@dataclass(frozen=True, slots=True)
class Message:
    """Base of every message. ``CODE`` and ``KIND`` are set by the ``message`` decorator."""

    CODE: ClassVar[int]
    KIND: ClassVar[Kind]
    DIRECTION: ClassVar[Direction]


MESSAGES: dict[int, type[Message]] = {}

M = TypeVar("M", bound=type[Message])


def message(code: int, kind: Kind, direction: Direction) -> Callable[[M], M]:
    """Register a message class under its code. Raises ValueError for a code that is taken."""

    def register(cls: M) -> M:
        if code in MESSAGES:
            raise ValueError(f"message code {code} is taken by {MESSAGES[code].__name__}")
        cls.CODE, cls.KIND, cls.DIRECTION = code, kind, direction
        MESSAGES[code] = cls
        return cls

    return register


C, A, BOTH = Direction.CONTROLLER, Direction.AGENT, Direction.BOTH
Nonce = Annotated[bytes, Octets(32, exact=True)]
Mac = Annotated[bytes, Octets(32, exact=True)]
Env = Annotated[dict[Annotated[str, Text(256)], Annotated[str, Text(131072)]], Items(2048)]
Argv = Annotated[tuple[Annotated[str, Text(131072)], ...], Items(4096)]
#: A global rank, or -1 for a step that runs once on its node.
RankOrNode = Annotated[int, Range(-1, 2**31 - 1)]
NODE_LEVEL = -1


# --- handshake -----------------------------------------------------------------------------------------


class Channel(Enum):
    """What a connection carries: control and logs, or blobs, so that heartbeats never wait behind bulk."""

    CONTROL = "control"
    BULK = "bulk"


@message(1, Kind.HANDSHAKE, C)
@dataclass(frozen=True, slots=True)
class Challenge(Message):
    """First words of the controller on a new connection: the versions it speaks and a fresh nonce."""

    version_min: U16
    version_max: U16
    nonce: Nonce


@message(2, Kind.HANDSHAKE, A)
@dataclass(frozen=True, slots=True)
class Hello(Message):
    """Who the agent is, and the proof: an HMAC over the transcript with the join or the resume key."""

    version: U16
    run_id: Name
    channel: Channel
    node: Name
    node_rank: U32
    incarnation: Annotated[str, Text(64)]
    epoch_seen: U63
    resume: bool
    agent_build: Annotated[str, Text(64)]
    features: Annotated[tuple[Annotated[str, Text(32)], ...], Items(32)]
    nonce: Nonce
    mac: Mac
    #: control messages of the controller that this incarnation has received (see ``lifeline``)
    received: U63 = 0


@message(3, Kind.HANDSHAKE, C)
@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The controller's proof, and the key for what follows.

    ``lease_s``: how long the agent may act without hearing from the controller, in seconds.
    """

    version: U16
    epoch: U63
    session_key: Annotated[bytes, Octets(32, exact=True)]
    heartbeat_s: Seconds
    lease_s: Seconds
    features: Annotated[tuple[Annotated[str, Text(32)], ...], Items(32)]
    mac: Mac
    #: control messages of this incarnation that the controller has received (see ``lifeline``)
    received: U63 = 0


# --- liveness and leaving ------------------------------------------------------------------------------


@message(10, Kind.CONTROL, BOTH)
@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """I am here, and this is the last of yours that I heard; so each side sees a one-way break.

    ``sent_at`` is the sender's wall clock in seconds (for the clock offset only, never for a decision).
    """

    seq: U63
    heard: U63
    sent_at: float
    heard_sent_at: float = 0.0
    held_s: Seconds = 0.0
    #: control messages of the peer received in all (see ``lifeline``)
    received: U63 = 0


@message(11, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class Fence(Message):
    """You are stale (a newer incarnation or epoch exists): stop what you run and exit."""

    reason: Words


@message(12, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class Leave(Message):
    """The run is over for you: end containers within ``grace_s`` seconds, send what is left, exit."""

    reason: Words
    grace_s: Seconds


@message(13, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class Left(Message):
    """Last words of an agent: nothing of the run is left on this node, or what is."""

    leftovers: Annotated[tuple[Words, ...], Items(64)]


@message(14, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class Draining(Message):
    """The node is being taken from under the agent (SIGTERM from the scheduler); it is saving what it can."""

    reason: Words


@message(15, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class Notice(Message):
    """Something a person should know; never a verdict."""

    text: Words


# --- facts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    """Free and total bytes of the filesystem under a path that matters (spool, engine, tmp)."""

    purpose: Name
    path: Path
    free_bytes: U63
    total_bytes: U63


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the node's own tools or sysfs name it; ``source`` says which.

    ``architecture``: AMD's target such as "gfx942", "" where nobody says. ``render_number``: the N of
    ``/dev/dri/renderDN``, 0 where it is not known.
    """

    index: U16
    vendor: Name
    model: Name
    bus: Name
    memory_bytes: U63
    source: Name
    architecture: Name = ""
    render_number: U16 = 0


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine: ``kind`` docker or podman, or "" with ``error`` saying why there is none."""

    kind: Name
    version: Name
    api: Name
    storage: Name
    error: Words = ""


@message(20, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class Facts(Message):
    """What a node is. Sent once after joining and again when something of it changes."""

    hostname: Name
    arch: Name
    kernel: Name
    python: Name
    cpus: U32
    memory_bytes: U63
    memory_free_bytes: U63
    addresses: Annotated[tuple[Name, ...], Items(64)]
    #: a TCP port that was free a moment ago, for MASTER_PORT when this node is node rank 0
    free_port: U16
    disks: Annotated[tuple[Disk, ...], Items(16)]
    gpus: Annotated[tuple[Gpu, ...], Items(64)]
    engine: Engine
    #: CPUs of the node; ``cpus`` are those that the scheduler leaves to the agent
    cpus_total: U32 = 0
    #: release of ROCm on the node, such as "6.4.1-83"; "" without one
    rocm: Name = ""
    #: further ports like ``free_port``, for cases that run at once
    more_ports: Annotated[tuple[U16, ...], Items(64)] = ()
    #: what the vendor's tool says where it does not list GPUs that are on the PCI bus; "" when it lists all
    gpu_complaint: Name = ""


# --- barriers and key-value exchange -------------------------------------------------------------------

BarrierName = Annotated[str, Text(255)]
#: Members as ranges of ranks, both ends in: ((0, 127),) for all of 128. Short whatever N is.
Ranges = Annotated[tuple[Annotated[tuple[U32, ...], Items(2)], ...], Items(4096)]


@message(30, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class BarrierEnter(Message):
    """A member arrives. The same arrival twice counts once.

    ``expected``: how many members this generation has; 0 means all ranks of the case.
    """

    case: Name
    name: BarrierName
    generation: U63
    member: U32
    expected: U32 = 0


@message(31, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class BarrierRelease(Message):
    """All arrived: go. The same member list for all."""

    case: Name
    name: BarrierName
    generation: U63
    members: Ranges


@message(32, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class BarrierFail(Message):
    """It will never be complete; ``reason`` names who left or what is wrong."""

    case: Name
    name: BarrierName
    generation: U63
    reason: Words


@message(33, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class KvPut(Message):
    """Set a key of a case; waiting readers wake."""

    request: U32
    case: Name
    key: Name
    value: Annotated[bytes, Octets(65536)]


@message(34, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class KvGet(Message):
    """Read a key of a case, waiting up to ``wait_s`` seconds for it to be set."""

    request: U32
    case: Name
    key: Name
    wait_s: Seconds


@message(35, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class KvReply(Message):
    """Answer to KvPut (without a value) or KvGet; ``error`` is empty when it worked."""

    request: U32
    value: Annotated[bytes, Octets(65536)] | None
    error: Words


@message(36, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class WorkloadReady(Message):
    """The workload of this rank says that it is ready (serving, warmed up)."""

    case: Name
    rank: RankOrNode


@message(37, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class WorkloadMetric(Message):
    """A number that the workload reports while it runs."""

    case: Name
    rank: RankOrNode
    name: Name
    value: float
    unit: Annotated[str, Text(64)] = ""


# --- blobs: images, workspaces, libraries, results ------------------------------------------------------

#: Most bytes of a chunk: small enough to verify before writing and to resend, large enough to be cheap.
CHUNK_BYTES = 4 * 1024 * 1024
#: Fewest: below it the digests would weigh more than what they protect is worth.
CHUNK_BYTES_MIN = 64 * 1024
#: Digests of chunks per BlobChunks message (128 KiB of digests, under the control cap).
CHUNKS_PER_PAGE = 4096


@message(40, Kind.CONTROL, BOTH)
@dataclass(frozen=True, slots=True)
class BlobChunks(Message):
    """A page of a blob's manifest: digests of its chunks from index ``first`` on.

    ``blob`` is the sha256 of the whole, ``size`` its bytes; every chunk has ``chunk_bytes`` but the last.
    """

    blob: Digest
    size: U63
    first: U32
    digests: Annotated[tuple[Digest, ...], Items(CHUNKS_PER_PAGE)]
    chunk_bytes: Annotated[int, Range(CHUNK_BYTES_MIN, CHUNK_BYTES)] = CHUNK_BYTES


@message(41, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class BlobFetch(Message):
    """Get this blob (its manifest came before) into the node's store and say so with BlobHave."""

    request: U32
    blob: Digest
    size: U63


@message(42, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class BlobHave(Message):
    """The node holds the whole blob, verified; or ``error`` says why not."""

    request: U32
    blob: Digest
    error: Words


@message(43, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class FetchProgress(Message):
    """Verified bytes so far of a fetch; at most twice a second."""

    request: U32
    received: U63


@message(44, Kind.BULK, BOTH)
@dataclass(frozen=True, slots=True)
class ChunkGet(Message):
    """Send me this chunk. The reader asks for a few at a time: that is the flow control.

    ``unpacks``: it may come packed, the reader has what unpacks it.
    """

    blob: Digest
    index: U32
    unpacks: bool = False


@message(45, Kind.BULK, BOTH)
@dataclass(frozen=True, slots=True)
class Chunk(Message):
    """The bytes of one chunk; verified against the manifest before they are written.

    ``packed``: the payload is a zstd frame (RFC 8878) of them, shorter than they are.
    """

    blob: Digest
    index: U32
    packed: bool = False
    payload: Payload = b""


@message(46, Kind.BULK, BOTH)
@dataclass(frozen=True, slots=True)
class ChunkRefused(Message):
    """The chunk cannot be had here (not held, read error)."""

    blob: Digest
    index: U32
    reason: Words


# --- images --------------------------------------------------------------------------------------------

ImageRef = Annotated[str, Text(512)]
ImageId = Annotated[str, Text(128)]


@message(50, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class ImageQuery(Message):
    """Does this node's engine have the image? Answered with ImageStatus."""

    request: U32
    reference: ImageRef


@message(53, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class ImageStatus(Message):
    """What the engine has under the reference: its image id, "" when it has none; or ``error``.

    ``likeness``: by which it is told from others whatever the store (``image.likeness``); ``by_manifest``:
    the id is the digest of a manifest, not of the configuration.
    """

    request: U32
    reference: ImageRef
    image_id: ImageId
    error: Words
    likeness: Digest | None = None
    by_manifest: bool = False


# --- images, layer by layer, from node to node -----------------------------------------------------------


class BulkSecurity(Enum):
    """How chunks travel between agents. Every chunk is verified by digest either way."""

    TLS = "tls"
    #: plaintext, for trusted fabrics: image bytes can be read on the wire
    INTEGRITY = "integrity"


@message(90, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class RelayOpen(Message):
    """Serve blobs to other agents on a port of this node. Answered with RelayOpened; asked again, once more.

    ``certificate``: PEM of a certificate and its private key made for this agent; b"" for INTEGRITY.
    ``ticket_key``: what the tickets of its readers are made with. ``rate_bytes_s``: most bytes a second that
    it sends to all readers together, 0 for no limit.
    """

    request: U32
    security: BulkSecurity
    certificate: Annotated[bytes, Octets(8192)]
    ticket_key: Annotated[bytes, Octets(32, exact=True)]
    rate_bytes_s: U63 = 0


@message(91, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class RelayOpened(Message):
    """The port at which the relay listens; or ``error`` says why there is none (port is then 0)."""

    request: U32
    port: U16
    error: Words


@message(92, Kind.HANDSHAKE, A)
@dataclass(frozen=True, slots=True)
class RelayHello(Message):
    """First words of a reader to a relay: who it is, and a ticket that is good for one connection.

    ``mac``: see ``ticket.ticket_mac``.
    """

    run_id: Name
    node: Name
    serial: U63
    mac: Mac


@message(93, Kind.BULK, A)
@dataclass(frozen=True, slots=True)
class RelayWait(Message):
    """A relay lives, and has not got the chunk that was asked for yet; once a second."""

    blob: Digest
    index: U32


@dataclass(frozen=True, slots=True)
class Ticket:
    """Good for one connection of one reader to one relay."""

    serial: U63
    mac: Mac


@dataclass(frozen=True, slots=True)
class Parent:
    """From whom to read: a relay, or the controller over the bulk link (``node`` "", the rest empty).

    ``pin``: sha256 of the relay's certificate, b"" for INTEGRITY.
    """

    node: Name
    host: Annotated[str, Text(255)] = ""
    port: U16 = 0
    pin: Annotated[bytes, Octets(32)] = b""
    tickets: Annotated[tuple[Ticket, ...], Items(16)] = ()


@dataclass(frozen=True, slots=True)
class Stripe:
    """Parents in order of preference. Stripe s of n reads chunks s, s + n, s + 2n, ... of each blob."""

    parents: Annotated[tuple[Parent, ...], Items(16)]


Stripes = Annotated[tuple[Stripe, ...], Items(4)]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer by the sha256 of its uncompressed tar, and the bytes of that."""

    diff_id: Digest
    size: U63


Layers = Annotated[tuple[Layer, ...], Items(256)]
#: An image's configuration as it lies in its archive; a control frame must hold it.
ImageConfig = Annotated[bytes, Octets(192 * 1024)]


@message(94, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class LayersQuery(Message):
    """Which layers of this image does the node hold? Answered with LayersStatus.

    ``config``: sha256 of the image's configuration.
    """

    request: U32
    reference: ImageRef
    config: Digest
    layers: Layers


@message(95, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class LayersStatus(Message):
    """``present``: the engine has just this image under the reference. ``in_engine``: how many leading layers
    its store has as a chain. ``in_cache``: indexes of layers that lie whole in the node's cache.

    ``deltas``: whether the engine takes archives without the layers that it has. ``free_bytes``: where layers
    are kept on their way, beside those of this image, and ``engine_free_bytes``: where the engine keeps them
    (2**63-1: not known). ``one_disk``: both are the same bytes.
    """

    request: U32
    present: bool
    in_engine: U16
    in_cache: Annotated[tuple[U16, ...], Items(256)]
    deltas: bool
    free_bytes: U63
    engine_free_bytes: U63
    error: Words = ""
    one_disk: bool = False


@message(96, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class ImageSync(Message):
    """Get the layers from index ``first`` on (their manifests come after it), load each in order while the
    next is on its way, and make sure that ``reference`` then means this image. Answered with ImageStatus.

    ``stripes`` may change later (SyncParents); without any parent it waits for them. ``seeded``: another node
    made the manifests; then the digest of each whole layer is to be checked as well. ``rate_bytes_s``: most
    bytes a second to read from other agents, 0 for no limit.
    """

    request: U32
    reference: ImageRef
    config: ImageConfig
    layers: Layers
    first: U16
    stripes: Stripes
    rate_bytes_s: U63 = 0
    seeded: bool = False


@message(97, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class SyncParents(Message):
    """Read from these from now on; none: wait for others. What is verified stays."""

    request: U32
    stripes: Stripes


@message(98, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class SyncProgress(Message):
    """Of an ImageSync: bytes verified, bytes read from the network in all (more when some came twice), layers
    that the engine has taken; at most twice a second and at the end."""

    request: U32
    verified: U63
    read: U63
    loaded: U16


@message(99, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class ParentFailed(Message):
    """A reader has left a parent for the next: ``corrupt`` when what it sent was not what was asked for."""

    request: U32
    parent: Name
    corrupt: bool
    reason: Words


@dataclass(frozen=True, slots=True)
class Credentials:
    """What to show to a registry: user and password, or a token alone. Written and shown nowhere."""

    username: Annotated[str, Text(1024)] = field(repr=False)
    password: Annotated[str, Text(16384)] = field(repr=False)
    token: Annotated[str, Text(16384)] = field(default="", repr=False)


@message(100, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class ImageSeed(Message):
    """Export the image of this node's engine, so that others can read its layers from here. Answered with
    ImageSeeded. ``pull``: the engine gets it from its registry before that, with these ``credentials`` if
    there are any."""

    request: U32
    reference: ImageRef
    pull: bool = False
    credentials: Credentials | None = None


@message(101, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class ImageSeeded(Message):
    """What the image is, once it is exported; SeedLayers makes its layers readable. Or ``error`` says why
    they are not, also when that shows only while they are read.

    ``image_id``: what the node's engine calls it.
    """

    request: U32
    reference: ImageRef
    config: ImageConfig
    layers: Layers
    error: Words
    image_id: ImageId = ""


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image of an engine under one of its names ("" without one). ``size``: bytes, as the engine says.
    ``likeness``, ``by_manifest``: as in ImageStatus."""

    reference: Annotated[str, Text(256)]
    image_id: ImageId
    size: U63
    likeness: Digest | None = None
    by_manifest: bool = False


@message(102, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class ImagesQuery(Message):
    """Which images does the node's engine have, and what is in its cache? Answered with ImagesStatus.

    ``reference``: only this one, "" for all. ``prune``: before that, remove the cached layers with which no
    process works, parts of images in the engine with which nobody goes on, and the image ``reference``, if
    there is one and no container uses it.
    """

    request: U32
    reference: ImageRef = ""
    prune: bool = False


@message(103, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class ImagesStatus(Message):
    """``more``: images that did not fit in. ``layers`` and ``layer_bytes``: what lies in the cache;
    ``freed_bytes``: what a prune took out of it."""

    request: U32
    images: Annotated[tuple[EngineImage, ...], Items(500)]
    more: U32
    layers: U32
    layer_bytes: U63
    freed_bytes: U63
    error: Words = ""


@message(104, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class SyncStop(Message):
    """Nobody waits for this ImageSync any more: end it, and leave nothing half done in the engine. What has
    been got stays in the cache. Not answered; the next ImageSync waits for its end."""

    request: U32


@message(105, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class SeedLayers(Message):
    """Make the layers from index ``first`` on of what was exported for this request readable as blobs, one
    after another: their manifests (BlobChunks) come page by page while they are read, the last page of each
    only if the layer is what its digest says."""

    request: U32
    first: U16


# --- cases and steps -----------------------------------------------------------------------------------


class Runtime(Enum):
    """What a workload runs in."""

    PROCESS = "process"
    DOCKER = "docker"


class Allowance(Enum):
    """What a container has only when the user of the run says so, for each gives the node away."""

    PRIVILEGED = "privileged"
    HOST_PID = "host-pid"
    HOST_UTS = "host-uts"
    HOST_USERNS = "host-userns"
    CAPABILITIES = "capabilities"
    ENGINE_SOCKET = "engine-socket"
    SYSTEM_PATHS = "system-paths"
    DEVICES = "devices"


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount: a path of the node at a path of the container."""

    source: Path
    target: Path
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class DataMount:
    """A data set and where steps find it: at ``target``, or in the folder itself without a container.

    The folder is the first of these that is on the node: ``source``; the folder called ``name`` in
    ``mirror``, made when it is not there; the folder of the node's cache under ``cache``; one of the case's
    own, empty. ``read_only`` is of ``source``; the cache is always read-only, the others never.
    """

    name: Name
    target: Path
    source: Path = ""
    mirror: Path = ""
    cache: Annotated[str, Text(64)] = ""
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Device:
    """A device node of the host given to the container with permissions such as "rwm"."""

    source: Path
    target: Path
    permissions: Annotated[str, Text(3)] = "rwm"


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A filesystem in memory at a path of the container, with options of mount(8) such as "size=64m"."""

    target: Path
    options: Annotated[str, Text(255)] = ""


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit by its setrlimit name in lower case (nofile, memlock); -1 is unlimited."""

    name: Name
    soft: Annotated[int, Range(-1, 2**63 - 1)]
    hard: Annotated[int, Range(-1, 2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources of a case on one node; 0 or "" means: no limit of ours."""

    memory_bytes: U63 = 0
    cpus: Annotated[float, Range(0, 65536)] = 0.0
    cpuset: Annotated[str, Text(1024)] = ""
    pids: U32 = 0
    shm_bytes: U63 = 0
    ulimits: Annotated[tuple[Ulimit, ...], Items(32)] = ()


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything about the container of a case on one node, typed. Ignored parts are refused, not dropped.

    ``workdir``: the folder of the workspace in which steps run, "" for the workspace itself. ``allow``: what
    the user of the run allows, asked for or not. ``pid``, ``uts``, ``userns``: "host" or "".
    ``extra_hosts``: HOST:ADDRESS. ``engine_runtime``: which of the engine's own runtimes, "" for its default.
    ``data_variable``: the variable that tells steps the places of ``data``, joined by commas; "" for none.
    """

    runtime: Runtime
    image: ImageRef = ""
    image_id: ImageId = ""
    workdir: Path = ""
    user: Annotated[str, Text(128)] = ""
    network: Annotated[str, Text(64)] = "host"
    ipc: Annotated[str, Text(64)] = ""
    mounts: Annotated[tuple[Mount, ...], Items(256)] = ()
    devices: Annotated[tuple[Device, ...], Items(256)] = ()
    cap_add: Annotated[tuple[Annotated[str, Text(64)], ...], Items(64)] = ()
    security_opt: Annotated[tuple[Annotated[str, Text(256)], ...], Items(32)] = ()
    group_add: Annotated[tuple[Annotated[str, Text(64)], ...], Items(32)] = ()
    #: GPU request for NVIDIA's runtime: "all", or comma-separated indexes; "" for none
    gpus: Annotated[str, Text(256)] = ""
    limits: Limits = Limits()
    allow: Annotated[tuple[Allowance, ...], Items(32)] = ()
    privileged: bool = False
    pid: Annotated[str, Text(64)] = ""
    uts: Annotated[str, Text(64)] = ""
    userns: Annotated[str, Text(64)] = ""
    cap_drop: Annotated[tuple[Annotated[str, Text(64)], ...], Items(64)] = ()
    hostname: Annotated[str, Text(64)] = ""
    extra_hosts: Annotated[tuple[Annotated[str, Text(320)], ...], Items(64)] = ()
    tmpfs: Annotated[tuple[Tmpfs, ...], Items(64)] = ()
    read_only: bool = False
    engine_runtime: Annotated[str, Text(64)] = ""
    data: Annotated[tuple[DataMount, ...], Items(64)] = ()
    data_variable: Annotated[str, Text(256)] = ""


@message(60, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class CaseOpen(Message):
    """Make the place where a case runs on this node: workspace, spool, workload socket, container.

    ``ranks`` are the global ranks of this node, ``world_size`` those of all nodes. ``workspace`` is a tar
    blob that the node already holds, unpacked into the working directory; None for an empty one.

    ``driven``: a script on the first node drives all nodes with the scheduler's own commands. The case's
    folder then has the same path on every node, and its steps what the script of a batch job has.
    ``result_places``: where such a script may leave its results, in the order in which they count: a file,
    ``*`` in its name, absolute or seen from where steps run; {JOB_ID} stands for the scheduler's number.
    """

    request: U32
    case: Name
    spec: ContainerSpec
    ranks: Annotated[tuple[U32, ...], Items(1024)]
    world_size: U32
    workspace: Digest | None
    env: Env = field(default_factory=dict)
    driven: bool = False
    result_places: Annotated[tuple[Path, ...], Items(16)] = ()
    #: a bundle of modules for the agent's own program, which the node already holds
    library: Digest | None = None


@message(61, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class CaseOpened(Message):
    """The case can take steps on this node; or ``error`` says what could not be made."""

    request: U32
    case: Name
    container: Name
    error: Words


#: The step that runs what a case is there for.
MAIN_STEP = "main"


@message(62, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class StepStart(Message):
    """Run a command: once per rank of ``ranks``, or once on the node when that is empty.

    The case's own script is the step ``MAIN_STEP``.

    ``deadline_s`` 0 means none. The agent adds RANK, LOCAL_RANK and the like to ``env``. ``secrets`` reach
    the process's environment and nothing else: no file that outlives the step, no container metadata.
    ``where`` "host" runs beside the container, as the agent itself (phalanx exec --host). There, ``argv``
    that begins with ``OWN_PROGRAM`` is the agent's own program for data sets: it is told the case's places.
    """

    case: Name
    step: Name
    argv: Argv
    env: Env
    secrets: Env
    ranks: Annotated[tuple[U32, ...], Items(1024)]
    deadline_s: Seconds
    grace_s: Seconds = 10.0
    where: Annotated[str, Text(16)] = "case"


#: The words of a command that stand for a program which the agent carries with it.
OWN_PROGRAM = ("phalanx-agent", "data")


class Cause(Enum):
    """Why a step of a rank ended. A sentence each, for people: see ``CAUSE_WORDS``."""

    EXITED = "exited"
    SIGNALED = "signaled"
    OOM = "oom"
    DEADLINE = "deadline"
    STOPPED = "stopped"
    NOT_STARTED = "not_started"
    ENGINE = "engine"
    LOST = "lost"


CAUSE_WORDS = {
    Cause.EXITED: "ended by itself",
    Cause.SIGNALED: "killed by a signal that phalanx did not send",
    Cause.OOM: "killed because the container was out of memory",
    Cause.DEADLINE: "stopped at its deadline",
    Cause.STOPPED: "stopped by phalanx",
    Cause.NOT_STARTED: "could not be started",
    Cause.ENGINE: "lost with the container engine",
    Cause.LOST: "lost with its node",
}


@message(63, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class StepStarted(Message):
    """The process of a rank runs."""

    case: Name
    step: Name
    rank: RankOrNode


@message(64, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class StepExited(Message):
    """The process of a rank is over and all that it wrote is spooled.

    ``status``: exit status as a shell gives it (128+n for signal n). ``detail``: words for people.
    """

    case: Name
    step: Name
    rank: RankOrNode
    status: Annotated[int, Range(0, 255)]
    cause: Cause
    seconds: Seconds
    detail: Words = ""


@message(65, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class StepStop(Message):
    """End the step's processes: TERM, then KILL after ``grace_s`` seconds (0: KILL at once)."""

    case: Name
    step: Name
    grace_s: Seconds


@message(66, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class Diagnose(Message):
    """Write process table, sockets, memory and dmesg's OOM lines to the case's diagnostics stream."""

    request: U32
    case: Name


@message(67, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class Diagnosed(Message):
    """Diagnostics are spooled (or could not be had: ``error``)."""

    request: U32
    case: Name
    error: Words


#: Where a container has the workspace of its case.
WORKSPACE = "/myworkspace"
#: The folder of the workspace that has a case's own folders of data.
DATA_FOLDER = ".phalanx-data"
#: Most cases that may run at a time: a node says of so many ports that they are free.
MOST_AT_ONCE = 32
#: The folder under which what a script left in its case's ``result_places`` is offered.
SCRIPT_RESULTS = "script-results"
#: What stands for the scheduler's number of the job in a result place.
JOB_NUMBER = "{JOB_ID}"


@message(68, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class Collect(Message):
    """Offer the files of the case's results directory and those of its workspace that match ``patterns``.

    What a script left in ``result_places`` comes as ``script-results/NAME``. ``wait_s``: how long it is
    looked for where there is nothing yet and another node's writes may only show after a while. ``fresh``:
    a pattern whose files count only when they are from after the start of the case's own script.
    """

    request: U32
    case: Name
    patterns: Annotated[tuple[Name, ...], Items(256)]
    wait_s: Seconds = 0.0
    fresh: Name = ""


@message(69, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class FileOffer(Message):
    """A file to be read as ``blob`` (its BlobChunks came before). ``path`` is relative, without ``..``."""

    request: U32
    case: Name
    path: Path
    size: U63
    blob: Digest


@message(70, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class Collected(Message):
    """All offers of a Collect are out: how many, and what was left out and why."""

    request: U32
    case: Name
    files: U32
    left_out: Annotated[tuple[Words, ...], Items(64)]


@message(71, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class CaseClose(Message):
    """End the case on this node: processes, container, directories. Answered with CaseClosed."""

    request: U32
    case: Name
    grace_s: Seconds


@message(72, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class CaseClosed(Message):
    """Nothing of the case is left on this node, or ``error`` says what is."""

    request: U32
    case: Name
    error: Words


@message(73, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class RuntimeOpen(Message):
    """Make the runtime ready. ``library``: the blob with the engine's client, for nodes without one of their
    own, which may have this one from before, or are sent it when they say so."""

    request: U32
    runtime: Runtime
    library: Digest | None


@message(74, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class RuntimeOpened(Message):
    """The runtime answers; ``needs_library`` asks for the engine's client; else ``error`` says why not."""

    request: U32
    needs_library: bool
    error: Words
    engine: Engine


# --- logs ----------------------------------------------------------------------------------------------


@message(80, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class LogOpen(Message):
    """A stream exists: ``stream`` is its number in this incarnation. Answered with LogAck."""

    stream: U32
    case: Name
    step: Name
    rank: RankOrNode
    output: Annotated[str, Text(8)]


@message(81, Kind.LOG, A)
@dataclass(frozen=True, slots=True)
class LogData(Message):
    """Bytes of a stream from ``offset`` on, whole lines where possible. ``at`` is the agent's wall clock."""

    stream: U32
    offset: U63
    at: float
    payload: Payload = b""


@message(82, Kind.CONTROL, C)
@dataclass(frozen=True, slots=True)
class LogAck(Message):
    """Everything before ``offset`` is on the controller's disk; send up to ``credit`` bytes beyond it."""

    stream: U32
    offset: U63
    credit: U63


@message(83, Kind.LOG, A)
@dataclass(frozen=True, slots=True)
class LogGap(Message):
    """Bytes of a stream that are lost, declared: from ``offset``, ``length`` of them, and why.

    It travels in order with the data, and like that is sent again after a reconnect.
    """

    stream: U32
    offset: U63
    length: U63
    reason: Words


@message(84, Kind.CONTROL, A)
@dataclass(frozen=True, slots=True)
class LogEnd(Message):
    """The stream is over and has ``length`` bytes in all."""

    stream: U32
    length: U63


def registry() -> dict[int, type[Message]]:
    """Every message by its code, in the order of declaration."""
    return dict(MESSAGES)


def fields_of(kind: type[Message]) -> Any:
    """The compiled schema of a message class."""
    from .schema import compile_fields

    return compile_fields(kind)
