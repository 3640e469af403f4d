"""What models on slurm get when nobody says otherwise: madengine's presets, as data files beside this module.

They lie below everything that is said: cards, manifests, contexts, options. Of madengine's values those that
name one site, or turn hardware off, are left out; each file says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..place import read_json
from ..wording import below

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Preset:
    """Values by key path (``env_vars.NCCL_DEBUG``), each with its origin."""

    values: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    def block(self, name: str) -> dict[str, tuple[Any, str]]:
        """The values of one block, by key."""
        return below(self.values, name)


def preset_for(target: str, nodes: int, vendor: str) -> Preset:
    """The preset of models on so many nodes. ``vendor``: AMD, NVIDIA, or "" for not said.

    What only ROCm reads is left out where the vendor is said to be another.
    """
    if target != "slurm":
        return Preset()
    names = ["slurm/defaults", "slurm/multi-node" if nodes > 1 else "slurm/single-node"]
    if vendor in ("", "AMD"):
        names += [f"{name}-amd" for name in names if (_HERE / f"{name}-amd.json").exists()]
    values: dict[str, tuple[Any, str]] = {}
    for name in names:
        for block, settings in document(name).items():
            for key, value in settings.items():
                values[f"{block}.{key}"] = (value, f"preset {name}: {block}.{key}")
    return Preset(values)


@cache
def document(name: str) -> Mapping[str, Mapping[str, Any]]:
    """A preset by its name (``slurm/defaults``), without its comments."""
    blocks = read_json(_HERE / f"{name}.json", f"preset {name}")
    return {
        block: {key: value for key, value in settings.items() if not key.startswith("_")}
        for block, settings in blocks.items()
        if not block.startswith("_")
    }


def names() -> list[str]:
    """The names of all presets."""
    return sorted(str(path.relative_to(_HERE).with_suffix("")) for path in _HERE.rglob("*.json"))
