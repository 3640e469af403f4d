"""Whether this node's CPUs are so short that what can wait should, by the kernel's own account.

``/proc/pressure/cpu`` (psi.rst of the kernel's documentation) counts the time in which some task could run
and had no CPU. A kernel without it says nothing, and then nothing waits.
"""

from __future__ import annotations

import re
from pathlib import Path

#: Share of the time in which some task had no CPU, from which on a node counts as starved.
STARVED = 0.5
PRESSURE = Path("/proc/pressure/cpu")
_TOTAL = re.compile(r"^some .*\btotal=(\d+)", re.MULTILINE)


def waited_s(path: Path = PRESSURE) -> float | None:
    """Seconds since boot in which some task waited for a CPU; None where the kernel does not count."""
    try:
        found = _TOTAL.search(path.read_text())
    except OSError:
        return None
    return int(found[1]) / 1e6 if found else None


class Starvation:
    """Looks every now and then; ``now`` is in seconds of any steady clock."""

    def __init__(self, path: Path = PRESSURE) -> None:
        self._path = path
        self._last: tuple[float, float] | None = None

    def look(self, now: float) -> bool:
        """Whether CPUs were short since the last look; False at the first."""
        waited, last = waited_s(self._path), self._last
        self._last = (now, waited) if waited is not None else None
        if waited is None or last is None or now <= last[0]:
            return False
        return (waited - last[1]) / (now - last[0]) > STARVED
