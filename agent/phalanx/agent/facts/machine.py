"""CPUs, memory and room on disks, as the kernel tells them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from phalanx.protocol.messages import Disk, Engine

_KIB = re.compile(r"\s*(\d{1,15}) kB\s*")

#: Where engines keep images unless told otherwise.
_ENGINE_ROOTS = {"docker": ("/var/lib/docker",), "podman": ("/var/lib/containers/storage",)}


def memory(meminfo: str) -> tuple[int, int]:
    """(total, available) bytes in the text of /proc/meminfo; 0 for what it does not say."""
    values = {}
    for line in meminfo.splitlines():
        key, _, value = line.partition(":")
        if match := _KIB.fullmatch(value):
            values[key] = int(match.group(1)) * 1024
    return values.get("MemTotal", 0), values.get("MemAvailable", values.get("MemFree", 0))


def read_memory() -> tuple[int, int]:
    """(total, available) bytes of this machine."""
    return memory(Path("/proc/meminfo").read_text(errors="replace"))


def usable_cpus() -> int:
    """CPUs that this process may run on: what a scheduler's cpuset leaves of them."""
    return len(os.sched_getaffinity(0))


def all_cpus() -> int:
    """CPUs of the machine that are on."""
    return os.cpu_count() or 0


def rocm_release() -> str:
    """The release of ROCm that is installed here, as its own file says it; "" without one."""
    root = Path(os.environ.get("ROCM_PATH") or "/opt/rocm")
    try:
        with (root / ".info" / "version").open(encoding="utf-8", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""


def disk(purpose: str, path: Path) -> Disk | None:
    """Room on the filesystem under ``path``, or under the nearest directory above that exists."""
    for place in (path, *path.parents):
        try:
            room = os.statvfs(place)
        except FileNotFoundError:
            continue
        return Disk(purpose, str(path), room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize)
    return None


def disk_places(spool: Path, engine: Engine) -> Iterator[tuple[str, Path]]:
    """(purpose, path) of the disks that matter to a run."""
    yield "spool", spool
    yield "tmp", Path("/tmp")  # noqa: S108 - looked at, not written to
    for root in _ENGINE_ROOTS.get(engine.kind, ()):
        yield "engine", Path(root)
