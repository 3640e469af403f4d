"""Nothing that a broken driver or a dead mount can do makes the agent wait: each reader has a deadline.

A process in uninterruptible sleep cannot be killed, and a statvfs on a dead server does not return. So
readers run in threads that are left behind when their time is up, and a tool that outlives its own is killed
and not waited for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

#: Seconds for one tool. A healthy nvidia-smi or amd-smi answers within two, without persistence mode too.
TOOL_S = 5.0

#: Most bytes of a tool's answer that are looked at; 64 GPUs are described in a tenth of it.
_MOST_OUTPUT = 4 * 1024 * 1024

#: Where drivers put their tools when PATH, which srun may have cut short, does not say.
_TOOL_PLACES = ("/usr/bin", "/usr/local/bin", "/opt/rocm/bin", "/usr/sbin")


def all_within(seconds: float, readers: Mapping[str, Callable[[], T]], unknown: T) -> dict[str, T]:
    """The answer of each reader, all at work at once; ``unknown`` for one that fails or is late."""
    answers: dict[str, T] = {}

    def read(name: str, reader: Callable[[], T]) -> None:
        try:
            answers[name] = reader()
        except Exception:  # noqa: BLE001 - a fact that cannot be read is unknown; it must not cost the others
            return

    threads = [
        threading.Thread(target=read, args=item, name=f"facts: {item[0]}", daemon=True)
        for item in readers.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {name: answers.get(name, unknown) for name in readers}


def tool_output(argv: Sequence[str], seconds: float = TOOL_S) -> str:
    """What a tool prints; "" when it is not there, cannot be run or is not done within ``seconds``."""
    path = shutil.which(argv[0]) or shutil.which(argv[0], path=":".join(_TOOL_PLACES))
    if path is None:
        return ""
    try:
        process = subprocess.Popen(
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return ""
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _abandon(process)
        return ""
    return out[:_MOST_OUTPUT].decode(errors="replace")


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Kill a tool and what it started; one that the kernel holds fast is left to it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.2)
