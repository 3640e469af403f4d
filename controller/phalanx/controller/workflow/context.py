"""The additional context of a run: a file, then the command line over it, as one typed value with origins.

The command line takes JSON or a Python literal. Top-level keys of the command line replace those of the file
whole (madengine's rule). Each value remembers where it came from.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .context_schema import UNUSED, UNUSED_DISTRIBUTED, UNUSED_SLURM, hints, known_keys, schema
from .errors import InputError
from .place import FILE_LIMIT, parse_json, read_json
from .wording import explain, kind_of

OPTION = "--additional-context"
VENDORS = ("AMD", "NVIDIA")
GUESTS = ("UBUNTU", "CENTOS")
#: Blocks that say how ranks are formed.
BLOCKS = ("distributed", "launcher", "vllm", "sglang", "multi_node_args")
#: Where a count of GPUs may be given at the top, first found first.
GPU_COUNT_KEYS = ("gpus_per_node", "gpu_count", "n_gpus", "num_gpus", "ngpus")


@dataclass(frozen=True, slots=True)
class SlurmBlock:
    """The ``slurm`` key: its presence chooses the target. "" and None mean: not said."""

    partition: str = ""
    nodes: int | None = None
    gpus_per_node: str = ""
    time: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    nodelist: str = ""
    exclude: str = ""
    constraint: str = ""
    gres: str = ""
    exclusive: bool | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What the additional context says. ``origins``: top-level key to the file or option it is from.

    ``mounts`` is container path to host path, as in madengine. ``blocks``: how ranks are formed (``BLOCKS``),
    as it was given; ``document``: the whole, as it was given.
    """

    gpu_vendor: str = ""
    guest_os: str = ""
    docker_env: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    docker_gpus: str = ""
    docker_cpus: str = ""
    render_numbers: tuple[int, ...] = ()
    image: str = ""
    encapsulate: str = ""
    model_args: str | None = None
    gpu_count: int | None = None
    slurm: SlurmBlock | None = None
    launcher: str = ""
    nnodes: int | None = None
    port: int | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    blocks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, compare=False)
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def origin(self, path: str) -> str:
        """Where the value at a key path is from: ``ctx.json: slurm.nodes``."""
        return f"{self.origins.get(path.split('.')[0], OPTION)}: {path}"


def load_context(text: str | None = None, file: Path | None = None) -> Context:
    """Read and check the context of a run. Raises InputError."""
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        _take(read_json(file, str(file)), str(file), merged, origins)
    if text is not None and text.strip():
        _take(_literal(text), OPTION, merged, origins)
    # Most runs have none, and checking it means importing pydantic: a third of what else a start costs.
    return _typed(merged, origins) if merged else Context()


def _literal(text: str) -> Any:
    """JSON, else a Python literal; the complaint is JSON's when both fail."""
    if len(text) > FILE_LIMIT:
        raise InputError(f"cannot read {OPTION}: it is too long")
    try:
        return parse_json(text, OPTION)
    except InputError as complaint:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise InputError(f"{complaint} (nor is it a Python literal)") from None


def _take(document: Any, source: str, merged: dict[str, Any], origins: dict[str, str]) -> None:
    """Lay a source over what is there, and check it alone, so that an error names the right source."""
    from pydantic import ValidationError

    if not isinstance(document, dict):
        raise InputError(f"cannot read {source}: expected an object, found {kind_of(document)}")
    wrong = next((key for key in document if not isinstance(key, str)), None)
    if wrong is not None:
        raise InputError(f"cannot read {source}: {wrong!r}: keys are text")
    values = {key: _no_comments(value) for key, value in document.items() if not key.startswith("_")}
    try:
        schema().model_validate(values)
    except ValidationError as error:
        raise explain(source, error, known_keys(), hints()) from error
    for key, value in values.items():
        merged[key], origins[key] = value, source


def _no_comments(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: part for key, part in value.items() if not (isinstance(key, str) and key.startswith("_"))}


def _typed(merged: dict[str, Any], origins: dict[str, str]) -> Context:
    said: Any = schema().model_validate(merged)
    for name in ("k8s", "kubernetes"):
        if name in merged:
            raise InputError(
                f"cannot use {origins[name]}: {name}: there is no kubernetes target yet; use slurm or neither"
            )
    distributed = said.distributed
    counts = (getattr(said, name) for name in GPU_COUNT_KEYS)
    return Context(
        gpu_vendor=_one_of("gpu_vendor", said.gpu_vendor, VENDORS, origins),
        guest_os=_one_of("guest_os", said.guest_os, GUESTS, origins),
        docker_env={name: str(value) for name, value in said.docker_env_vars.items()},
        env={name: str(value) for name, value in said.env_vars.items()},
        mounts=dict(said.docker_mounts),
        docker_gpus=said.docker_gpus.replace(" ", ""),
        docker_cpus=said.docker_cpus.replace(" ", ""),
        render_numbers=tuple(said.gpu_renderDs),
        image=said.MAD_CONTAINER_IMAGE.strip(),
        encapsulate=said.encapsulate_script,
        model_args=said.model_args,
        gpu_count=next((count for count in counts if count is not None), None),
        slurm=None if said.slurm is None else _slurm(said.slurm),
        launcher=distributed.launcher,
        nnodes=distributed.nnodes,
        port=distributed.port or distributed.master_port,
        build_args={name: str(value) for name, value in said.docker_build_arg.items()},
        blocks={name: merged[name] for name in BLOCKS if name in merged},
        document=merged,
        origins=origins,
        warnings=tuple(_warnings(merged, origins)),
    )


def _slurm(block: Any) -> SlurmBlock:
    values = {name: getattr(block, name) for name in SlurmBlock.__dataclass_fields__}
    for name in ("nodelist", "exclude"):
        value = values[name]
        values[name] = (",".join(value) if isinstance(value, list) else value).replace(" ", "")
    return SlurmBlock(
        **{
            **values,
            "gpus_per_node": str(values["gpus_per_node"]),
            "time": str(values["time"]),
            "extra": tuple(values["extra"]),
        }
    )


def _one_of(name: str, value: str, allowed: tuple[str, ...], origins: Mapping[str, str]) -> str:
    """Upper-cased, as madengine compares them."""
    word = value.upper()
    if word and word not in allowed:
        raise InputError(
            f"cannot use {origins[name]}: {name}: expected {' or '.join(allowed)}, found {value!r}"
        )
    return word


def _warnings(merged: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """Keys that are accepted and do nothing here."""
    unused: dict[str, list[str]] = {}
    for key, value in merged.items():
        inner = {"slurm": UNUSED_SLURM, "distributed": UNUSED_DISTRIBUTED}.get(key)
        if inner is not None:
            unused.setdefault(origins[key], []).extend(f"{key}.{part}" for part in value if part in inner)
        elif key in UNUSED:
            unused.setdefault(origins[key], []).append(key)
    return [
        f"{source}: this version does not act on {', '.join(paths)}"
        for source, paths in unused.items()
        if paths
    ]
