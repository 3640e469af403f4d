"""One answer to "what is this node?", whatever is broken on it: each part is read apart, within its time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from phalanx.protocol.messages import Disk, Engine, Facts

from .addresses import free_ports, own_addresses
from .amd import told_by_amd_tools
from .bounded import TOOL_S, all_within
from .gpus import Told, complaint_of, merge, plain
from .machine import all_cpus, disk, disk_places, read_memory, rocm_release, usable_cpus
from .nvidia import told_by_nvidia_smi
from .sysfs import seen_in_sysfs

#: Seconds for all of it: a tool's own and a little to start it.
_ALL_S = TOOL_S + 1.0

_TOOLS: tuple[Callable[[], Told], ...] = (told_by_nvidia_smi, told_by_amd_tools)


def gather(spool: Path, engine: Engine) -> Facts:
    """The facts of this node. Blocks for six seconds at most, so call it in a thread; never raises.

    What cannot be read is 0, "" or missing from its list.
    """
    places = list(disk_places(spool, engine))
    readers: dict[str, Callable[[], Any]] = {
        "cpus": usable_cpus,
        "all cpus": all_cpus,
        "memory": read_memory,
        "addresses": own_addresses,
        "ports": free_ports,
        "sysfs": seen_in_sysfs,
        "rocm": rocm_release,
    }
    readers |= {reader.__name__: reader for reader in _TOOLS}
    readers |= {f"disk {purpose}": partial(disk, purpose, path) for purpose, path in places}
    answers = all_within(_ALL_S, readers, None)
    total, free = answers["memory"] or (0, 0)
    ports = answers["ports"] or (0,)
    disks: list[Disk | None] = [answers[f"disk {purpose}"] for purpose, _ in places]
    told: list[Told] = [answers[reader.__name__] for reader in _TOOLS if answers[reader.__name__]]
    on_the_bus = answers["sysfs"] or ()
    system = os.uname()
    return Facts(
        hostname=plain(system.nodename),
        arch=plain(system.machine),
        kernel=plain(system.release),
        python=".".join(str(part) for part in sys.version_info[:3]),
        cpus=answers["cpus"] or 0,
        memory_bytes=total,
        memory_free_bytes=free,
        addresses=answers["addresses"] or (),
        free_port=ports[0],
        disks=tuple(found for found in disks if found is not None),
        gpus=merge((one.gpus for one in told), on_the_bus),
        engine=engine,
        cpus_total=answers["all cpus"] or 0,
        rocm=plain(answers["rocm"] or ""),
        more_ports=ports[1:],
        gpu_complaint=complaint_of(told, on_the_bus),
    )
