"""What a run ran on and which nodes failed it, from its view. Pure."""

from __future__ import annotations

import json
import platform
from typing import Any

from phalanx.protocol.messages import Cause
from phalanx.protocol.release import VERSION

from ..nodesets import IRREGULAR_LIMIT, fold, natural
from .model import NodeView, RunView

#: Version of lock.json. 1: first version.
SCHEMA = 1
_BAD_STATES = frozenset({"lost", "missing"})


def failed_nodes(view: RunView) -> str:
    """The nodes that were lost or missing, or on which something failed, as a node set; "" for none."""
    bad = {node.name for node in view.nodes.values() if node.state in _BAD_STATES or node.image_error}
    bad |= {rank.node for rank in view.ranks.values() if rank.failed and rank.cause is not Cause.STOPPED}
    if view.failure is not None and view.failure.node:
        bad.add(view.failure.node)
    names = natural(bad)
    # A file is for programs: names that take too long to fold are written out.
    return fold(names) if len(names) <= IRREGULAR_LIMIT else ",".join(names)


def lock_document(view: RunView) -> dict[str, Any]:
    """What results depend on beside the plan: images, versions, kinds of nodes. Like nodes are one group."""
    groups: dict[str, list[str]] = {}
    for node in view.nodes.values():
        if node.facts:
            groups.setdefault(json.dumps(kind_of(node), sort_keys=True), []).append(node.name)
    return {
        "v": SCHEMA,
        "run": view.run_id,
        "images": [{"reference": image.reference, "id": image.id} for image in view.images],
        "controller": {"phalanx": VERSION, "python": platform.python_version()},
        "nodes": [{"nodes": fold(natural(names)), **json.loads(kind)} for kind, names in groups.items()],
    }


def kind_of(node: NodeView) -> dict[str, Any]:
    """The facts of a node that it shares with others of its kind."""
    facts = node.facts
    engine = facts.get("engine") or {}
    gpus = facts.get("gpus") or ()
    return {
        **{name: facts.get(name) for name in ("arch", "kernel", "python", "cpus_total")},
        "memory_gib": round((facts.get("memory_bytes") or 0) / 1024**3),
        "engine": {name: engine.get(name, "") for name in ("kind", "version", "api", "storage")},
        "gpus": [f"{gpu.get('vendor', '')} {gpu.get('model', '')}".strip() for gpu in gpus],
    }
