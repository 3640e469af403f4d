"""The launchers: a row for each, and nothing of them anywhere else. To add one, add a row and golden files.

The script of a model runs once on each node and starts its processes with ``$MAD_MULTI_NODE_RUNNER script``,
or reads the variables of its framework. Texts hold names in braces. Those of ``launch_shape`` (``{P}``
processes on a node, ``{N}`` nodes, ``{TP}``, ...) are known when the plan is made; those of ``templates``
(``{NODE_RANK}``, ``{MASTER_ADDR}``, ...) are filled in for each node. A variable with a name that has no
value is left out: absent, rather than empty.

DeepSpeed over several nodes: madengine's ``deepspeed --hostfile`` logs in to the other nodes over ssh, from
every node at once, and needs a file in the container. ``deepspeed --no_ssh`` starts a node's own processes,
but wants the same file and is of 2024. What both start in the end is ``deepspeed.launcher.launch``, which
every version has: it takes all nodes with their GPUs as one word, and needs neither ssh nor file.
"""

from __future__ import annotations

from dataclasses import dataclass

TORCHRUN = "torchrun --standalone --nproc_per_node={P}"
TORCHRUN_MANY = (
    "torchrun --nnodes={NNODES} --nproc_per_node={P} --node_rank={NODE_RANK} "
    "--master_addr={MASTER_ADDR} --master_port={MASTER_PORT}"
)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable on one node and on several; "" where it is not set."""

    name: str
    one: str
    many: str


@dataclass(frozen=True, slots=True)
class Launcher:
    """A row.

    ``runner``: what starts the processes of a node. ``fewest_nodes``: with fewer it makes no sense, ``why``
    says why. ``any_nodes``: its sizes do not depend on the number of nodes, so a run may go on with fewer.
    ``counts_gpus``: whether it needs the number of processes (on one node, on several), where others take all
    GPUs that there are. ``ray``: it may bring up Ray, which breaks when HIP and CUDA both name devices.
    ``head_only``: the script runs on the first node alone, outside a container, and drives the others itself.
    ``roles``: what nodes are, in the order of their ranks: one of the first, then those of the split.
    ``port_option``: what keeps its runner on one node off a port that it would have in every run.
    """

    name: str
    runner: Variable | None = None
    variables: tuple[Variable, ...] = ()
    aliases: tuple[str, ...] = ()
    fewest_nodes: int = 1
    why: str = ""
    any_nodes: bool = False
    counts_gpus: tuple[bool, bool] = (False, False)
    ray: bool = False
    head_only: bool = False
    roles: tuple[str, ...] = ()
    port_option: str = ""


def _always(name: str, text: str) -> Variable:
    return Variable(name, text, text)


def _runner(one: str, many: str) -> Variable:
    return Variable("MAD_MULTI_NODE_RUNNER", one, many)


_TORCH = _runner(TORCHRUN, TORCHRUN_MANY)
#: What a model with GPUs gets whose launcher nobody names: madengine's default.
UNNAMED = Launcher("", _TORCH, any_nodes=True)

ROWS = (
    Launcher("torchrun", _TORCH, any_nodes=True),
    Launcher(
        "torchtitan",
        _TORCH,
        (
            _always("TORCHTITAN_TENSOR_PARALLEL_SIZE", "{P}"),
            Variable("TORCHTITAN_PIPELINE_PARALLEL_SIZE", "1", "{N}"),
            Variable("TORCHTITAN_FSDP_ENABLED", "0", "1"),
            _always("TORCHTITAN_CONTEXT_PARALLEL_SIZE", "1"),
        ),
        counts_gpus=(True, True),
    ),
    Launcher(
        "deepspeed",
        _runner(
            "deepspeed --num_gpus={NUM_GPUS}",
            "python3 -u -m deepspeed.launcher.launch --world_info={WORLD_INFO} --node_rank={NODE_RANK} "
            "--master_addr={MASTER_ADDR} --master_port={MASTER_PORT}",
        ),
        counts_gpus=(False, True),
        port_option=" --master_port={MASTER_PORT}",
    ),
    Launcher(
        "megatron-lm",
        _TORCH,
        (
            Variable("TENSOR_MODEL_PARALLEL_SIZE", "{P_MOST_8}", "{P}"),
            Variable("PIPELINE_MODEL_PARALLEL_SIZE", "1", "{N}"),
            _always("CONTEXT_PARALLEL_SIZE", "1"),
        ),
        aliases=("megatron", "megatron_lm"),
        counts_gpus=(True, True),
    ),
    Launcher(
        "primus",
        None,
        (
            _always("PRIMUS_CONFIG_PATH", "{PRIMUS_CONFIG_PATH}"),
            _always("PRIMUS_CLI_EXTRA", "{PRIMUS_CLI_EXTRA}"),
            _always("BACKEND", "{PRIMUS_BACKEND}"),
        ),
        any_nodes=True,
    ),
    Launcher(
        "vllm",
        None,
        (
            _always("VLLM_TENSOR_PARALLEL_SIZE", "{TP}"),
            _always("VLLM_PIPELINE_PARALLEL_SIZE", "{PP}"),
            _always("VLLM_DATA_PARALLEL_SIZE", "{DP}"),
            _always("VLLM_ENABLE_EXPERT_PARALLEL", "{EP}"),
            _always("VLLM_MAX_MODEL_LEN", "{MAX_MODEL_LEN}"),
            _always("VLLM_DISTRIBUTED_BACKEND", "{EXECUTOR}"),
            Variable("VLLM_HOST_IP", "", "{NODE_ADDR}"),
        ),
        counts_gpus=(True, True),
        ray=True,
    ),
    Launcher(
        "sglang",
        None,
        (
            _always("SGLANG_TENSOR_PARALLEL_SIZE", "{TP}"),
            _always("SGLANG_PIPELINE_PARALLEL_SIZE", "{PP}"),
            _always("SGLANG_DATA_PARALLEL_SIZE", "{DP}"),
            _always("SGLANG_ENABLE_DP_ATTENTION", "{DP_ATTENTION}"),
            _always("SGLANG_ENABLE_EXPERT_PARALLEL", "{EP}"),
            _always("SGLANG_MAX_MODEL_LEN", "{MAX_MODEL_LEN}"),
            Variable("SGLANG_HOST_IP", "", "{NODE_ADDR}"),
            Variable("NCCL_INIT_ADDR", "", "{MASTER_ENDPOINT}"),
        ),
        counts_gpus=(True, True),
        ray=True,
    ),
    Launcher(
        "sglang-disagg",
        None,
        (
            _always("SGLANG_DISAGG_MODE", "enabled"),
            _always("SGLANG_DISAGG_PREFILL_NODES", "{PREFILL}"),
            _always("SGLANG_DISAGG_DECODE_NODES", "{DECODE}"),
            _always("SGLANG_DISAGG_TOTAL_NODES", "{N}"),
            _always("SGLANG_TP_SIZE", "{TP}"),
            _always("SGLANG_NODE_IPS", "{NODE_ADDRS}"),
            _always("SGLANG_NODE_RANK", "{NODE_RANK}"),
        ),
        aliases=("sglang_disagg",),
        fewest_nodes=3,
        why="a proxy, a prefill and a decode node",
        counts_gpus=(True, True),
        ray=True,
        roles=("proxy", "prefill", "decode"),
    ),
    Launcher(
        "slurm_multi",
        None,
        (
            _always("xP", "{PREFILL}"),
            _always("yD", "{DECODE}"),
            _always("DOCKER_IMAGE_NAME", "{IMAGE}"),
        ),
        aliases=("slurm-multi",),
        head_only=True,
    ),
)  # fmt: skip
#: What every named launcher gives besides. The last one is madengine's, for scripts that hand it on: torch
#: 2.13 does not read it, and waits 600 s for slow nodes.
SHARED = (
    _always("MAD_LAUNCHER_TYPE", "{LAUNCHER}"),
    _always("NPROC_PER_NODE", "{P}"),
    _always("DISTRIBUTED_BACKEND", "{BACKEND}"),
    Variable("TORCH_ELASTIC_RDZV_TIMEOUT", "", "3600"),
)
BY_NAME = {name: row for row in ROWS for name in (row.name, *row.aliases)}
#: Values of a ``launcher`` key that name none.
NONE_NAMED = frozenset({"", "none", "native", "docker", "process"})
