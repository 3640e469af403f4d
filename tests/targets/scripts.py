"""Small stand-ins for the agent file: what a target does is the same whatever the file does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

#: Says what it was told and where it is, then ends.
TELLER = r"""
read -r line
echo "told $line"
echo "node ${SLURMD_NODENAME-} id ${SLURM_NODEID-} args $*" >&2
"""
#: Stays until TERM, and says so; its child is in its own process group. Slurm signals the processes of a task
#: one by one, children first: the first wait may end a moment before the signal is there.
STAYER = r"""
read -r line
trap 'echo "ended politely" >&2; exit 0' TERM
echo up >&2
sleep 1000 &
echo "child $!" >&2
wait
while :; do sleep 0.1; done
"""
#: Does not go for TERM.
STUBBORN = r"""
read -r line
trap '' TERM
echo up >&2
while :; do sleep 1; done
"""


def script(path: Path, body: str) -> Path:
    """An executable file of sh."""
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o700)
    return path


class Heard:
    """The words of a spawn; ``saw`` waits until so many lines fit."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def __call__(self, node: str, line: str) -> None:
        self.lines.append((node, line))
        self._news.set()

    def of(self, node: str) -> list[str]:
        return [line for who, line in self.lines if who == node]

    async def saw(self, fits: Callable[[str], bool], count: int, within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            while sum(fits(line) for _, line in self.lines) < count:
                self._news.clear()
                await self._news.wait()
