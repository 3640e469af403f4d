"""The resource limits of the engine's own process: no container has more, unless the engine may raise them.

Needed to refuse a limit before the start, naming both numbers, and where an engine adds limits by itself
(podman).
"""

from __future__ import annotations

import resource
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

#: Labels of /proc/PID/limits (linux/fs/proc/base.c) and the names that docker gives them.
_NAMES = {
    "Max cpu time": "cpu",
    "Max file size": "fsize",
    "Max data size": "data",
    "Max stack size": "stack",
    "Max core file size": "core",
    "Max resident set": "rss",
    "Max processes": "nproc",
    "Max open files": "nofile",
    "Max locked memory": "memlock",
    "Max file locks": "locks",
    "Max pending signals": "sigpending",
    "Max msgqueue size": "msgqueue",
    "Max nice priority": "nice",
    "Max realtime priority": "rtprio",
    "Max realtime timeout": "rttime",
}
#: capabilities(7): CAP_SYS_RESOURCE lets a process raise its hard limits.
_SYS_RESOURCE = 1 << 24
#: Above this not even that may set RLIMIT_NOFILE (proc(5)).
_NR_OPEN = Path("/proc/sys/fs/nr_open")


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """By setrlimit name, -1 for unlimited. ``hard``: what a container has that asks for none.

    ``ceilings``: the most that the engine can give, empty where its process cannot be looked at: then its own
    refusal has to do.
    """

    hard: dict[str, int]
    ceilings: dict[str, int]


def limits_of(url: str) -> EngineLimits:
    """The engine's limits where they can be read, else our own for ``hard``. Blocks."""
    pid = _pid(url)
    of_engine = _of_process(pid)
    own = {
        name.removeprefix("RLIMIT_").lower(): resource.getrlimit(getattr(resource, name))[1]
        for name in dir(resource)
        if name.startswith("RLIMIT_")
    }
    return EngineLimits(own | of_engine, _ceilings(pid, of_engine) if pid > 0 and of_engine else {})


def _ceilings(pid: int, limits: dict[str, int]) -> dict[str, int]:
    try:
        status, users = Path(f"/proc/{pid}/status").read_text(), Path(f"/proc/{pid}/uid_map").read_text()
        most_files = int(_NR_OPEN.read_text())
    except (OSError, ValueError):
        return {}
    return {"nofile": most_files} if may_raise(status, users) else limits


def may_raise(status: str, uid_map: str) -> bool:
    """Whether a process can raise hard limits, by its /proc/PID/status and uid_map.

    In a user namespace of its own (a rootless engine) it has the capability, but not over the node's limits.
    """
    held = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    return bool(held & _SYS_RESOURCE) and uid_map.split() == ["0", "0", "4294967295"]


def _pid(url: str) -> int:
    """The process that listens on the engine's socket, 0 when that cannot be told."""
    if not url.startswith("unix://"):
        return 0
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(1)
            peer.connect(url.removeprefix("unix://"))
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError:
        return 0
    return int(struct.unpack("3i", raw)[0])


def _of_process(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return {}
    return parse(lines)


def parse(lines: list[str]) -> dict[str, int]:
    """Hard limits from the lines of /proc/PID/limits."""
    found = {}
    for label, name in _NAMES.items():
        words = next((line[len(label) :].split() for line in lines if line.startswith(label)), [])
        if len(words) >= 2:
            found[name] = -1 if words[1] == "unlimited" else int(words[1])
    return found
