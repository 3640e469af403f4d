"""Projects and build inputs, small and said in a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phalanx.controller.builds.credentials import read_credentials
from phalanx.controller.builds.inputs import BuildInputs, read_dockerfiles, read_facts, tools_here
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.models import discover
from phalanx.controller.workflow.tags import choose

AMD = "# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}\n"
NVIDIA = "# CONTEXT {'gpu_vendor': 'NVIDIA', 'guest_os': 'UBUNTU'}\n"


def card(name: str = "dummy", **fields: Any) -> dict[str, Any]:
    return {"name": name, "dockerfile": "docker/dummy", "scripts": "run.sh", "args": "", "tags": [], **fields}


def project(folder: Path, cards: Sequence[Mapping[str, Any]], files: Mapping[str, str]) -> Path:
    """A project with these cards and files; a script for all of them."""
    for name, text in {"models.json": json.dumps(list(cards)), "run.sh": "", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def inputs(folder: Path, *tags: str, context: Any = None, **more: Any) -> BuildInputs:
    """The inputs of a build in a project: ``all`` when no tag is said."""
    cards = [choice.finished() for choice in choose(discover(folder), tags or ("all",)).choices]
    environ = more.pop("environ", {})
    dockerfiles, unreadable = read_dockerfiles(folder, cards)
    values: dict[str, Any] = {
        "project": str(folder),
        "cwd": str(folder),
        "cards": tuple(cards),
        "dockerfiles": dockerfiles,
        "unreadable": unreadable,
        "context": load_context(json.dumps(context)) if context is not None else load_context(),
        "environ": environ,
        "credentials": read_credentials(folder, environ),
        "facts": {**read_facts(folder), "host_os": "HOST_UBUNTU"},
        "has_tools": tools_here(folder),
    }
    return BuildInputs(**{**values, **more})
