"""GPUs as the kernel shows them, without any tool: the PCI bus, amdgpu's files beside it, and KFD's topology.

Sources: Documentation/ABI/testing/sysfs-bus-pci; amdgpu's ``mem_info_vram_total`` and ``product_name``;
``/sys/class/kfd/kfd/topology/nodes/*/properties`` (``location_id`` is bus<<8 | device<<3 | function). A
device's ``drm/renderDN`` names its render node.
NVIDIA's driver gives a GPU's name in ``/proc/driver/nvidia/gpus/<bus>/information``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .gpus import AMD, NVIDIA, Seen, bus_address

_VENDORS = {0x1002: AMD, 0x10DE: NVIDIA}

#: PCI base classes: 0x03 display controllers, 0x12 processing accelerators (Instinct since MI300).
_CLASSES = (0x03, 0x12)

#: Most devices that are looked at, and most bytes of one file.
_MOST_DEVICES = 4096
_MOST_TEXT = 64 * 1024


def seen_in_sysfs(root: Path = Path("/")) -> list[Seen]:
    """AMD's and NVIDIA's GPUs on the PCI bus below ``root``, AMD's in the order that HIP gives them."""
    targets = dict(_kfd_gpus(root))
    order = {bus: at for at, bus in enumerate(targets)}
    found = _on_the_bus(root, targets)
    return sorted(found, key=lambda gpu: (gpu.vendor, order.get(gpu.bus, len(order)), gpu.bus))


def _on_the_bus(root: Path, targets: dict[str, str]) -> Iterator[Seen]:
    for device in _entries(root / "sys/bus/pci/devices"):
        vendor = _VENDORS.get(_number(_text(device / "vendor")))
        bus = bus_address(device.name)
        if vendor is None or not bus or _number(_text(device / "class")) >> 16 not in _CLASSES:
            continue
        model = f"PCI device {_text(device / 'device') or 'unknown'}"
        if vendor == AMD:
            model = _text(device / "product_name") or targets.get(bus, "") or model
            memory = _number(_text(device / "mem_info_vram_total"))
        else:
            model = _nvidia_model(root, bus) or model
            memory = 0
        target, render = targets.get(bus, ""), _render_number(device)
        yield Seen(vendor, model, bus, memory, "pci", architecture=target, render_number=render)


def _render_number(device: Path) -> int:
    """128 for ``drm/renderD128`` of a device, 0 when it has no such or several."""
    found = [entry.name.removeprefix("renderD") for entry in _entries(device / "drm")]
    numbers = [int(name) for name in found if name.isdecimal()]
    return numbers[0] if len(numbers) == 1 else 0


def _nvidia_model(root: Path, bus: str) -> str:
    for line in _text(root / "proc/driver/nvidia/gpus" / bus / "information").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return ""


def _kfd_gpus(root: Path) -> Iterator[tuple[str, str]]:
    """(bus, target such as "gfx942") of KFD's GPU nodes in their order, partitions included."""
    nodes = [node for node in _entries(root / "sys/class/kfd/kfd/topology/nodes") if node.name.isdecimal()]
    for node in sorted(nodes, key=lambda node: int(node.name)):
        lines = (line.partition(" ") for line in _text(node / "properties").splitlines())
        properties = {key: value for key, _, value in lines}
        if _number(properties.get("simd_count", "")) == 0:
            continue
        location = _number(properties.get("location_id", ""))
        domain = _number(properties.get("domain", ""))
        bus = f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"
        yield bus, gfx_target(_number(properties.get("gfx_target_version", "")))


def gfx_target(version: int) -> str:
    """KFD's number as LLVM's name: 90402 is gfx942, 90010 is gfx90a; "" for 0."""
    if version <= 0:
        return ""
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}"


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())[:_MOST_DEVICES]
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_TEXT).decode(errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int:
    """A number as sysfs writes it, 0x1002 or 1002; 0 when it is none."""
    try:
        return max(int(text, 0), 0)
    except ValueError:
        return 0
