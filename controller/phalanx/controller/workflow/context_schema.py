"""The keys of an additional context, typed. Imported when first needed: pydantic takes long to import.

Unknown keys are errors: a context is written for one run, and a key that silently does nothing costs a night.
The descriptions are the table of docs/context.md.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from .forms import log_text, log_texts, truth

#: Keys that madengine has and that this version accepts and does not act on.
UNUSED = (
    "MAD_ROCM_PATH", "debug", "monitor", "cleanup_on_failure",
    "live_output", "session_start_row", "skip_perf_collection", "timeout", "numa_balancing",
)  # fmt: skip
#: The same of the slurm block.
UNUSED_SLURM = (
    "output_dir", "modules", "shared_workspace", "enable_node_check", "auto_cleanup_nodes",
    "verbose_node_check", "allow_submit_without_clean_nodes",
)  # fmt: skip


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a whole number")
    return value


def _option(value: Any) -> Any:
    if isinstance(value, str) and not value.removeprefix("srun:").startswith("-"):
        raise ValueError("expected an option such as --comment=x")
    return value


def _deployment(value: Any) -> Any:
    """The name of a target stands for the object that says no more."""
    return {"target": value} if isinstance(value, str) else value


def _target(value: Any) -> Any:
    word = value.lower() if isinstance(value, str) else value
    if word in ("k8s", "kubernetes"):
        raise ValueError("there is no kubernetes target yet; expected slurm or local")
    return word


Scalar = StrictStr | StrictInt | StrictFloat
Words = StrictStr | list[StrictStr]
Truth = Annotated[bool | None, BeforeValidator(truth)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=1, le=100_000)]
Gpus = Annotated[int, BeforeValidator(_number), Field(ge=-1, le=100_000)]
Port = Annotated[int, BeforeValidator(_number), Field(ge=1, le=65535)]
Texts = dict[str, Scalar]
LogTexts = list[Annotated[StrictStr, AfterValidator(log_text)]]
#: A block whose keys another part knows.
Block = dict[str, Any]
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Slurm(BaseModel):
    """The ``slurm`` block."""

    model_config = _STRICT

    partition: StrictStr = Field("", description="as `--partition`")
    nodes: Count | None = Field(None, description="as `--nodes`")
    gpus_per_node: StrictStr | StrictInt = Field("", description="as `--gpus-per-node`")
    time: StrictStr | StrictInt = Field("", description="as `--time`")
    account: StrictStr = Field("", description="as `--account`")
    qos: StrictStr = Field("", description="as `--qos`")
    reservation: StrictStr = Field("", description="as `--reservation`")
    nodelist: Words = Field("", description="as `--nodelist`")
    exclude: Words = Field("", description="as `--exclude`")
    constraint: StrictStr = Field("", description="as `--constraint`")
    gres: StrictStr = Field("", description="as `--gres`")
    exclusive: bool | None = Field(None, description="as `--exclusive`; models on slurm ask for whole nodes")
    extra: list[Annotated[StrictStr, BeforeValidator(_option)]] = Field(
        default_factory=list, description="as `--slurm-arg`, before those of the command line"
    )
    output_dir: StrictStr = Field("", description="logs and results are in the run directory")
    modules: list[StrictStr] = Field(default_factory=list, description="environment modules to load")
    network_interface: StrictStr = Field("", description="the interface that ranks meet on")
    shared_workspace: StrictStr = Field("", description="nothing here needs a shared folder")
    results_dir: StrictStr = Field(
        "", description="folder in which a script of `slurm_multi` leaves `perf*.csv`"
    )
    enable_node_check: bool | None = Field(None, description="look at nodes before they are used")
    auto_cleanup_nodes: bool | None = Field(None, description="kill what was left on a node")
    verbose_node_check: bool | None = Field(None, description="say more of it")
    allow_submit_without_clean_nodes: bool | None = Field(None, description="go on without enough of them")


class Disaggregated(BaseModel):
    """``sglang_disagg`` and ``vllm_disagg``."""

    model_config = _STRICT

    prefill_nodes: Count | None = Field(None, description="nodes that prefill")
    decode_nodes: Count | None = Field(None, description="nodes that decode")


class Primus(BaseModel):
    """``distributed.primus``."""

    model_config = _STRICT

    config_path: StrictStr = Field("", description="PRIMUS_CONFIG_PATH")
    cli_extra: Words = Field("", description="PRIMUS_CLI_EXTRA")
    backend: StrictStr = Field("", description="BACKEND")


class Distributed(BaseModel):
    """The ``distributed`` block."""

    model_config = _STRICT

    launcher: StrictStr = Field("", description="what forms the ranks")
    nnodes: Count | None = Field(None, description="how many nodes, where `slurm.nodes` does not say")
    nproc_per_node: Count | None = Field(None, description="processes on each node")
    backend: StrictStr = Field("", description="of the collectives")
    port: Port | None = Field(None, description="MASTER_PORT; else a free port of the first node")
    master_port: Port | None = Field(None, description="the same")
    enabled: bool | None = Field(None, description="whether ranks are formed")
    sglang_disagg: Disaggregated | None = Field(None, description="nodes of each kind")
    vllm_disagg: Disaggregated | None = Field(None, description="nodes of each kind")
    primus: Primus | None = Field(None, description="what Primus is given")


class Launcher(BaseModel):
    """The ``launcher`` block: Kubernetes only, in madengine."""

    model_config = _STRICT

    type: StrictStr = Field("", description="as `distributed.launcher`")
    nnodes: Count | None = Field(None, description="as `distributed.nnodes`")
    nproc_per_node: Count | None = Field(None, description="as `distributed.nproc_per_node`")
    master_port: Port | None = Field(None, description="as `distributed.port`")


class ToolEntry(BaseModel):
    """One of ``tools``."""

    model_config = _STRICT

    name: StrictStr = Field(min_length=1, description="its name in tools.json")
    cmd: StrictStr | None = Field(None, description="instead of that of tools.json")
    env_vars: Texts = Field(default_factory=dict, description="over those of tools.json")


class ScriptEntry(BaseModel):
    """One of ``pre_scripts`` and ``post_scripts``."""

    model_config = _STRICT

    path: StrictStr = Field(min_length=1, description="a path of the project")
    args: Scalar = Field("", description="its arguments")


class DataEntry(BaseModel):
    """A data set with one provider, in ``data``."""

    model_config = _STRICT

    path: StrictStr = Field(min_length=1, description="where it is")
    home: StrictStr = Field("", description="where the workload finds it")
    mirrorlocal: StrictStr | bool = Field("", description="keep a copy on the node")
    readwrite: Truth = Field(None, description="whether the workload may write to it")
    args: Scalar = Field("", description="arguments of a provider that is a script")


class Deployment(BaseModel):
    """``deployment_config``, and ``deploy`` when it is an object."""

    model_config = _STRICT

    target: Annotated[Literal["", "local", "docker", "slurm"], BeforeValidator(_target)] = Field(
        "", description="as `deploy`"
    )
    slurm: Slurm | None = Field(None, description="as the key of the top level, which goes before it")
    k8s: Block | None = Field(None, description="refused: there is no kubernetes target yet")
    kubernetes: Block | None = Field(None, description="the same")
    distributed: Distributed | None = Field(None, description="as the key of the top level")
    vllm: Block | None = Field(None, description="as the key of the top level")
    env_vars: Texts = Field(default_factory=dict, description="as the key of the top level")
    debug: bool | None = Field(None, description="as the key of the top level")


class ContextInput(BaseModel):
    """The whole context."""

    model_config = _STRICT

    gpu_vendor: StrictStr = Field("", description="AMD or NVIDIA: devices of containers, MAD_GPU_VENDOR")
    guest_os: StrictStr = Field("", description="UBUNTU or CENTOS: choice of Dockerfile, MAD_GUEST_OS")
    docker_build_arg: Texts = Field(default_factory=dict, description="build arguments of images")
    docker_env_vars: Texts = Field(default_factory=dict, description="environment of the workload")
    docker_mounts: dict[str, StrictStr] = Field(
        default_factory=dict, description="container path to host path; `:ro` after the host path"
    )
    docker_gpus: StrictStr = Field("", description="which GPUs, such as `0,2-4`")
    docker_cpus: StrictStr = Field("", description="which CPUs, as `--cpuset-cpus` of docker")
    gpu_renderDs: list[Annotated[StrictInt, Field(ge=0, le=100_000)]] = Field(
        default_factory=list, description="render node of each GPU (AMD)"
    )
    MAD_CONTAINER_IMAGE: StrictStr = Field("", description="the image of the run; nothing is built")
    MAD_ROCM_PATH: StrictStr | None = Field(None, description="ROCm on the node")
    tools: list[ToolEntry] = Field(default_factory=list, description="profilers and tracers")
    pre_scripts: list[ScriptEntry] = Field(default_factory=list, description="run before the model")
    post_scripts: list[ScriptEntry] = Field(default_factory=list, description="run after the model")
    encapsulate_script: StrictStr = Field("", description="a command that runs the model's script")
    model_args: StrictStr | None = Field(None, description="instead of the card's `args`")
    data: dict[str, dict[Literal["custom", "local", "minio", "nas", "aws"], DataEntry]] = Field(
        default_factory=dict, description="data sets by name and provider, over data.json"
    )
    gen_sys_env_details: Truth = Field(None, description="collect what the node is")
    generate_sys_env_details: Truth = Field(None, description="the same")
    rocenv_mode: Literal["lite", "full"] | None = Field(None, description="how much of it")
    log_error_pattern_scan: Truth = Field(None, description="whether logs are looked through for errors")
    log_error_benign_patterns: LogTexts = Field(
        default_factory=list,
        description="texts of lines that are no errors, beside the usual ones and the card's",
    )
    log_error_patterns: Annotated[LogTexts, AfterValidator(log_texts)] = Field(
        default_factory=list, description="texts that are errors, instead of the usual ones or the card's"
    )
    env_vars: Texts = Field(default_factory=dict, description="environment, below docker_env_vars")
    slurm: Slurm | None = Field(None, description="chooses the target slurm, and says what to ask it for")
    k8s: Block | None = Field(None, description="refused: there is no kubernetes target yet")
    kubernetes: Block | None = Field(None, description="the same")
    distributed: Distributed | None = Field(None, description="how many nodes, and how ranks are formed")
    launcher: Launcher | None = Field(None, description="the same, for Kubernetes")
    vllm: Block = Field(default_factory=dict, description="what vLLM is given")
    sglang: Block = Field(default_factory=dict, description="what SGLang is given")
    multi_node_args: Block = Field(default_factory=dict, description="older form of `distributed`")
    debug: bool = Field(False, description="Kubernetes only, in madengine")
    deploy: Annotated[Deployment | None, BeforeValidator(_deployment)] = Field(
        None, description="the target: `local` (or `docker`), `slurm`; or an object as `deployment_config`"
    )
    deployment_config: Deployment | None = Field(
        None, description="target, slurm, distributed, ...: as the keys of the top level, below them"
    )
    monitor: bool | None = Field(None, description="a run is always watched")
    cleanup_on_failure: bool | None = Field(None, description="nothing is ever left behind")
    live_output: bool | None = Field(None, description="output is always live")
    session_start_row: int | None = Field(None, description="internal to madengine")
    shared_data: StrictStr = Field("", description="folder of the nodes that keeps copies of data sets")
    skip_perf_collection: bool | None = Field(None, description="internal to madengine")
    gpus_per_node: Gpus | None = Field(None, description="GPUs on each node; -1 for all")
    gpu_count: Gpus | None = Field(None, description="the same, after `gpus_per_node`")
    n_gpus: Gpus | None = Field(None, description="the same, after `gpu_count`")
    num_gpus: Gpus | None = Field(None, description="the same, after `n_gpus`")
    ngpus: Gpus | None = Field(None, description="the same, after `num_gpus`")
    timeout: float | None = Field(None, description="madengine does not act on it either; say `--timeout`")
    ctx_test: Scalar = Field("", description="for the `# CONTEXT` line of Dockerfiles")
    host_os: Scalar = Field("", description="for the `# CONTEXT` line of Dockerfiles")
    numa_balancing: Scalar = Field("", description="for the `# CONTEXT` line of Dockerfiles")


@cache
def known_keys() -> Mapping[tuple[str, ...], Sequence[str]]:
    """The keys that are known at each place with a shape of its own, indexes of lists left out."""
    found: dict[tuple[str, ...], Sequence[str]] = {}

    def look(model: type[BaseModel], place: tuple[str, ...]) -> None:
        found[place] = tuple(model.model_fields)
        for name, info in model.model_fields.items():
            inner = model_of(info.annotation)
            if inner is not None:
                look(inner, (*place, name))

    look(ContextInput, ())
    return found


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is of (``list[ToolEntry]``: ToolEntry), or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (model_of(part) for part in typing.get_args(annotation))
    return next((model for model in inner if model is not None), None)


@cache
def hints() -> Mapping[str, str]:
    """For keys that people put at the top: where they belong."""
    keys = known_keys()
    found = {
        name: f'it belongs under slurm: {{"slurm": {{"{name}": ...}}}}'
        for name in keys["slurm",]
        if name not in keys[()]
    }
    for name in keys["distributed",]:
        if name not in keys[()]:
            found.setdefault(name, f'it belongs under distributed: {{"distributed": {{"{name}": ...}}}}')
    found["docker_image"] = "the image of a run is MAD_CONTAINER_IMAGE"
    found["image"] = "the image of a run is MAD_CONTAINER_IMAGE"
    found["env"] = "the environment of the workload is docker_env_vars"
    found["mounts"] = 'mounts are docker_mounts: {"container path": "host path"}'
    found["secrets"] = "secrets are given with --secret, or in the environment as MAD_SECRETS_NAME"
    return found
