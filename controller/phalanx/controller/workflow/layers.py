"""The sources of a context, one over the other: plain values first, then the rules of who replaces whom.

A source is other people's text. What reaches the schema is JSON and nothing else, whole placeholders are
resolved, and every text either stands as it was written or is refused by its key path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InputError
from .placeholders import refuse_within, resolve_shown
from .secrecy import ENVIRONMENTS
from .wording import key_path, kind_of

#: Texts that are looked for in logs as they stand.
LITERAL = ("log_error_patterns", "log_error_benign_patterns")
#: Blocks of a manifest of which a higher layer replaces the keys that it gives, not the whole.
MERGED = (*ENVIRONMENTS, "docker_mounts", "slurm", "distributed")
#: Blocks that stand for keys of the top level and go below them.
DEPLOYMENTS = ("deploy", "deployment_config")
#: Key paths of the variables that name the interface of NCCL, and of gloo.
_INTERFACES = tuple(
    tuple(f"{block}.{name}_SOCKET_IFNAME" for block in ("multi_node_args", "env_vars", "docker_env_vars"))
    for name in ("NCCL", "GLOO")
)
#: Key paths that say the same thing. Which goes first within one layer is for whoever reads them.
SAME = (
    ("slurm.nodes", "distributed.nnodes", "launcher.nnodes", "multi_node_args.NNODES"),
    ("distributed.launcher", "launcher.type", "multi_node_args.RUNNER"),
    ("distributed.nproc_per_node", "launcher.nproc_per_node", "multi_node_args.MAD_RUNTIME_NGPUS"),
    ("gpus_per_node", "gpu_count", "n_gpus", "num_gpus", "ngpus", "slurm.gpus_per_node"),
    (
        *(
            "distributed.port",
            "distributed.master_port",
            "launcher.master_port",
            "multi_node_args.MASTER_PORT",
        ),
        *("env_vars.MASTER_PORT", "docker_env_vars.MASTER_PORT"),
    ),
    *_INTERFACES,
    ("MAD_CONTAINER_IMAGE", "docker_env_vars.MAD_CONTAINER_IMAGE"),
    ("gen_sys_env_details", "generate_sys_env_details"),
)
#: A key path that says what others say one by one: it goes over all of them, each of them over its part.
WHOLE = {"slurm.network_interface": tuple(path for group in _INTERFACES for path in group)}
#: Deepest nesting of a context; the documented keys need five.
DEEPEST = 32
#: Whole numbers beyond those of other programs that read the same JSON.
LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of a context: what it is called in errors and origins, and its document.

    ``generated``: a tool has written it. Keys that are not known are then named in warnings, and "", {} and
    null say nothing.
    """

    source: str
    document: Any
    generated: bool = True


@dataclass(slots=True)
class Merged:
    """What the layers say together. ``origins``: key path, of two parts at most, to source."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, source: str) -> None:
        """Set a key, and forget what was there."""
        self.forget(key)
        self.values[key], self.origins[key] = value, source
        for name in value if isinstance(value, dict) else ():
            self.origins[f"{key}.{name}"] = source

    def take(self, other: Merged, key: str, value: Any) -> None:
        """Set a key to what it is with ``other`` over this; origins that other has go over those here."""
        self.values[key] = value
        self.origins.update({path: other.origins[path] for path in other.paths(key)})

    def forget(self, key: str) -> None:
        """Take a key out."""
        self.values.pop(key, None)
        for path in self.paths(key):
            del self.origins[path]

    def holds(self, path: str) -> bool:
        """Whether something is said at a key path of one or two parts."""
        key, _, name = path.partition(".")
        block = self.values.get(key)
        if not name:
            return block not in (None, "")
        return isinstance(block, dict) and block.get(name) not in (None, "")

    def drop(self, path: str) -> None:
        """Take out what is at a key path of one or two parts."""
        key, _, name = path.partition(".")
        block = self.values.get(key)
        if not name:
            self.forget(key)
        elif isinstance(block, dict) and name in block:
            self.values[key] = {one: value for one, value in block.items() if one != name}
            self.origins.pop(path, None)

    def paths(self, key: str) -> list[str]:
        """The paths at and below a key that have an origin."""
        return [path for path in self.origins if path == key or path.startswith(f"{key}.")]


def plain(layer: Layer, environ: Mapping[str, str] | None) -> dict[str, Any]:
    """The document as JSON values without comments, placeholders resolved. Raises InputError.

    ``environ`` None leaves placeholders as they are.
    """
    if not isinstance(layer.document, dict):
        raise InputError(f"cannot read {layer.source}: expected an object, found {kind_of(layer.document)}")
    values: dict[str, Any] = _Reading(layer.source, environ).value(layer.document, ())
    return _said(values) if layer.generated else values


def lifted(values: dict[str, Any], source: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Checked values with ``deploy`` and ``deployment_config`` folded into the keys they stand for.

    Returns them and, by key path, the sources of what was folded in. ``deploy`` is then the name of a target.
    """
    found = {key: value for key, value in values.items() if key not in DEPLOYMENTS}
    sources: dict[str, str] = {}
    for block in DEPLOYMENTS:
        said = values.get(block)
        inner: dict[str, Any] = {"target": said} if isinstance(said, str) else dict(said or {})
        target = str(inner.pop("target", "")).lower()
        where = source if isinstance(said, str) else f"{source}: {block}"
        if target:
            _fold(found, sources, "deploy", target, where)
        for key, value in inner.items():
            _fold(found, sources, key, value, where)
    return found, sources


def _fold(found: dict[str, Any], sources: dict[str, str], key: str, value: Any, source: str) -> None:
    """Put a key below what is there."""
    there = found.get(key)
    if there is None:
        found[key], sources[key] = value, source
    elif key in MERGED and isinstance(there, dict) and isinstance(value, dict):
        missing = {name: part for name, part in value.items() if name not in there}
        found[key] = {**there, **missing}
        sources.update({f"{key}.{name}": source for name in missing})


def over(below: Merged, above: Merged) -> None:
    """Lay ``above`` over ``below``: of blocks that are merged, key by key; else whole."""
    _settle(below, above)
    for key, value in above.values.items():
        there = below.values.get(key)
        if key in MERGED and isinstance(there, dict) and isinstance(value, dict):
            value = {**there, **value}
        else:
            below.forget(key)
        below.take(above, key, value)
    below.warnings += above.warnings


def replacing(below: Merged, above: Merged) -> None:
    """Lay ``above`` over ``below`` whole key by whole key, as madengine does, and say what is lost by it."""
    _settle(below, above)
    for key, value in above.values.items():
        there = below.values.get(key)
        lost: list[str] = []
        if isinstance(there, dict) and isinstance(value, dict):
            lost = [name for name in there if name not in value]
        if lost:
            below.warnings.append(
                f"{above.origins[key]}: {key} replaces that of {below.origins[key]} whole; "
                f"no longer there: {', '.join(lost)}"
            )
        below.forget(key)
        below.take(above, key, value)
    below.warnings += above.warnings


def _settle(below: Merged, above: Merged) -> None:
    """Take out of the lower layer what the higher one says by another name."""
    if "slurm" in above.values and "deploy" not in above.values:
        below.forget("deploy")
    for group in SAME:
        if any(above.holds(path) for path in group):
            for path in group:
                below.drop(path)
    for whole, parts in WHOLE.items():
        for path in parts if above.holds(whole) else ():
            below.drop(path)
    for name in above.values.get("env_vars") or ():
        below.drop(f"docker_env_vars.{name}")


def _said(values: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing: at the top, and in blocks of settings (an environment may hold "")."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key in (*MERGED, *DEPLOYMENTS):
            empty: tuple[Any, ...] = (None,) if key in ENVIRONMENTS else (None, "", {})
            value = _said(value) if key in DEPLOYMENTS else {k: v for k, v in value.items() if v not in empty}
        if value not in (None, "", {}):
            found[key] = value
    return found


@dataclass(slots=True)
class _Reading:
    """One walk over a document."""

    source: str
    environ: Mapping[str, str] | None

    def value(self, value: Any, path: tuple[int | str, ...]) -> Any:
        if len(path) > DEEPEST:
            raise InputError(f"cannot read {self.source}: {key_path(path[:3])}...: it is nested too deeply")
        if isinstance(value, dict):
            return self._object(value, path)
        if isinstance(value, list | tuple):
            return [self.value(part, (*path, place)) for place, part in enumerate(value)]
        if isinstance(value, str):
            return self._text(value, path)
        return self._scalar(value, path)

    def _object(self, value: dict[Any, Any], path: tuple[int | str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, part in value.items():
            if not isinstance(key, str):
                raise self._refusal((*path, _ascii(repr(key)[:80])), "keys are text")
            if key.startswith("_") and not self._is_variable(key, path):
                continue
            if problem := _unreadable(key):
                raise self._refusal((*path, _ascii(key)), f"the key {problem}")
            refuse_within(key, f"{self.source}: {key_path(path) or 'the top level'}", "a key")
            found[key] = self.value(part, (*path, key))
        return found

    @staticmethod
    def _is_variable(key: str, path: tuple[int | str, ...]) -> bool:
        """Keys with an underscore in front are comments, but _JAVA_OPTIONS is a variable."""
        return bool(path) and path[-1] in ENVIRONMENTS and key[1:2].isupper()

    def _text(self, value: str, path: tuple[int | str, ...]) -> str:
        if problem := _unreadable(value):
            raise self._refusal(path, f"it {problem}")
        if self.environ is None or (len(path) > 1 and path[-2] in (*ENVIRONMENTS, *LITERAL)):
            return value
        found = resolve_shown(value, self.environ, f"{self.source}: {key_path(path)}")
        if problem := _unreadable(found):
            raise self._refusal(path, f"it is {value}, which {problem}")
        return found

    def _scalar(self, value: Any, path: tuple[int | str, ...]) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and -LARGEST <= value < LARGEST:
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        what = "a number too large" if isinstance(value, int | float) else kind_of(value)
        raise self._refusal(path, f"found {what}")

    def _refusal(self, path: tuple[int | str, ...], words: str) -> InputError:
        return InputError(f"cannot read {self.source}: {key_path(path)}: {words}")


def _unreadable(text: str) -> str:
    """What makes a text one that no argument, file name or variable can hold; "" for nothing."""
    if "\0" in text:
        return "holds a NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    return ""


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
