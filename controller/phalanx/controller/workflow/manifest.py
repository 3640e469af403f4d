"""build_manifest.json as it is read: which images there are for which models, ours and madengine's.

A manifest is an input like any other, and is never written to by who runs it. What other tools add to it is
read over; what is needed must be of its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .card import ModelCard, read_cards
from .errors import InputError
from .place import read_json
from .wording import kind_of

NAME = "build_manifest.json"
#: Version of what phalanx adds to madengine's form; madengine's own files have none.
SCHEMA = 1
#: Keys of ``context`` that chose Dockerfiles and that nobody has said.
ASSUMED = "context_assumed"
#: Names of secrets that a run needs: of all models at the top, of one in its entry.
REQUIRED = "secrets_required"
#: Keys that a manifest's model has besides those of its card.
_ADDED = ("image", "docker_image", "prebuilt", "built_on_compute", REQUIRED)
#: Keys of ``deployment_config`` that are keys of an additional context.
_DEPLOYMENT = (
    "slurm", "k8s", "kubernetes", "distributed", "vllm", "sglang", "launcher", "multi_node_args", "env_vars",
    "debug",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One image for one model. ``reference``: how an engine or registry calls it. ``image_id``: which image
    that was when it was built, "" when that is not known. ``columns``: what a row says of the image.
    ``secrets``: names whose values the model needs and no file holds.
    """

    key: str
    reference: str
    card: ModelCard
    image_id: str = ""
    gpu_vendor: str = ""
    gpu_architecture: str = ""
    secrets: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest. ``context``: what it says of the additional context, by the keys of one.

    ``secrets_required``: names whose values a run needs and no file holds.
    """

    path: str
    entries: tuple[ManifestEntry, ...]
    context: Mapping[str, Any] = field(default_factory=dict)
    secrets_required: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_manifest(path: Path, shown: str = "") -> Manifest:
    """The manifest in a file. Raises InputError that names the key."""
    name = shown or str(path)
    if not path.exists():
        raise InputError(f"cannot read {name}: no such file; phalanx build --tags TAG,... writes one")
    return parse_manifest(read_json(path, name), name)


def parse_manifest(document: Any, name: str) -> Manifest:
    """A manifest's parsed JSON. Raises InputError."""
    if not isinstance(document, dict):
        raise InputError(f"cannot read {name}: expected an object, found {kind_of(document)}")
    schema = document.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise InputError(f"cannot read {name}: its schema is {schema!r}, this version reads {SCHEMA}")
    images, models = (_objects(document, key, name) for key in ("built_images", "built_models"))
    warnings = [
        f"{name}: built_images.{key}: no model has it, it is not run" for key in images if key not in models
    ]
    entries = [
        _entry(key, images[key], model, f"{name}: built_models.{key}")
        for key, model in models.items()
        if key in images
    ]
    warnings += [
        f"{name}: built_models.{key}: there is no image for it, it is not run"
        for key in models
        if key not in images
    ]
    failed = _failed(document.get("summary"))
    warnings += [
        f"{name}: {one.get('model')} was not built and is not run" for one in failed if isinstance(one, dict)
    ]
    if not entries:
        raise InputError(
            f"cannot run {name}: it has no image with a model; build it again: phalanx build --tags ..."
        )
    return Manifest(name, tuple(entries), _context(document, name), _secrets(document, name), tuple(warnings))


def _objects(document: Mapping[str, Any], key: str, name: str) -> dict[str, dict[str, Any]]:
    found = document.get(key)
    if found is None:
        raise InputError(f"cannot read {name}: {key}: it is required and missing")
    if not isinstance(found, dict):
        raise InputError(f"cannot read {name}: {key}: expected an object, found {kind_of(found)}")
    for inner, value in found.items():
        if not isinstance(value, dict):
            raise InputError(f"cannot read {name}: {key}.{inner}: expected an object, found {kind_of(value)}")
    return found


def _entry(key: str, image: Mapping[str, Any], model: Mapping[str, Any], where: str) -> ManifestEntry:
    kept = {name: value for name, value in model.items() if name not in _ADDED}
    kept.setdefault("args", "")
    if kept.get("timeout") == -1:
        kept["timeout"] = None
    card = read_cards([kept], where)[0]

    def text(name: str) -> str:
        value = image.get(name)
        if value is None or isinstance(value, (bool, dict, list)):
            return ""
        return str(value)

    local, registry = image.get("local_image"), text("registry_image")
    if local:
        reference = text("docker_image") or (local if isinstance(local, str) else key)
    else:
        reference = registry or text("docker_image") or key
    return ManifestEntry(
        key=key,
        reference=reference,
        card=card,
        image_id=text("image_id"),
        gpu_vendor=text("gpu_vendor"),
        gpu_architecture=text("gpu_architecture"),
        secrets=_secrets(model, where),
        columns={
            "docker_file": text("dockerfile"),
            "base_docker": text("base_docker"),
            "docker_sha": text("docker_sha"),
            "build_duration": text("build_duration"),
        },
    )


def _context(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The two blocks as one additional context; what is empty was not said."""
    found: dict[str, Any] = {}
    assumed = document.get(ASSUMED) or []
    for block, keys in (("context", None), ("deployment_config", _DEPLOYMENT)):
        said = document.get(block)
        if said is None:
            continue
        if not isinstance(said, dict):
            raise InputError(f"cannot read {name}: {block}: expected an object, found {kind_of(said)}")
        found.update(
            {
                key: value
                for key, value in said.items()
                if (key not in assumed if keys is None else key in keys) and value not in ("", {}, [], None)
            }
        )
    return found


def _failed(summary: Any) -> list[Any]:
    found = summary.get("failed_builds") if isinstance(summary, dict) else None
    return found if isinstance(found, list) else []


def _secrets(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = document.get(REQUIRED, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(
            f"cannot read {name}: secrets_required: expected a list of names, found {kind_of(found)}"
        )
    return tuple(found)
