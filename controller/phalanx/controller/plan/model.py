"""The Plan: everything a run will do, typed, immutable, with the origin of each value.

It is made before anything is touched, printed by ``--dry-run``, stored as ``plan.json`` and is the very
object that the controller runs. It holds no secret: a secret's value travels to the controller over stdin,
under the name that ``EnvValue.secret`` marks here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from phalanx.protocol.messages import ContainerSpec

from .gpus import Gpus

#: Version of plan.json. 1: first version.
PLAN_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class EnvValue:
    """A value of the workload's environment and where it came from (a file and key path, a flag, a rule).

    A secret has ``value`` "" here. A template has names in braces that are filled in for each node
    (``plan/templates.py``); it is always phalanx's own.
    """

    value: str
    origin: str
    secret: bool = False
    template: bool = False


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One command of a case.

    ``per``: once per rank, once per node, or once on the first node. ``deadline_s``: 0 for none. ``always``:
    run it even after an earlier step failed (post-scripts, collection of diagnostics). ``env``: what this
    step alone is told, over the environment of its case. ``where``: "host" runs beside the container, as the
    agent itself and without the environment of the case.
    """

    name: str
    argv: tuple[str, ...]
    per: Literal["rank", "node", "first"] = "rank"
    deadline_s: float = 0.0
    always: bool = False
    env: dict[str, EnvValue] = field(default_factory=dict)
    where: Literal["case", "host"] = "case"


@dataclass(frozen=True, slots=True)
class Share:
    """What every node gets a copy of: a file of the login node, or all that is in a folder of it.

    ``target``: where it is in the workspace, "" for the content of the workspace itself.
    """

    source: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class ResultRule:
    """How rows come from what a case leaves behind.

    ``multiple_results``: name of the CSV with one row per result, "" to look for ``performance:`` in the log.
    ``require_performance``: a case without a performance value is a FAILURE (madengine's rule for models;
    a plain command needs none). ``places``: where on the first node a script that writes its rows itself may
    leave them; the first place with a new file counts (``CaseOpen.result_places`` of the protocol).
    ``which``: of several performance lines, the first (madengine's rule) or the last.
    ``scan``: a line of a log that has one of ``patterns`` (none: the usual ones) makes the case a FAILURE,
    unless it has one of ``benign`` or of the usual harmless texts. ``config``: what the model's arguments
    name with --config, "" for nothing; ``scripts``, ``project``: the folders that it must be in.
    """

    multiple_results: str = ""
    require_performance: bool = True
    places: tuple[str, ...] = ()
    which: Literal["first", "last"] = "first"
    scan: bool = False
    patterns: tuple[str, ...] = ()
    benign: tuple[str, ...] = ()
    config: str = ""
    scripts: str = ""
    project: str = ""


@dataclass(frozen=True, slots=True)
class RunsOn:
    """On which GPUs a case runs: it is skipped where a node is known to have others. "" and (): on any.

    ``skip``: architectures on which it does not run.
    """

    vendor: str = ""
    architecture: str = ""
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CasePlan:
    """What yields result rows: one model of a run, or one command.

    ``workspace``: what is copied to every node; where two shares have the same file, the first counts. Steps
    run in its root, or in the folder of it that ``container.workdir`` names.
    ``collect``: patterns of files to bring back, beside the results directory.
    ``columns``: what the row of perf.csv says about the model (name, args, tags, ...), by column name.
    ``needs_image``: an image that every node must have beside that of the container, or "".
    ``roles``: which node ranks ("0", "1-3") each role of the launcher has, for those that have any.
    ``gpu_count``: GPUs of every node that it counts on, ALL, or 0.
    ``gpus``: those that it is given on each node once it is known whose the node has, or which are free while
    cases run at once; None when the plan knows. ``skip``: why the model's own script is not run, "" when it
    is. ``keep_alive``: its containers stay until the run ends. ``driven``: its script runs on the first node
    alone, outside a container, and drives all nodes with the scheduler's own commands. ``library``: a
    distribution that every node needs for the case's data steps, "" for none.
    """

    name: str
    steps: tuple[StepPlan, ...]
    container: ContainerSpec
    env: dict[str, EnvValue] = field(default_factory=dict)
    ranks_per_node: int = 1
    workspace: tuple[Share, ...] = ()
    collect: tuple[str, ...] = ()
    result: ResultRule = ResultRule()
    columns: dict[str, str] = field(default_factory=dict)
    master_port: int = 0
    needs_image: str = ""
    roles: dict[str, str] = field(default_factory=dict)
    runs_on: RunsOn = RunsOn()
    gpus: Gpus | None = None
    gpu_count: int = 0
    skip: str = ""
    keep_alive: bool = False
    driven: bool = False
    library: str = ""

    @property
    def image(self) -> str:
        """The image that every node must have before the case, "" for none."""
        return self.container.image or self.needs_image


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image that every node must have: its reference, and an archive to take it from (or "").

    ``image_id``: which image the name has to mean, "" for whatever it means.
    """

    reference: str
    archive: str = ""
    image_id: str = ""


@dataclass(frozen=True, slots=True)
class Travel:
    """How layers travel between the nodes of a run, of its own images and of those asked for later.

    ``security``: "integrity" is plaintext, every byte verified all the same. ``rate_bytes_s``: most bytes a
    second that a node, or the login node, gives to all others together, and that a node reads; 0: no limit.
    """

    security: Literal["tls", "integrity"] = "tls"
    rate_bytes_s: int = 0


@dataclass(frozen=True, slots=True)
class InventoryPlan:
    """A run that asks nodes which images they have: ``reference`` "" for all. ``prune``: empty the nodes'
    caches of layers first, and remove the image ``reference``, if there is one, from their engines."""

    reference: str = ""
    prune: bool = False


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """What an allocation is asked for, by the names of salloc's options; "" and None mean: not said.

    ``job_id``: an allocation that exists already and is used as it is. ``extra``: free --slurm-arg values.
    """

    job_id: str = ""
    partition: str = ""
    time: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    nodelist: str = ""
    exclude: str = ""
    constraint: str = ""
    gres: str = ""
    gpus_per_node: str = ""
    exclusive: bool | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """Where nodes come from. ``nodes``: how many; ``min_nodes``: with how many the run may go on (0: all)."""

    kind: Literal["local", "slurm"]
    nodes: int
    min_nodes: int = 0
    slurm: SlurmOptions = SlurmOptions()
    agent_python: str = ""
    advertise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Every deadline of a run, in seconds. Argued in docs/architecture.md."""

    join_timeout_s: float = 60.0
    allocation_timeout_s: float = 0.0
    heartbeat_s: float = 2.0
    dead_after_s: float = 10.0
    lease_s: float = 30.0
    stop_grace_s: float = 10.0
    image_timeout_s: float = 3600.0
    collect_timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One run, resolved. ``output_csv``: where rows are appended on the login node ("" for nowhere).
    ``entries``: the folder for what is written beside rows (perf_entry.json and its like), "" for nowhere.

    ``images``: in the order in which its cases need them; each is brought when the first such case is due.
    """

    schema: int
    run_id: str
    name: str
    argv: tuple[str, ...]
    cwd: str
    target: TargetPlan
    images: tuple[ImagePlan, ...]
    cases: tuple[CasePlan, ...]
    output_csv: str = ""
    entries: str = ""
    travel: Travel = Travel()
    timing: Timing = Timing()
    #: which exit code a pass-through run returns; None for workflow codes (0, 3)
    exit_policy: Literal["workflow", "first", "max", "any"] = "workflow"
    #: keep allocation and agents for ``phalanx exec`` after the cases, until cancelled
    keep: bool = False
    #: most cases that run at a time, on GPUs of their own
    parallel: int = 1
    origins: dict[str, str] = field(default_factory=dict)
    #: what a person should know before the run: input that is accepted and does nothing
    warnings: tuple[str, ...] = ()
    inventory: InventoryPlan | None = None
    #: why this plan can be shown and not be run, and what to do instead
    refusals: tuple[str, ...] = ()

    def image_of_cases(self, reference: str) -> ImagePlan:
        """The image of cases by its reference."""
        return next(image for image in self.images if image.reference == reference)
