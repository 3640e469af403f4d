"""What GPUs a node has, from its facts: whose, how many, of which architecture. Pure.

A GPU that only the PCI bus shows has no driver that works, and is not counted, but told of when a case wants
GPUs; AMD's are an exception, whose driver says what they are without any tool. An architecture is AMD's
target ("gfx942"); for NVIDIA, as in madengine, the product's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..plan.model import RunsOn

#: How a GPU of NVIDIA is called that its driver does not know (agent/facts/sysfs.py).
UNNAMED = "PCI device"

_VENDORS = {"amd": "AMD", "nvidia": "NVIDIA"}


@dataclass(frozen=True, slots=True)
class Hardware:
    """The GPUs of a node, all of one vendor; ``vendor`` "" when it has none or nothing is known.

    ``hip_version``: major and minor number of the node's ROCm, for AMD.
    ``unusable``: which of its GPUs are not counted and why, in words; "" when all are.
    ``indexes``: as the vendor's tools count them. ``render_numbers``: by index the N of AMD's
    ``/dev/dri/renderDN``, () unless all are known.
    """

    vendor: str = ""
    architecture: str = ""
    product: str = ""
    hip_version: str = ""
    indexes: tuple[int, ...] = ()
    render_numbers: tuple[int, ...] = ()
    unusable: str = ""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.indexes)

    def values(self) -> dict[str, str]:
        """For templates of a plan (``plan/templates.py``); "" for what is not known."""
        return {
            "SYSTEM_GPU_VENDOR": self.vendor,
            "SYSTEM_NGPUS": str(self.count) if self.count else "",
            "SYSTEM_GPU_ARCHITECTURE": self.architecture,
            "SYSTEM_GPU_PRODUCT_NAME": self.product,
            "SYSTEM_HIP_VERSION": self.hip_version,
        }


def hardware_of(facts: Mapping[str, Any] | None) -> Hardware:
    """The GPUs in the facts of a node as its agent sent them."""
    facts = facts or {}
    seen = facts.get("gpus") or ()
    usable = [gpu for gpu in seen if _usable(gpu)]
    vendors = {usable[0]["vendor"]} if usable else set(_VENDORS)
    unusable = _unusable(facts, [gpu for gpu in seen if gpu.get("vendor") in vendors])
    if not usable:
        return Hardware(unusable=unusable)
    vendor = usable[0]["vendor"]
    own = [gpu for gpu in usable if gpu["vendor"] == vendor]
    product = str(own[0].get("model") or "")
    architecture = next(filter(None, map(architecture_of, own)), "")
    release = re.match(r"\d+\.\d+", str(facts.get("rocm") or "")) if vendor == "amd" else None
    indexes = tuple(sorted(int(gpu.get("index") or 0) for gpu in own))
    hip, numbers = release[0] if release else "", _render_numbers(own, indexes)
    return Hardware(_VENDORS[vendor], architecture, product, hip, indexes, numbers, unusable)


def architecture_of(gpu: Mapping[str, Any]) -> str:
    """Of one GPU, as madengine calls it: AMD's target, NVIDIA's product; "" where nobody says."""
    product = gpu.get("model", "") if gpu.get("vendor") == "nvidia" else ""
    return str(gpu.get("architecture") or (product if product != "unknown" else ""))


def _render_numbers(own: Sequence[Mapping[str, Any]], indexes: tuple[int, ...]) -> tuple[int, ...]:
    """By index. Partitions of one GPU share its bus, and so its number, which is the first one's only."""
    numbers = {int(gpu.get("index") or 0): int(gpu.get("render_number") or 0) for gpu in own}
    distinct = set(numbers.values()) - {0}
    if indexes != tuple(range(len(own))) or len(distinct) < len(own):
        return ()
    return tuple(numbers[index] for index in indexes)


def _usable(gpu: Mapping[str, Any]) -> bool:
    by_driver = gpu.get("vendor") == "amd" and bool(gpu.get("architecture"))
    return gpu.get("vendor") in _VENDORS and (gpu.get("source") != "pci" or by_driver)


def _unusable(facts: Mapping[str, Any], seen: Sequence[Mapping[str, Any]]) -> str:
    """Words for those of ``seen`` of which a tool complains, or that NVIDIA's driver has not. Others that no
    tool lists may be those of other jobs, which the scheduler keeps from this one."""
    lost = [gpu for gpu in seen if not _usable(gpu)]
    if not facts.get("gpu_complaint"):
        lost = [gpu for gpu in lost if str(gpu.get("model") or "").startswith(UNNAMED)]
    if not lost:
        return ""
    which = f"{lost[0].get('model') or 'GPU'} at {lost[0].get('bus') or 'an unknown address'}"
    if len(lost) > 1:
        which += f" and {len(lost) - 1} more"
    why = facts.get("gpu_complaint") or "its driver does not list it"
    return f"{len(lost)} of {len(seen)} GPUs cannot be used ({which}): {why}"


def unfit(wanted: RunsOn, nodes: Sequence[tuple[str, Hardware]]) -> str:
    """Why a case is skipped on these nodes, "" when it is not. What is not known keeps nobody off."""
    for name, has in nodes:
        if wanted.vendor and has.vendor and has.vendor != wanted.vendor:
            return f"its image is for GPUs of {wanted.vendor}, and {name} has {has.vendor}"
        if not has.architecture:
            continue
        if wanted.architecture and not is_architecture(wanted.architecture, has):
            return f"its image is for {wanted.architecture}, and {name} has {has.architecture}"
        for one in wanted.skip:
            if is_architecture(one, has):
                return f"skip_gpu_arch names {one}, and {name} has {has.architecture}"
    return ""


def is_architecture(name: str, has: Hardware) -> bool:
    """Whether a node is of this architecture: AMD's by its target, NVIDIA's by a word of its name."""
    if has.vendor == "NVIDIA":
        words = re.split(r"[\s\-_/]+", has.architecture.casefold())
        return name.casefold() in (has.architecture.casefold(), *words)
    return name.partition(":")[0].casefold() == has.architecture.casefold()
