"""Starting processes that outlive the controller, with the bootstrap line on their stdin.

They get a session of their own, so that a closed terminal does not reach them, and files for output, so that
no broken pipe kills them. The bootstrap line waits in the pipe's buffer before the process is there: nothing
has to be written afterwards, and no process that reads slowly, or never, can hold the controller up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: A pipe holds 64 KiB on Linux (pipe(7)), 4 KiB when the user has very many of them.
STDIN_LIMIT = 4096


@contextlib.contextmanager
def stdin_holding(line: bytes) -> Iterator[int]:
    """A descriptor that reads the line and then end of file. Raises ValueError when it is too long for a
    pipe."""
    if len(line) > STDIN_LIMIT:
        raise ValueError(f"cannot hand {len(line)} bytes to a process: its stdin takes {STDIN_LIMIT}")
    reading, writing = os.pipe()
    try:
        try:
            os.write(writing, line)
        finally:
            os.close(writing)
        yield reading
    finally:
        os.close(reading)


async def start_detached(
    argv: Sequence[str], *, stdin: bytes, out: Path, err: Path, env: Mapping[str, str], folder: str = "/"
) -> asyncio.subprocess.Process:
    """Start a process in its own session; ``out`` and ``err`` may be one file. Raises OSError."""
    with contextlib.ExitStack() as opened:
        reading = opened.enter_context(stdin_holding(stdin))
        out_fd = _append(opened, out)
        err_fd = out_fd if err == out else _append(opened, err)
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=reading,
            stdout=out_fd,
            stderr=err_fd,
            env=dict(env),
            cwd=folder,
            start_new_session=True,
        )


def signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal a detached process and what it started in its own group; gone is fine.

    When the process itself is over and reaped, its number names its group as long as that has members; a
    process that has the number now shows that the group is empty and the number is someone else's.
    """
    if process.returncode is not None and Path(f"/proc/{process.pid}").exists():
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def exited_within(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Wait for a process to be over, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        return False
    return True


def exit_words(status: int) -> str:
    """An exit status of asyncio in words: "exit status 3", "killed by SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _append(opened: contextlib.ExitStack, path: Path) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    opened.callback(os.close, descriptor)
    return descriptor
