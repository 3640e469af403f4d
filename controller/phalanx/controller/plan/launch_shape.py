"""Sizes of a launch: nodes, processes, parallel sizes; checked against each other, each with its origin.

Whatever does not fit ends here, before a node is asked for: the complaint names both sides and what to
change.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from ..workflow.distributed import Distributed, Serving, Split
from ..workflow.errors import InputError, did_you_mean
from .gpus import Gpus
from .launch_table import Launcher

#: Primus's backends by the word that a model's name holds; the longest that fits counts.
PRIMUS_BACKENDS = {
    "maxtext": "MaxText",
    "torchtitan": "torchtitan",
    "megatron": "megatron",
    "megatron_bridge": "megatron_bridge",
    "moe_package": "moe_package",
}
PRIMUS_CONFIG = "exp_pretrain.yaml"
_PRIMUS_MODEL = re.compile(r"primus_pretrain/(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a launcher's row is filled in from. ``processes``: on a node, 0 for all of its GPUs, of a number
    that only the node knows. ``at_once``: other models may run beside it."""

    model: str
    launcher: Launcher
    said: Distributed
    gpus: Gpus
    nodes: int
    nodes_origin: str
    image: str = ""
    at_once: bool = False

    @property
    def processes(self) -> int:
        if self.said.nproc_per_node:
            return self.said.nproc_per_node
        if self.gpus.known is not None:
            return self.gpus.known or 1
        return 0

    @property
    def processes_origin(self) -> str:
        if self.said.nproc_per_node:
            return self.said.origin("nproc_per_node")
        return self.gpus.origin if self.gpus.count else "default"

    @property
    def split(self) -> Split:
        """Prefill and decode nodes; for sglang-disagg what nobody says is dealt two to three, as madengine
        does."""
        said = self.said.sglang_disagg
        if self.launcher.head_only:
            return said if said.prefill or said.decode else self.said.vllm_disagg
        workers = self.nodes - 1
        if said.prefill:
            return Split(said.prefill, said.decode or workers - said.prefill)
        if said.decode:
            return Split(workers - said.decode, said.decode)
        prefill = max(1, workers * 2 // 5)
        return Split(prefill, workers - prefill)

    @property
    def roles(self) -> dict[str, str]:
        """Which node ranks each role has: ``{"proxy": "0", "prefill": "1", "decode": "2-3"}``."""
        if not self.launcher.roles:
            return {}
        found, begin = {}, 0
        for role, count in zip(self.launcher.roles, (1, self.split.prefill, self.split.decode), strict=True):
            last = begin + count - 1
            found[role] = str(begin) if count == 1 else f"{begin}-{last}"
            begin = last + 1
        return found

    def refuse(self, words: str) -> InputError:
        """The complaint, for who raises it."""
        return InputError(f"cannot run {self.model} with {self.launcher.name or 'torchrun'}: {words}")


def checked(shape: Shape) -> None:
    """Raises InputError for what does not fit."""
    row, said = shape.launcher, shape.said
    if shape.nodes < row.fewest_nodes:
        raise shape.refuse(
            f"it needs at least {row.fewest_nodes} nodes ({row.why}), and the run has {shape.nodes} "
            f"({shape.nodes_origin}); say -N {row.fewest_nodes} or more"
        )
    if said.nnodes and said.nnodes != shape.nodes and _same_source(said.origin("nnodes"), shape.nodes_origin):
        raise shape.refuse(
            f"{said.origin('nnodes')} asks for {said.nnodes} nodes, and the run has {shape.nodes} "
            f"({shape.nodes_origin}); make them equal, or say -N COUNT"
        )
    check_processes(shape)
    if not shape.processes and row.counts_gpus[shape.nodes > 1]:
        raise shape.refuse(
            f"all GPUs of a node are asked for ({shape.gpus.origin}), and it has to know how many; "
            "say distributed.nproc_per_node or --gpus-per-node"
        )
    if check := _CHECKS.get(row.name):
        check(shape)


def _same_source(one: str, other: str) -> bool:
    """Whether two origins are of one card or one context: such words contradict; else the later one holds."""
    return one.rpartition(": ")[0] in (other, other.rpartition(": ")[0])


def check_processes(shape: Shape) -> None:
    """Raises InputError for more processes than a node has GPUs; fewer are the user's choice."""
    known, said = shape.gpus.known, shape.said
    if known and said.nproc_per_node > known:
        raise shape.refuse(
            f"{said.origin('nproc_per_node')} asks for {said.nproc_per_node} processes on a node of {known} "
            f"GPUs ({shape.gpus.origin}); lower it, or ask for more GPUs"
        )


def values_of(shape: Shape) -> dict[str, str]:
    """The names that a row's texts may hold, by what they stand for here; "" for nothing."""
    said, processes = shape.said, shape.processes
    values = {
        "LAUNCHER": shape.launcher.name,
        "N": str(shape.nodes),
        "P": str(processes or "gpu"),
        "NUM_GPUS": str(processes or -1),
        "P_MOST_8": str(min(processes, 8)),
        "BACKEND": said.backend or ("nccl" if shape.gpus.count else ""),
        "WORLD_INFO": _world_info(shape.nodes, processes),
        "PRIMUS_CONFIG_PATH": said.primus.config_path or PRIMUS_CONFIG,
        "PRIMUS_CLI_EXTRA": said.primus.cli_extra,
        "PRIMUS_BACKEND": said.primus.backend or _primus_backend(shape.model),
        "PREFILL": _number(shape.split.prefill),
        "DECODE": _number(shape.split.decode),
        "IMAGE": shape.image,
    }
    if shape.launcher.name in _SERVING:
        values |= _serving_values(shape, _serving_of(shape))
    return values


#: By the name in a row's text, the key path of the value that a user may have given for it.
_PATHS = {
    "P": "nproc_per_node", "BACKEND": "backend", "PREFILL": "sglang_disagg.prefill",
    "DECODE": "sglang_disagg.decode", "PRIMUS_CONFIG_PATH": "primus.config_path",
    "PRIMUS_CLI_EXTRA": "primus.cli_extra", "PRIMUS_BACKEND": "primus.backend",
}  # fmt: skip
_SERVING_PATHS = {
    "TP": "tensor", "PP": "pipeline", "DP": "data", "EP": "expert", "DP_ATTENTION": "attention",
    "MAX_MODEL_LEN": "max_model_len", "EXECUTOR": "executor",
}  # fmt: skip


def origin_of(shape: Shape, text: str) -> str:
    """Where a variable's value is from when it is just one that somebody has said; "" when it is not."""
    name = text[1:-1] if text.startswith("{") and text.endswith("}") else ""
    path = _PATHS.get(name, "")
    if name in _SERVING_PATHS and shape.launcher.name in _SERVING:
        path = f"{_SERVING[shape.launcher.name]}.{_SERVING_PATHS[name]}"
    return shape.said.origins.get(path, "")


def _number(value: int) -> str:
    return str(value) if value > 0 else ""


def _world_info(nodes: int, processes: int) -> str:
    """DeepSpeed's word for all nodes and the GPUs of each: names only keep them apart. base64 of JSON."""
    world = {f"node{rank}": list(range(processes)) for rank in range(nodes)}
    return base64.urlsafe_b64encode(json.dumps(world, separators=(",", ":")).encode()).decode()


def _primus_backend(model: str) -> str:
    """By the model's name: ``primus_pretrain/megatron_bridge_llama``; "" when it does not say."""
    match = _PRIMUS_MODEL.search(model)
    rest = f"{match[1]}_" if match else ""
    fitting = [word for word in PRIMUS_BACKENDS if rest.startswith(f"{word}_")]
    return PRIMUS_BACKENDS[max(fitting, key=len)] if fitting else ""


# --- inference engines


_SERVING = {"vllm": "vllm", "sglang": "sglang", "sglang-disagg": "sglang"}
#: What forms vLLM's workers; "none" and "auto" are madengine's.
EXECUTORS = ("ray", "mp", "uni", "external_launcher", "none", "auto")


def _serving_of(shape: Shape) -> Serving:
    serving: Serving = getattr(shape.said, _SERVING[shape.launcher.name])
    return serving


def _tensor(shape: Shape, serving: Serving) -> int:
    """Tensor parallel size; what nobody says is what the other sizes leave of a node."""
    if serving.tensor:
        return serving.tensor
    others = (serving.pipeline or 1) * (1 if serving.attention else serving.data or 1)
    return shape.processes // others if shape.nodes == 1 else shape.processes


def _world(shape: Shape, serving: Serving) -> int:
    """GPUs that the sizes take together; data parallel attention takes none of its own."""
    copies = 1 if serving.attention else serving.data or 1
    return _tensor(shape, serving) * (serving.pipeline or 1) * copies


def _serving_values(shape: Shape, serving: Serving) -> dict[str, str]:
    spread = "ray" if _world(shape, serving) > shape.processes else "none"
    return {
        "TP": str(_tensor(shape, serving)),
        "PP": str(serving.pipeline or 1),
        "DP": _number(serving.data),
        "EP": "" if serving.expert is None else str(int(serving.expert)),
        "DP_ATTENTION": "1" if serving.attention else "",
        "MAX_MODEL_LEN": _number(serving.max_model_len),
        "EXECUTOR": serving.executor or ("auto" if shape.nodes == 1 else spread),
    }


def _sizes_in_words(shape: Shape, serving: Serving) -> str:
    """``tensor 8 (models.json: ...) x data 2 (...)``: every size that is said, with its origin."""
    block = _SERVING[shape.launcher.name]
    words = []
    for name, value in (
        ("tensor", serving.tensor),
        ("pipeline", serving.pipeline),
        ("data", 0 if serving.attention else serving.data),
    ):
        if value:
            words.append(f"{name} {value} ({shape.said.origin(f'{block}.{name}')})")
    return " x ".join(words)


def _check_serving(shape: Shape) -> None:
    serving, block = _serving_of(shape), _SERVING[shape.launcher.name]
    origin, per_node = shape.said.origin, shape.processes
    every = per_node * shape.nodes
    if shape.nodes > 1 and not serving.tensor and (serving.pipeline or serving.data):
        which = "pipeline" if serving.pipeline else "data"
        raise shape.refuse(
            f"{origin(f'{block}.{which}')} is said and no tensor parallel size; "
            f"say {block}.tensor_parallel_size"
        )
    if serving.attention and _tensor(shape, serving) % (serving.data or 1):
        raise shape.refuse(
            f"{origin(f'{block}.attention')}: data parallel size {serving.data} does not divide the tensor "
            f"parallel size {_tensor(shape, serving)}; change one"
        )
    world = _world(shape, serving)
    nodes = f"{shape.nodes} node{'s' if shape.nodes > 1 else ''}"
    have = f"{nodes} x {per_node} ({shape.processes_origin}) are {every}"
    if not world or world > every:
        raise shape.refuse(
            f"{_sizes_in_words(shape, serving)} needs {world or 'more'} GPUs, and {have}; "
            "lower a size, or ask for more"
        )
    if per_node < world < every:
        raise shape.refuse(
            f"{_sizes_in_words(shape, serving)} takes {world} GPUs, and {have}; "
            f"let it take all of them, or at most the {per_node} of a node"
        )
    if serving.expert and _tensor(shape, serving) * (serving.data or 1) == 1:
        raise shape.refuse(
            f"{origin(f'{block}.expert')}: expert parallelism needs more than one tensor or data parallel "
            f"rank; say {block}.tensor_parallel_size or data_parallel_size, or leave it out"
        )


def _check_vllm(shape: Shape) -> None:
    executor = shape.said.vllm.executor
    if executor and executor not in EXECUTORS:
        raise InputError(
            f"cannot use {shape.said.origin('vllm.executor')}: expected one of {', '.join(EXECUTORS)}, "
            f"found {executor!r}{did_you_mean(executor, EXECUTORS)}"
        )
    _check_serving(shape)


def _check_disagg(shape: Shape) -> None:
    split, said = shape.split, shape.said
    origins = " and ".join(
        f"{said.origin(f'sglang_disagg.{part}')}"
        for part in ("prefill", "decode")
        if said.origin(f"sglang_disagg.{part}") != "default"
    )
    if split.prefill < 1 or split.decode < 1 or split.prefill + split.decode + 1 != shape.nodes:
        raise shape.refuse(
            f"{origins}: 1 proxy + {max(split.prefill, 0)} prefill + {max(split.decode, 0)} decode nodes are "
            f"not the {shape.nodes} nodes of the run ({shape.nodes_origin}); change them, or say -N COUNT"
        )
    tensor = _tensor(shape, said.sglang)
    most = shape.processes * min(split.prefill, split.decode)
    if tensor > most:
        raise shape.refuse(
            f"{said.origin('sglang.tensor')}: tensor parallel size {tensor} needs more than the {most} GPUs "
            f"of the smaller side ({split.prefill} prefill and {split.decode} decode nodes of "
            f"{shape.processes}); lower it"
        )


def _check_slurm_multi(shape: Shape) -> None:
    split = shape.split
    if split.prefill + split.decode > shape.nodes:
        raise shape.refuse(
            f"{split.prefill} prefill and {split.decode} decode nodes are more than the {shape.nodes} nodes "
            f"of the run ({shape.nodes_origin}); change them, or say -N COUNT"
        )


_CHECKS: dict[str, Callable[[Shape], None]] = {
    "vllm": _check_vllm,
    "sglang": _check_serving,
    "sglang-disagg": _check_disagg,
    "slurm_multi": _check_slurm_multi,
}
