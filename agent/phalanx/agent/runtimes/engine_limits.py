"""The resource limits of the engine's own process: no container has more, unless the engine may raise them.

Needed where an engine adds limits by itself (podman), and to tell a person which number stood in the way.
"""

from __future__ import annotations

import resource
import socket
import struct
from pathlib import Path

_NAMES = {"Max open files": "nofile", "Max processes": "nproc", "Max locked memory": "memlock"}


def hard_limits(url: str) -> dict[str, int]:
    """Hard limits by setrlimit name, -1 for unlimited: the engine's where they can be read, else our own."""
    limits = {
        name.removeprefix("RLIMIT_").lower(): resource.getrlimit(getattr(resource, name))[1]
        for name in dir(resource)
        if name.startswith("RLIMIT_")
    }
    return limits | _of_process(_pid(url))


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
