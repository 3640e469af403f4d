"""Everything that a plan is made from, as one typed value: gathered by the command line, read by ``make``.

Strings are as the user wrote them; ``make`` parses and checks them, so that every front end refuses the same
things in the same words. None and "" mean: not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..workflow.context import Context
from ..workflow.models import SelectedModel
from ..workflow.surroundings import Surroundings
from .data import DataInputs
from .model import SlurmOptions
from .secrets import Secrets


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Inputs of ``phalanx run``.

    ``argv``: phalanx's own words, for the record (secrets are masked in the plan). ``environ``: the login
    node's environment. ``command``: what follows ``--``. ``models``: what ``--tags`` chose.
    ``notes``: what of that may not have been meant. ``slurm``: the command line's Slurm options.
    ``around``: what lies around each model. ``credentials``: what each ``cred`` of a card gives.
    ``keep_alive``: containers stay until the run ends; ``keep_model_dir``: bring back all of the model's
    folder; ``skip_model_run``: everything but the model's own script; ``run_on_skipped``: also where a card
    says ``skip_gpu_arch``. ``allow``: words of ``--allow``. ``data``: the data sets that models may name.
    ``parallel``: most models that run at a time; ``rows_only``: write nothing beside ``perf.csv``.
    """

    run_id: str
    cwd: str
    argv: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    models: tuple[SelectedModel, ...] = ()
    notes: tuple[str, ...] = ()
    context: Context = field(default_factory=Context)
    name: str = ""
    target: str = ""
    nodes: int | None = None
    min_nodes: int | None = None
    ranks_per_node: int | None = None
    image: str = ""
    image_archive: str = ""
    bulk_security: str = ""
    bulk_rate: str = ""
    runtime: str = ""
    env: tuple[str, ...] = ()
    secrets: Secrets = field(default_factory=Secrets)
    mounts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    memory: str = ""
    cpus: str = ""
    cpuset: str = ""
    shm_size: str = ""
    ulimits: tuple[str, ...] = ()
    timeout: str = ""
    join_timeout: str = ""
    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    advertise: tuple[str, ...] = ()
    agent_python: str = ""
    master_port: int | None = None
    exit_policy: str = ""
    keep: bool = False
    output_csv: str | None = None
    performance: str = ""
    workspace: str = ""
    around: Surroundings = field(default_factory=Surroundings)
    credentials: Mapping[str, Secrets] = field(default_factory=dict)
    keep_alive: bool = False
    rows_only: bool = False
    keep_model_dir: bool = False
    skip_model_run: bool = False
    run_on_skipped: bool = False
    allow: tuple[str, ...] = ()
    data: DataInputs = field(default_factory=DataInputs)
    parallel: int | None = None

    @property
    def at_once(self) -> int:
        """Models that can run at a time: no more than there are."""
        return max(1, min(self.parallel or 1, len(self.models)))
