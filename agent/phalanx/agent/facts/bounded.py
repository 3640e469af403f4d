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
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Seconds for one tool. A healthy nvidia-smi or amd-smi answers within two, without persistence mode too.
TOOL_S = 5.0

#: Most bytes of a tool's answer that are looked at; 64 GPUs are described in a tenth of it.
_MOST_OUTPUT = 4 * 1024 * 1024

#: Where drivers put their tools when PATH, which srun may have cut short, does not say. In pods NVIDIA's are
#: mounted in a folder of their own, with the libraries beside them.
_TOOL_PLACES = ("/usr/bin", "/usr/local/bin", "/opt/rocm/bin", "/usr/local/nvidia/bin", "/usr/sbin")


@dataclass(frozen=True, slots=True)
class Answer:
    """``text``: what a tool printed. ``complaint``: why that is not a whole answer, "" when it ended well;
    in the tool's own words if it has any. ``there``: whether there is such a tool."""

    text: str
    complaint: str = ""
    there: bool = True


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


def ask_tool(
    argv: Sequence[str], seconds: float = TOOL_S, *, is_data: Callable[[str], bool] = lambda line: False
) -> Answer:
    """What a tool prints, and what is wrong when it is not there, fails or is not done within ``seconds``.

    ``is_data``: whether a line of its output is of the answer, and no complaint.
    """
    name = argv[0]
    path = shutil.which(name) or shutil.which(name, path=":".join(_TOOL_PLACES))
    if path is None:
        return Answer("", f"there is no {name}", there=False)
    try:
        process = subprocess.Popen(
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=_environment(Path(path)),
        )
    except OSError as error:
        return Answer("", f"{name}: {error.strerror}")
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _abandon(process)
        return Answer("", f"{name} has not answered within {seconds:g} s")
    text = out[:_MOST_OUTPUT].decode(errors="replace")
    if not process.returncode:
        return Answer(text)
    errors = [line for line in err[:_MOST_OUTPUT].decode(errors="replace").splitlines() if line.strip()]
    if errors and errors[0].startswith("Traceback"):  # of a tool in Python: what was raised comes last
        errors = errors[-1:]
    told = [*errors, *(line for line in text.splitlines() if line.strip() and not is_data(line))]
    return Answer(text, f"{name}: {told[0].strip() if told else f'exit status {process.returncode}'}")


def _environment(tool: Path) -> dict[str, str]:
    """The agent's; for a tool of a driver's own folder, with the libraries beside it, after those named."""
    folder = tool.parent
    if str(folder) != "/usr/local/nvidia/bin" and not str(folder).startswith("/opt/rocm"):
        return dict(os.environ)
    own = [text] if (text := os.environ.get("LD_LIBRARY_PATH")) else []
    beside = [str(folder.with_name(name)) for name in ("lib64", "lib")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join([*own, *beside])}


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Kill a tool and what it started; one that the kernel holds fast is left to it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.2)
