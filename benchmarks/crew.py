"""Processes that play many agents each, and what a benchmark says to them: one JSON line there, one back.

They are started before any clock runs, so that no figure holds the start of an interpreter. All take times
from CLOCK_MONOTONIC, which processes of one machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parent.parent
#: No step of a benchmark takes nearly as long, in seconds.
PATIENCE_S = 120.0
_LINE_LIMIT = 16 * 1024 * 1024
#: Clock ticks of /proc/PID/stat in a second (proc(5)).
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """What was measured was not right, so it has no speed."""


class Worker:
    """One process that answers requests: ``python -m MODULE``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, module: str) -> Worker:
        """Start it and wait until it is ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=_LINE_LIMIT,
        )
        worker = cls(process)
        await worker.hear()
        return worker

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say something and wait for the answer."""
        if self._process.stdin is None:
            raise BenchmarkError("no way to speak to a worker")
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        """The next answer. Raises BenchmarkError when the worker is gone or says that it failed."""
        if self._process.stdout is None:
            raise BenchmarkError("no way to hear a worker")
        async with asyncio.timeout(PATIENCE_S):
            line = await self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "a worker has ended"}
        if "error" in answer:
            raise BenchmarkError(answer["error"])
        return answer

    def cpu_s(self) -> float:
        """CPU seconds that the process has used, in user and kernel mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_kb(self) -> int:
        """Resident memory of the process, in KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    async def end(self) -> None:
        """It ends when nobody speaks to it any more."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(10.0):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Crew:
    """Several workers of one kind among which numbers 0 .. count-1 are dealt out."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers

    @classmethod
    async def start(cls, module: str, size: int) -> Crew:
        """Start ``size`` workers."""
        return cls([await Worker.start(module) for _ in range(size)])

    def deal(self, count: int) -> list[list[int]]:
        """Each worker's numbers."""
        return [list(range(place, count, len(self.workers))) for place in range(len(self.workers))]

    async def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Say the same to all at once."""
        return list(await asyncio.gather(*(worker.ask(request) for worker in self.workers)))

    async def ask_each(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Say to each its own, all at once."""
        pairs = zip(self.workers, requests, strict=True)
        return list(await asyncio.gather(*(worker.ask(request) for worker, request in pairs)))

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            await worker.end()
