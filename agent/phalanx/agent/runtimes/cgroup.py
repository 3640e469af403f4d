"""Counting the kernel's out-of-memory kills in a control group, version 1 or 2.

A process killed for memory shows signal 9 and nothing else; an engine tells only when the container's first
process was the victim. The counter of the group tells it for any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """The memory control group of a process: its directory and the file that holds the counter."""

    directory: Path
    counter: str
    limit: str

    def kills(self) -> int:
        """How many processes the kernel has killed here for memory; 0 when it does not say."""
        try:
            lines = (self.directory / self.counter).read_text().splitlines()
        except OSError:
            return 0
        words = (line.split() for line in lines)
        return next((int(pair[1]) for pair in words if len(pair) == 2 and pair[0] == "oom_kill"), 0)

    def limit_bytes(self) -> int:
        """The limit, 0 when there is none."""
        try:
            text = (self.directory / self.limit).read_text().strip()
        except OSError:
            return 0
        # version 1 says "no limit" by a number near 2^63, version 2 by "max"
        return int(text) if text.isdecimal() and int(text) < 1 << 60 else 0


def memory_group(pid: int | str, root: Path = _ROOT) -> MemoryGroup | None:
    """The memory group of a process ("self" for this one); None when it cannot be told."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    return _find(lines, root)


def _find(lines: list[str], root: Path) -> MemoryGroup | None:
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        below = path.lstrip("/")
        if "memory" in controllers.split(","):
            directory = root / "memory" / below
            if (directory / "memory.oom_control").exists():
                return MemoryGroup(directory, "memory.oom_control", "memory.limit_in_bytes")
        elif hierarchy == "0":
            directory = root / below
            if (directory / "memory.events").exists():
                return MemoryGroup(directory, "memory.events", "memory.max")
    return None


def size(count: int) -> str:
    """Bytes for people: 64 MiB, 1.5 GiB."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"
