"""The additional context of a run: sources laid one over the other, as one typed value with origins.

A manifest lies lowest, then the file, then the command line, which takes JSON or a Python literal. Top-level
keys of the command line replace those of the file whole (madengine's rule); over a manifest, what is said at
run time goes key by key. Each value remembers where it came from.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .context_parts import DataSource, ErrorScan, Script, SlurmBlock, Tool, data_source
from .errors import InputError
from .layers import Layer, Merged, lifted, over, plain, replacing
from .place import FILE_LIMIT, parse_json, read_json

OPTION = "--additional-context"
VENDORS = ("AMD", "NVIDIA")
GUESTS = ("UBUNTU", "CENTOS")
#: Blocks that say how ranks are formed.
BLOCKS = ("distributed", "launcher", "vllm", "sglang", "multi_node_args")
#: Where a count of GPUs may be given at the top, first found first.
GPU_COUNT_KEYS = ("gpus_per_node", "gpu_count", "n_gpus", "num_gpus", "ngpus")
UnknownKeys = Literal["error", "warn"]


@dataclass(frozen=True, slots=True)
class Context:
    """What the additional context says. ``origins``: key path to the file or option it is from.

    ``mounts`` is container path to host path, as in madengine. ``deploy``: "local", "slurm" or "".
    ``blocks``: how ranks are formed (``BLOCKS``), as it was given; ``document``: the whole, as it was given,
    without comments and with ``deployment_config`` folded in.
    Placeholders are resolved, save in environments (``docker_env``, ``env``, ``build_args``, those of tools),
    whose values may be secrets: whoever puts one into a process resolves it with ``placeholders.resolve``.
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
    gpu_count_key: str = ""
    deploy: str = ""
    slurm: SlurmBlock | None = None
    launcher: str = ""
    nnodes: int | None = None
    port: int | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    pre_scripts: tuple[Script, ...] = ()
    post_scripts: tuple[Script, ...] = ()
    data: Mapping[str, Mapping[str, DataSource]] = field(default_factory=dict)
    shared_data: str = ""
    error_scan: ErrorScan = field(default_factory=ErrorScan)
    system_details: bool | None = None
    rocenv_mode: str = ""
    rocm_path: str = ""
    debug: bool = False
    blocks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, compare=False)
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    lenient: frozenset[str] = frozenset()

    def origin(self, path: str) -> str:
        """Where the value at a key path is from: ``ctx.json: slurm.nodes``."""
        known = path
        while known not in self.origins and "." in known:
            known = known.rpartition(".")[0]
        return f"{self.origins.get(known, OPTION)}: {path}"


@dataclass(frozen=True, slots=True)
class BuildDefaults:
    """Vendor and guest that a Dockerfile is chosen by, each with its origin."""

    gpu_vendor: str
    guest_os: str
    gpu_vendor_origin: str
    guest_os_origin: str


def build_defaults(context: Context) -> BuildDefaults:
    """What a build takes for vendor and guest: what the context says, else AMD and UBUNTU.

    For the choice of a Dockerfile only: a run whose context does not say them goes by what its nodes have.
    """
    return BuildDefaults(
        context.gpu_vendor or VENDORS[0],
        context.guest_os or GUESTS[0],
        context.origin("gpu_vendor") if context.gpu_vendor else "default",
        context.origin("guest_os") if context.guest_os else "default",
    )


def load_context(
    text: str | None = None,
    file: Path | None = None,
    below: Sequence[Layer] = (),
    *,
    environ: Mapping[str, str] | None = None,
    unknown_keys: UnknownKeys = "error",
) -> Context:
    """Read and check the context of a run. ``below``: layers under file and text, lowest first.

    ``environ`` answers ``${NAME}``; ``unknown_keys``: whether those are refused or named in warnings. Raises
    InputError.
    """
    said = []
    if file is not None:
        said.append(Layer(str(file), read_json(file, str(file)), generated=False))
    if text is not None and text.strip():
        said.append(Layer(OPTION, _literal(text), generated=False))
    # Most runs have none, and checking it means importing pydantic: a third of what else a start costs.
    if all(layer.document == {} for layer in (*below, *said)):
        return Context()
    merged, above = Merged(), Merged()
    for layer in below:
        over(merged, _checked(layer, environ or {}, unknown_keys))
    for layer in said:
        replacing(above, _checked(layer, environ or {}, unknown_keys))
    over(merged, above)
    lenient = (layer.source for layer in (*below, *said) if layer.generated or unknown_keys == "warn")
    return replace(_typed(merged), lenient=frozenset(lenient))


def _literal(text: str) -> Any:
    """JSON, else a Python literal; the complaint is JSON's when both fail."""
    if len(text) > FILE_LIMIT:
        raise InputError(f"cannot read {OPTION}: it is too long")
    try:
        return parse_json(text, OPTION)
    except InputError as complaint:
        try:
            tree = ast.parse(text.strip(), mode="eval")
            _refuse_twice(tree)
            return ast.literal_eval(tree)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise InputError(f"{complaint} (nor is it a Python literal)") from None


def _refuse_twice(tree: ast.AST) -> None:
    """Python takes the last of two equal keys; a person meant both."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            seen: set[str] = set()
            for key in (repr(key.value) for key in node.keys if isinstance(key, ast.Constant)):
                if key in seen:
                    raise InputError(f"cannot read {OPTION}: the key {key} is given twice in one object")
                seen.add(key)


def _checked(layer: Layer, environ: Mapping[str, str], unknown_keys: UnknownKeys) -> Merged:
    """A layer by itself, so that an error names the right source."""
    from .context_check import check, known_only

    found = Merged()
    if layer.generated or unknown_keys == "warn":
        known = known_only(layer.source, plain(layer, None), found.warnings)
        layer = replace(layer, document=known)
    values = plain(layer, environ)
    check(layer.source, values)
    folded, sources = lifted(values, layer.source)
    for key, value in folded.items():
        found.put(key, value, sources.get(key, layer.source))
    found.origins.update({path: source for path, source in sources.items() if "." in path})
    for name in ("k8s", "kubernetes"):
        if name in found.values:
            raise InputError(
                f"cannot use {found.origins[name]}: {name}: there is no kubernetes target yet; "
                "use slurm or neither"
            )
    return found


def _typed(merged: Merged) -> Context:
    from .context_check import unused, validated

    values, origins = merged.values, merged.origins
    said = validated(values)
    distributed = said.distributed
    counted = next((name for name in GPU_COUNT_KEYS if getattr(said, name) is not None), "")
    details = said.gen_sys_env_details
    return Context(
        gpu_vendor=_one_of("gpu_vendor", said.gpu_vendor, VENDORS, origins),
        guest_os=_one_of("guest_os", said.guest_os, GUESTS, origins),
        docker_env=_texts(said.docker_env_vars),
        env=_texts(said.env_vars),
        mounts=dict(said.docker_mounts),
        docker_gpus=said.docker_gpus.replace(" ", ""),
        docker_cpus=said.docker_cpus.replace(" ", ""),
        render_numbers=tuple(said.gpu_renderDs),
        image=said.MAD_CONTAINER_IMAGE.strip(),
        encapsulate=said.encapsulate_script,
        model_args=said.model_args,
        gpu_count=getattr(said, counted) if counted else None,
        gpu_count_key=counted,
        deploy={"docker": "local"}.get(values.get("deploy", ""), values.get("deploy", "")),
        slurm=None if said.slurm is None else _slurm(said.slurm),
        launcher=distributed.launcher if distributed else "",
        nnodes=distributed.nnodes if distributed else None,
        port=(distributed.port or distributed.master_port) if distributed else None,
        build_args=_texts(said.docker_build_arg),
        tools=tuple(Tool(one.name, one.cmd, _texts(one.env_vars)) for one in said.tools),
        pre_scripts=tuple(Script(one.path, str(one.args)) for one in said.pre_scripts),
        post_scripts=tuple(Script(one.path, str(one.args)) for one in said.post_scripts),
        data={
            name: {provider: data_source(entry) for provider, entry in providers.items()}
            for name, providers in said.data.items()
        },
        shared_data=said.shared_data,
        error_scan=ErrorScan(
            said.log_error_pattern_scan,
            tuple(said.log_error_patterns),
            tuple(said.log_error_benign_patterns),
        ),
        system_details=said.generate_sys_env_details if details is None else details,
        rocenv_mode=said.rocenv_mode or "",
        rocm_path=said.MAD_ROCM_PATH or "",
        debug=said.debug,
        blocks={name: values[name] for name in BLOCKS if values.get(name) is not None},
        document=values,
        origins=origins,
        warnings=(*merged.warnings, *unused(values, origins)),
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _slurm(block: Any) -> SlurmBlock:
    values = {name: getattr(block, name) for name in SlurmBlock.__dataclass_fields__}
    for name in ("nodelist", "exclude"):
        value = values[name]
        joined = ",".join(value) if isinstance(value, list) else value
        values[name] = re.sub(r" *, *", ",", joined.strip(" "))
    for name in ("extra", "modules"):
        values[name] = tuple(values[name])
    for name in ("gpus_per_node", "time"):
        values[name] = str(values[name])
    return SlurmBlock(**values)


def _one_of(name: str, value: str, allowed: tuple[str, ...], origins: Mapping[str, str]) -> str:
    """Upper-cased, as madengine compares them."""
    word = value.upper()
    if word and word not in allowed:
        raise InputError(
            f"cannot use {origins[name]}: {name}: expected {' or '.join(allowed)}, found {value!r}"
        )
    return word
