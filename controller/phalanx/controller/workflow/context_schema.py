"""The keys of an additional context, typed. Made when first needed: pydantic is slow to import.

Unknown keys are errors: a context is written for one run, and a key that silently does nothing costs a night.
Keys beginning with ``_`` are comments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

#: Keys that madengine has and that this version accepts and does not act on.
UNUSED = (
    "MAD_ROCM_PATH", "tools", "pre_scripts", "post_scripts", "data",
    "gen_sys_env_details", "generate_sys_env_details", "rocenv_mode", "log_error_pattern_scan",
    "log_error_benign_patterns", "log_error_patterns", "vllm", "debug", "deploy", "deployment_config",
    "monitor", "cleanup_on_failure", "live_output", "session_start_row", "shared_data",
    "skip_perf_collection", "timeout", "ctx_test", "host_os", "numa_balancing", "launcher",
)  # fmt: skip
#: The same of the slurm block.
UNUSED_SLURM = (
    "output_dir", "modules", "network_interface", "shared_workspace", "results_dir", "enable_node_check",
    "auto_cleanup_nodes", "verbose_node_check", "allow_submit_without_clean_nodes",
)  # fmt: skip
#: The same of the distributed block; ``launcher`` is in the row, and forms no ranks yet.
UNUSED_DISTRIBUTED = ("nproc_per_node", "backend", "enabled", "sglang_disagg", "vllm_disagg", "primus")


@cache
def schema() -> type[BaseModel]:
    """The schema of the whole context."""
    from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

    scalar = StrictStr | StrictInt | StrictFloat
    words = StrictStr | list[StrictStr]
    count = Field(default=None, ge=1, le=100_000)

    class Slurm(BaseModel):
        model_config = ConfigDict(extra="forbid")

        partition: StrictStr = ""
        nodes: int | None = count
        gpus_per_node: StrictStr | StrictInt = ""
        time: StrictStr | StrictInt = ""
        account: StrictStr = ""
        qos: StrictStr = ""
        reservation: StrictStr = ""
        nodelist: words = ""
        exclude: words = ""
        constraint: StrictStr = ""
        gres: StrictStr = ""
        exclusive: bool | None = None
        extra: list[StrictStr] = Field(default_factory=list)
        output_dir: Any = None
        modules: Any = None
        network_interface: Any = None
        shared_workspace: Any = None
        results_dir: Any = None
        enable_node_check: Any = None
        auto_cleanup_nodes: Any = None
        verbose_node_check: Any = None
        allow_submit_without_clean_nodes: Any = None

    class Distributed(BaseModel):
        model_config = ConfigDict(extra="forbid")

        launcher: StrictStr = ""
        nnodes: int | None = count
        nproc_per_node: Any = None
        backend: Any = None
        port: int | None = Field(default=None, ge=1, le=65535)
        master_port: int | None = Field(default=None, ge=1, le=65535)
        enabled: Any = None
        sglang_disagg: Any = None
        vllm_disagg: Any = None
        primus: Any = None

    class ContextInput(BaseModel):
        model_config = ConfigDict(extra="forbid")

        gpu_vendor: StrictStr = ""
        guest_os: StrictStr = ""
        docker_build_arg: dict[str, scalar] = Field(default_factory=dict)
        docker_env_vars: dict[str, scalar] = Field(default_factory=dict)
        docker_mounts: dict[str, StrictStr] = Field(default_factory=dict)
        docker_gpus: StrictStr = ""
        docker_cpus: StrictStr = ""
        gpu_renderDs: list[StrictInt] = Field(default_factory=list)
        MAD_CONTAINER_IMAGE: StrictStr = ""
        MAD_ROCM_PATH: StrictStr | None = None
        tools: list[Any] = Field(default_factory=list)
        pre_scripts: list[Any] = Field(default_factory=list)
        post_scripts: list[Any] = Field(default_factory=list)
        encapsulate_script: StrictStr = ""
        model_args: StrictStr | None = None
        data: dict[str, Any] = Field(default_factory=dict)
        gen_sys_env_details: Any = None
        generate_sys_env_details: Any = None
        rocenv_mode: Any = None
        log_error_pattern_scan: Any = None
        log_error_benign_patterns: list[StrictStr] = Field(default_factory=list)
        log_error_patterns: list[StrictStr] = Field(default_factory=list)
        env_vars: dict[str, scalar] = Field(default_factory=dict)
        slurm: Slurm | None = None
        k8s: dict[str, Any] | None = None
        kubernetes: dict[str, Any] | None = None
        distributed: Distributed = Field(default_factory=Distributed)
        launcher: dict[str, Any] = Field(default_factory=dict)
        vllm: dict[str, Any] = Field(default_factory=dict)
        sglang: dict[str, Any] = Field(default_factory=dict)
        multi_node_args: dict[str, Any] = Field(default_factory=dict)
        debug: bool = False
        deploy: Any = None
        deployment_config: dict[str, Any] = Field(default_factory=dict)
        monitor: Any = None
        cleanup_on_failure: Any = None
        live_output: Any = None
        session_start_row: Any = None
        shared_data: Any = None
        skip_perf_collection: Any = None
        gpus_per_node: int | None = Field(default=None, ge=-1)
        gpu_count: int | None = Field(default=None, ge=-1)
        n_gpus: int | None = Field(default=None, ge=-1)
        num_gpus: int | None = Field(default=None, ge=-1)
        ngpus: int | None = Field(default=None, ge=-1)
        timeout: float | None = None
        ctx_test: Any = None
        host_os: Any = None
        numa_balancing: Any = None

    return ContextInput


@cache
def known_keys() -> Mapping[tuple[str, ...], Sequence[str]]:
    """The keys that are known at the top and in the blocks that have a shape of their own."""
    fields = schema().model_fields
    slurm = fields["slurm"].annotation.__args__[0]  # type: ignore[union-attr]
    distributed = fields["distributed"].annotation
    return {
        (): tuple(fields),
        ("slurm",): tuple(slurm.model_fields),
        ("distributed",): tuple(distributed.model_fields),  # type: ignore[union-attr]
    }


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
    return found
