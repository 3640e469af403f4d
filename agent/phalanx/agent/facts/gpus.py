"""Which GPUs a node has: what the vendor's tool says, and what the PCI bus shows beside it.

The tools know names, memory and the order that a workload will see. The bus knows GPUs that the driver has
lost, which no tool lists; they are kept, with ``source`` "pci": a missing GPU is what people look for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from phalanx.protocol.messages import Gpu

NVIDIA, AMD = "nvidia", "amd"

#: The schema's limits: a tuple of 64, an index of 16 bits, a size of 63.
_MOST_GPUS = 64
_MOST_INDEX = 2**16 - 1
_MOST_BYTES = 2**63 - 1

#: domain:bus:device.function; NVIDIA writes the domain with eight digits, sysfs with four or more.
_BUS = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")


@dataclass(frozen=True, slots=True)
class Seen:
    """One GPU as one source sees it; ``index`` is None where the source has no order of its own."""

    vendor: str
    model: str
    bus: str
    memory_bytes: int
    source: str
    index: int | None = None
    architecture: str = ""
    render_number: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What the tool of a vendor says. ``complaint``: what is wrong with it, "" for nothing."""

    vendor: str
    gpus: tuple[Seen, ...] = ()
    complaint: str = ""


def bus_address(text: str) -> str:
    """A PCI address as sysfs writes it, "0000:19:00.0"; "" when ``text`` is none."""
    match = _BUS.fullmatch(text.strip())
    if match is None:
        return ""
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function}"


def complaint_of(told: Iterable[Told], sysfs: Iterable[Seen]) -> str:
    """Why GPUs that are on the bus are in no tool's list: the complaint of their vendor's tool, "" for none.

    A tool that finds nothing on a node where nothing is has no news; nor has that of a second vendor, beside
    GPUs that a tool lists.
    """
    told = list(told)
    present = {(gpu.vendor, gpu.bus) for gpu in sysfs}
    for one in [one for one in told if one.gpus] or told:
        listed = {(gpu.vendor, gpu.bus) for gpu in one.gpus}
        if one.complaint and any(vendor == one.vendor for vendor, _ in present - listed):
            return plain(one.complaint)
    return ""


def merge(tools: Iterable[Iterable[Seen]], sysfs: Iterable[Seen]) -> tuple[Gpu, ...]:
    """GPUs by index: those that the vendors' tools list, then those that only the bus shows."""
    sysfs = list(sysfs)
    shown = {gpu.bus: gpu for gpu in sysfs}
    chosen = [_filled(gpu, shown.get(gpu.bus)) for seen in tools for gpu in seen]
    known = {gpu.bus for gpu in chosen}
    chosen += [gpu for gpu in sysfs if gpu.bus not in known]
    return tuple(_numbered(chosen))[:_MOST_GPUS]


def _filled(gpu: Seen, other: Seen | None) -> Seen:
    """``gpu`` with what it does not know taken from ``other``."""
    if other is None:
        return gpu
    return Seen(
        gpu.vendor,
        gpu.model or other.model,
        gpu.bus,
        gpu.memory_bytes or other.memory_bytes,
        gpu.source,
        gpu.index,
        gpu.architecture or other.architecture,
        gpu.render_number or other.render_number,
    )


def _numbered(gpus: Iterable[Seen]) -> Iterable[Gpu]:
    """The GPUs with an index first, in its order; then the others, counted on from there."""
    ordered = sorted(gpus, key=lambda gpu: (gpu.index is None, gpu.index or 0, gpu.bus))
    following = max((gpu.index + 1 for gpu in ordered if gpu.index is not None), default=0)
    for gpu in ordered:
        index = gpu.index
        if index is None:
            index, following = following, following + 1
        yield Gpu(
            index=min(max(index, 0), _MOST_INDEX),
            vendor=gpu.vendor,
            model=plain(gpu.model) or "unknown",
            bus=gpu.bus,
            memory_bytes=min(max(gpu.memory_bytes, 0), _MOST_BYTES),
            source=gpu.source,
            architecture=plain(gpu.architecture),
            render_number=gpu.render_number if 0 < gpu.render_number <= _MOST_INDEX else 0,
        )


def plain(text: str) -> str:
    """``text`` on one line without control characters, at most 255 characters."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:255]
