"""What a build leaves in build_manifest.json, in madengine's form (reference: its contract, section 3).

More than madengine has: ``schema``, ``image_id`` (the digest is the image's identity, the tag a name),
``secrets_required``, and where pushes went. Less: no value that is a secret, and no preset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..results.locking import replace_file
from ..workflow.errors import InputError
from ..workflow.manifest import ASSUMED, SCHEMA
from .given import OWN_IMAGE
from .model import BuildPlan, GivenImage, ImageBuild


@dataclass(frozen=True, slots=True)
class Built:
    """How one image became. ``error``: why it did not, "" when it did; ``push_error`` likewise.

    ``base_digest``: the digest of the image it starts from, "" when the engine does not know. ``command``:
    the builder's command line, without secrets. ``node``: where it was built, "" for here.
    """

    build: ImageBuild
    image_id: str = ""
    duration_s: float = 0.0
    base_digest: str = ""
    command: str = ""
    error: str = ""
    push_error: str = ""
    node: str = ""


def manifest_document(plan: BuildPlan, outcomes: Sequence[Built], total_s: float) -> dict[str, Any]:
    """The manifest as JSON values."""
    good = [one for one in outcomes if not one.error]
    images: dict[str, Any] = {one.build.image: _image(one) for one in good}
    models: dict[str, Any] = {one.build.image: _model(one) for one in good}
    for given in plan.given:
        images[given.key], models[given.key] = _given(given), dict(given.card)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "built_images": images,
        "built_models": models,
        "context": dict(plan.context),
        ASSUMED: list(plan.assumed),
        "credentials_required": list(plan.credentials_required),
        "secrets_required": list(plan.secrets_required),
        "summary": summary(plan, outcomes, total_s),
        "deployment_config": dict(plan.deployment),
    }
    failures = [{"image": one.build.image, "error": one.push_error} for one in good if one.push_error]
    return document | ({"push_failures": failures} if failures else {})


def summary(plan: BuildPlan, outcomes: Sequence[Built], total_s: float) -> dict[str, Any]:
    """What became of every build and push; also the document of ``--summary-output``."""
    good = [one for one in outcomes if not one.error]
    successful: list[Any] = [_image(one) for one in good]
    successful += [given.model for given in plan.given if given.kind == "prebuilt"]
    return {
        "successful_builds": successful,
        "failed_builds": [
            *({"model": one.model, "error": one.error} for one in plan.unbuilt),
            *(_failed(one) for one in outcomes if one.error),
        ],
        "total_build_time": round(total_s, 3),
        "successful_pushes": [one.build.pushed for one in good if one.build.pushed and not one.push_error],
        "failed_pushes": [
            {"image": one.build.image, "registry_image": one.build.pushed, "error": one.push_error}
            for one in good
            if one.push_error
        ],
    }


def write_json(path: Path, document: Any, shown: str) -> None:
    """A whole file or none: written beside its place and renamed into it; a device or pipe is written to.

    Raises InputError.
    """
    try:
        replace_file(path, _encoded(document), 0o666)
    except OSError as error:
        raise InputError(f"cannot write {shown}: {error.strerror or error}") from error


def _encoded(document: Any) -> bytes:
    """As people read it; half a character of UTF-16 (which JSON can hold and UTF-8 cannot) is escaped."""
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def _image(one: Built) -> dict[str, Any]:
    build = one.build
    found: dict[str, Any] = {
        "model": build.model,
        "docker_image": build.image,
        "image_id": one.image_id,
        "dockerfile": build.dockerfile,
        "base_docker": build.base,
        "docker_sha": one.base_digest,
        "build_duration": round(one.duration_s, 3),
        "build_command": one.command,
        "log_file": build.log,
        "gpu_vendor": build.gpu_vendor,
    }
    if build.gpu_architecture:
        found["gpu_architecture"] = build.gpu_architecture
    if build.registry:
        found["registry"] = build.registry
    if one.node:
        found |= {"built_on_compute": True, "built_on": one.node}
    if build.pushed and one.push_error:
        found["push_error"] = one.push_error
    elif build.pushed:
        found["registry_image"] = build.pushed
    return found


def _model(one: Built) -> dict[str, Any]:
    card = dict(one.build.card)
    if one.build.pushed and not one.push_error:
        card["env_vars"] = {**card.get("env_vars", {}), OWN_IMAGE: one.build.pushed}
    return card


def _failed(one: Built) -> dict[str, Any]:
    found = {
        "model": one.build.model,
        "image": one.build.image,
        "error": one.error,
        "log_file": one.build.log,
    }
    return found | ({"architecture": one.build.gpu_architecture} if one.build.gpu_architecture else {})


def _given(given: GivenImage) -> dict[str, Any]:
    if given.kind == "prebuilt":
        return {
            "image_name": given.image,
            "docker_image": given.image,
            "local_image": True,
            "dockerfile": "",
            "build_time": 0,
            "prebuilt": True,
        }
    return {
        "model": given.model,
        "docker_image": given.key,
        "dockerfile": given.card.get("dockerfile", ""),
        "base_docker": "",
        "docker_sha": "",
        "build_duration": 0,
        "build_command": f"# not built: {given.model} has build_new false",
        "log_file": f"{given.model.replace('/', '_')}_{given.stem}.build.skipped.log",
        "registry_image": given.image,
        "registry": given.registry,
    }
