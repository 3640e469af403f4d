"""How ranks are formed, as cards and contexts say it: one typed value, each part with its origin.

Layers, the later over the earlier, key by key: the card's ``distributed``, ``vllm`` and ``sglang``, the
context's ``multi_node_args`` (the form of madengine 1), ``distributed``, ``launcher`` (the form of its
Kubernetes configurations, which beats ``distributed`` there too), ``vllm`` and ``sglang``. A key that is not
known is refused: one that silently does nothing costs a night. ``null`` is: not said; ``_keys`` are comments.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from .card import ModelCard
from .context import Context
from .errors import InputError, did_you_mean
from .placeholders import refuse_placeholder
from .wording import below, kind_of

#: Larger numbers are mistyped ones: nodes of a cluster, GPUs or processes of a node, tokens of a context.
MOST_NODES, MOST_PROCESSES, MOST_TOKENS = 100_000, 1024, 1_000_000_000
#: Longest text of one key, in characters.
LONGEST_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Split:
    """Nodes that prefill and nodes that decode; 0 for not said."""

    prefill: int = 0
    decode: int = 0


@dataclass(frozen=True, slots=True)
class Primus:
    """What Primus is told; "" for not said."""

    config_path: str = ""
    cli_extra: str = ""
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Serving:
    """Sizes of an inference engine over all its nodes; 0, None and "" for not said.

    ``attention``: data parallel attention, whose ranks are among the tensor parallel ones. ``executor``: what
    forms vLLM's workers. ``env``: further variables, with their origins under ``NAME`` in the caller's table.
    """

    tensor: int = 0
    pipeline: int = 0
    data: int = 0
    expert: bool | None = None
    attention: bool = False
    max_model_len: int = 0
    executor: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Distributed:
    """How a model's ranks are formed. ``origins``: key path to where the value is from."""

    launcher: str = ""
    enabled: bool = True
    nnodes: int = 0
    nproc_per_node: int = 0
    backend: str = ""
    port: int = 0
    sglang_disagg: Split = Split()
    vllm_disagg: Split = Split()
    primus: Primus = Primus()
    vllm: Serving = Serving()
    sglang: Serving = Serving()
    #: variables that ``multi_node_args`` may set: the network interfaces of NCCL and gloo
    env: Mapping[str, str] = field(default_factory=dict)
    #: the interface that NCCL and gloo take on a Slurm cluster (``slurm.network_interface``)
    interface: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def origin(self, path: str) -> str:
        """Where the value at a key path is from, "default" for one that nobody said."""
        return self.origins.get(path, "default")


class _Key(NamedTuple):
    """A key of a block: the path that it sets, and what it may hold (``high``: the largest number)."""

    path: str
    kind: str
    high: int = 0


#: From a key path to where the value there is from.
_OriginOf = Callable[[str], str]
_Block = Mapping[str, "_Key | _Block"]


def _split(path: str) -> _Block:
    return {
        "prefill_nodes": _Key(f"{path}.prefill", "number", MOST_NODES),
        "decode_nodes": _Key(f"{path}.decode", "number", MOST_NODES),
    }


_DISTRIBUTED: _Block = {
    "launcher": _Key("launcher", "text"),
    "enabled": _Key("enabled", "flag"),
    "nnodes": _Key("nnodes", "number", MOST_NODES),
    "nproc_per_node": _Key("nproc_per_node", "number", MOST_PROCESSES),
    "backend": _Key("backend", "text"),
    "master_port": _Key("port", "number", 65535),
    "port": _Key("port", "number", 65535),
    "sglang_disagg": _split("sglang_disagg"),
    "vllm_disagg": _split("vllm_disagg"),
    "primus": {
        "config_path": _Key("primus.config_path", "text"),
        "cli_extra": _Key("primus.cli_extra", "words"),
        "backend": _Key("primus.backend", "text"),
    },
}
_LAUNCHER: _Block = {
    "type": _Key("launcher", "text"),
    "nnodes": _Key("nnodes", "number", MOST_NODES),
    "nproc_per_node": _Key("nproc_per_node", "number", MOST_PROCESSES),
    "master_port": _Key("port", "number", 65535),
}
#: ``unused``: what phalanx knows better than a file can.
_MULTI_NODE: _Block = {
    "RUNNER": _Key("launcher", "text"),
    "MAD_RUNTIME_NGPUS": _Key("nproc_per_node", "number", MOST_PROCESSES),
    "NNODES": _Key("nnodes", "number", MOST_NODES),
    "MASTER_PORT": _Key("port", "number", 65535),
    "NCCL_SOCKET_IFNAME": _Key("env.NCCL_SOCKET_IFNAME", "text"),
    "GLOO_SOCKET_IFNAME": _Key("env.GLOO_SOCKET_IFNAME", "text"),
    "NODE_RANK": _Key("", "unused"),
    "MASTER_ADDR": _Key("", "unused"),
    "HOST_LIST": _Key("", "unused"),
}
_SLURM: _Block = {"network_interface": _Key("interface", "text")}
_VLLM: _Block = {
    "tensor_parallel_size": _Key("vllm.tensor", "number", MOST_PROCESSES),
    "pipeline_parallel_size": _Key("vllm.pipeline", "number", MOST_NODES),
    "data_parallel_size": _Key("vllm.data", "number", MOST_NODES),
    "enable_expert_parallel": _Key("vllm.expert", "flag"),
    "max_model_len": _Key("vllm.max_model_len", "number", MOST_TOKENS),
    "distributed_executor_backend": _Key("vllm.executor", "text"),
    "env": _Key("vllm.env", "variables"),
}
_SGLANG: _Block = {
    "tp": _Key("sglang.tensor", "number", MOST_PROCESSES),
    "tp_size": _Key("sglang.tensor", "number", MOST_PROCESSES),
    "tensor_parallel_size": _Key("sglang.tensor", "number", MOST_PROCESSES),
    "pp_size": _Key("sglang.pipeline", "number", MOST_NODES),
    "pipeline_parallel_size": _Key("sglang.pipeline", "number", MOST_NODES),
    "dp": _Key("sglang.data", "number", MOST_NODES),
    "dp_size": _Key("sglang.data", "number", MOST_NODES),
    "data_parallel_size": _Key("sglang.data", "number", MOST_NODES),
    "enable_dp_attention": _Key("sglang.attention", "flag"),
    "enable_expert_parallel": _Key("sglang.expert", "flag"),
    "max_model_len": _Key("sglang.max_model_len", "number", MOST_TOKENS),
    "env": _Key("sglang.env", "variables"),
    **_split("sglang_disagg"),
}


def distributed_of(card: ModelCard | None, context: Context) -> Distributed:
    """What card and context say together. Raises InputError that names the key and its file."""
    found: dict[str, tuple[Any, str]] = {}
    warnings: list[str] = []
    for origin_of, name, value, block in _layers(card, context):
        _read(value, block, name, origin_of, partial(_lenient, card, context), found, warnings)
    values = {path: value for path, (value, _) in found.items()}
    if values.get("launcher") and not values.get("enabled", True):
        warnings.append(f"{found['enabled'][1]} is false: {values['launcher']} forms no ranks")
    return Distributed(
        **{name: values[name] for name in _PLAIN if name in values},
        sglang_disagg=Split(**below(values, "sglang_disagg")),
        vllm_disagg=Split(**below(values, "vllm_disagg")),
        primus=Primus(**below(values, "primus")),
        vllm=Serving(**_serving(values, "vllm")),
        sglang=Serving(**_serving(values, "sglang")),
        env=below(values, "env"),
        origins={path: origin for path, (_, origin) in found.items()},
        warnings=tuple(warnings),
    )


_PLAIN = ("launcher", "enabled", "nnodes", "nproc_per_node", "backend", "port", "interface")


def context_nodes(context: Context) -> tuple[int, str] | None:
    """The number of nodes that the context's blocks ask for, and where. Raises InputError."""
    if not context.blocks:
        return None
    said = distributed_of(None, context)
    return (said.nnodes, said.origin("nnodes")) if said.nnodes else None


def _layers(card: ModelCard | None, context: Context) -> Iterator[tuple[_OriginOf, str, Any, _Block]]:
    """Of each block: what tells where a value at a path is from, its name, what it says, what it may say."""
    if card is not None:
        for name, value, block in (
            ("distributed", card.distributed, _DISTRIBUTED),
            ("vllm", card.vllm, _VLLM),
            ("sglang", card.sglang, _SGLANG),
            ("slurm", _interface_of(card.slurm), _SLURM),
        ):
            yield partial(_of_card, card), name, value, block
    yield context.origin, "slurm", _interface_of(context.document.get("slurm")), _SLURM
    for name, block in (
        ("multi_node_args", _MULTI_NODE),
        ("distributed", _DISTRIBUTED),
        ("launcher", _LAUNCHER),
        ("vllm", _VLLM),
        ("sglang", _SGLANG),
    ):
        yield context.origin, name, context.blocks.get(name), block


def _of_card(card: ModelCard, path: str) -> str:
    return f"{card.where}: {path}"


def _lenient(card: ModelCard | None, context: Context, origin: str) -> bool:
    """Whether an unknown key there is a warning: in cards, which tools share; in what a tool has written; and
    where the user wants it so."""
    return (card is not None and origin.startswith(card.where)) or origin.partition(": ")[
        0
    ] in context.lenient


def _interface_of(slurm: Any) -> dict[str, Any]:
    """The one key of a slurm block that is about ranks; the others are read elsewhere."""
    return {"network_interface": slurm.get("network_interface")} if isinstance(slurm, Mapping) else {}


def _serving(values: Mapping[str, Any], stem: str) -> dict[str, Any]:
    """The same, with the variables of the block in a table of their own."""
    flat = below(values, stem)
    env = below(flat, "env")
    return {**{name: value for name, value in flat.items() if not name.startswith("env.")}, "env": env}


def _read(
    value: Any,
    block: _Block,
    path: str,
    origin_of: _OriginOf,
    lenient: Callable[[str], bool],
    found: dict[str, tuple[Any, str]],
    warnings: list[str],
) -> None:
    """Take what a block says; in the order of its table, so that of two spellings the last one counts."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise _wrong(origin_of(path), "an object", value)
    warnings += _unknown(value, block, path, origin_of, lenient)
    for name, key in block.items():
        part, origin = value.get(name), origin_of(f"{path}.{name}")
        if part is None or part == "":
            continue
        if not isinstance(key, _Key):
            _read(part, key, f"{path}.{name}", origin_of, lenient, found, warnings)
        elif key.kind == "unused":
            warnings.append(f"{origin} is not used: every node gets its own from phalanx")
        elif key.kind == "variables":
            found.update(_variables(part, key.path, origin))
        else:
            found[key.path] = _value(part, key, origin), origin


def _unknown(
    value: Mapping[str, Any], block: _Block, path: str, origin_of: _OriginOf, lenient: Callable[[str], bool]
) -> list[str]:
    """A line for each unknown key. Raises InputError where they are errors."""
    found = []
    for name in value:
        if name not in block and not str(name).startswith("_"):
            origin = origin_of(f"{path}.{name}")
            words = f"it is not a known key{did_you_mean(str(name), block)}"
            if not lenient(origin):
                raise InputError(f"cannot use {origin}: {words}")
            found.append(f"{origin}: {words}; it is not used")
    return found


def _value(value: Any, key: _Key, origin: str) -> int | bool | str:
    if key.kind == "number":
        return _number(value, key.high, origin)
    if key.kind == "flag":
        if str(value).lower() not in ("true", "false"):
            raise _wrong(origin, "true or false", value)
        return str(value).lower() == "true"
    if (
        key.kind == "words"
        and isinstance(value, (list, tuple))
        and all(isinstance(one, str) for one in value)
    ):
        value = shlex.join(value)
    if not isinstance(value, str):
        raise _wrong(origin, "text", value)
    if len(value) > LONGEST_TEXT or any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise InputError(
            f"cannot use {origin}: it holds a control character or is longer than {LONGEST_TEXT} characters"
        )
    refuse_placeholder(value, origin)
    return value


def _number(value: Any, high: int, origin: str) -> int:
    """A whole number from 1; cards write them as text as well."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        number = int(value)
    else:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        number = int(value) if whole and not isinstance(value, bool) else 0
    if not 1 <= number <= high:
        raise _wrong(origin, f"a whole number from 1 to {high}", value)
    return number


def _variables(value: Any, path: str, origin: str) -> Iterable[tuple[str, tuple[str, str]]]:
    if not isinstance(value, Mapping):
        raise _wrong(origin, "an object", value)
    for name, part in value.items():
        if str(name).startswith("_"):
            continue
        if isinstance(part, bool) or not isinstance(part, (str, int, float)):
            raise _wrong(f"{origin}.{name}", "text or a number", part)
        yield f"{path}.{name}", (str(part), f"{origin}.{name}")


def _wrong(origin: str, expected: str, value: Any) -> InputError:
    return InputError(f"cannot use {origin}: expected {expected}, found {kind_of(value)}")
