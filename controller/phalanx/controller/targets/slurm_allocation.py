"""Getting nodes from Slurm: an allocation that is there, or one that salloc gets and phalanx gives back.

``salloc --no-shell`` leaves when the nodes are granted; the allocation then belongs to no process and
outlives the controller, so that a run can be taken up again after the controller's death. The price: if
nobody does, the nodes stay taken until the time limit (the agents' leases end all work on them long before).
So every way out of ``allocate`` without nodes gives the job back here, a request is withdrawn by the kernel's
signal when the controller dies while it waits, and the job carries the run's id as its comment: ``squeue -o
"%A %k"`` finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from . import slurm_argv as argv
from .base import Allocation, AllocationError, AllocationHealth
from .processes import exited_within, signal_group
from .slurm_commands import CommandError, SlurmCommands
from .slurm_job import give_back, jobs_of_run, queue_line
from .slurm_text import health_of, parse_job
from .slurm_words import error_words, granted_number, is_transient, job_number, reason_hint

#: Seconds between looks at a waiting job: sites ask that squeue is not polled faster.
QUEUE_POLL_S = 30.0
#: Seconds that salloc has to take its request back before it is killed.
WITHDRAW_S = 5.0

#: Told each new word about the request: lines of salloc, and squeue's state and reason when they change.
QueueWords = Callable[[str], None]
T = TypeVar("T")


async def use_existing(commands: SlurmCommands, job_id: str, wanted: int) -> Allocation:
    """The first ``wanted`` nodes of an allocation that is there (0: all). Raises AllocationError."""
    try:
        job = parse_job((await commands.ask(argv.show_job(job_id))).out)
        if job is None:
            raise AllocationError(
                f"cannot use job {job_id}: scontrol does not describe it; is it on this cluster?"
            )
        if health_of(job.state) is not AllocationHealth.RUNNING:
            why = f" ({job.reason})" if job.reason else ""
            raise AllocationError(f"cannot use job {job_id}: it is {job.state}{why}; use one that is RUNNING")
        names = (await commands.ask(argv.show_hostnames(job.node_list))).out.split()
    except CommandError as error:
        raise AllocationError(
            f"cannot use job {job_id}: {error.words}; is the allocation still there?"
        ) from error
    if wanted > len(names):
        raise AllocationError(
            f"cannot run on {wanted} nodes: job {job_id} has {len(names)} ({job.node_list}); "
            f"ask for {len(names)} or fewer"
        )
    return Allocation(job_id, tuple(names[: wanted or None]), owned=False)


class Request:
    """One request for nodes, from salloc's start to its grant, or to the certainty that nothing is left of
    it."""

    def __init__(
        self, commands: SlurmCommands, command: tuple[str, ...], run_id: str, words: QueueWords
    ) -> None:
        self._commands = commands
        self._command = command
        self._run_id = run_id
        self._words = words
        self._said: deque[str] = deque(maxlen=40)
        self._process: asyncio.subprocess.Process | None = None
        self.job_id = ""
        self.state = ""

    async def nodes(self, wanted: int, timeout_s: float) -> Allocation:
        """Wait for the nodes, at most so long (0: for ever). Raises AllocationError, with nothing left
        behind."""
        try:
            async with asyncio.timeout(timeout_s or None):
                await self._granted()
                found = await use_existing(self._commands, self.job_id, wanted)
        except TimeoutError as error:
            left = await surely(self._withdraw())
            raise AllocationError(self._too_late(wanted, timeout_s) + left) from error
        except BaseException as error:
            left = await surely(self._withdraw())
            if left and isinstance(error, AllocationError):
                raise AllocationError(f"{error}{left}") from error
            raise
        return Allocation(found.job_id, found.nodes, owned=True)

    async def _granted(self) -> None:
        pauses = iter(self._commands.pauses_s)
        while True:
            status = await self._salloc()
            if status == 0 and self.job_id:
                return
            words = "\n".join(self._said)
            pause = next(pauses, None) if is_transient(words) else None
            if pause is None:
                raise AllocationError(
                    f"cannot get nodes: {error_words(words)}; the request was: {' '.join(self._command)}"
                )
            # The answer was lost, perhaps not the request: what it left must go before another is made.
            left = await self._withdraw()
            if left:
                raise AllocationError(f"cannot get nodes: {error_words(words)}{left}")
            await asyncio.sleep(pause * self._commands.spread())

    async def _salloc(self) -> int:
        self._said.clear()
        self.job_id = ""
        tied = Path(__file__).with_name("tied.py")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(tied), str(os.getpid()), *self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=dict(self._commands.environ),
                start_new_session=True,
            )
        except OSError as error:
            raise AllocationError(
                f"cannot start salloc: {error.strerror}; is Slurm installed here?"
            ) from error
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch_queue(), name="state of the waiting job")
            status = await self._listen(self._process)
            watch.cancel()
        return status

    async def _listen(self, process: asyncio.subprocess.Process) -> int:
        if process.stderr is None:
            raise AssertionError("salloc was started without a pipe")
        while line := await process.stderr.readline():
            text = line.decode("utf-8", "replace").rstrip()
            self._said.append(text)
            self.job_id = granted_number(text) or self.job_id or job_number(text)
            if text:
                self._words(text)
        return await process.wait()

    async def _watch_queue(self) -> None:
        while True:
            await asyncio.sleep(QUEUE_POLL_S)
            with contextlib.suppress(CommandError):
                line = await queue_line(self._commands, self.job_id) if self.job_id else None
                if line is not None and line.words() != self.state:
                    self.state = line.words()
                    hint = reason_hint(line.reason)
                    self._words(f"job {self.job_id} is {self.state}" + (f": {hint}" if hint else ""))

    async def _withdraw(self) -> str:
        """End salloc and every job of this request; "" or what is left of it, as the end of a sentence."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            if not await exited_within(process, WITHDRAW_S):
                signal_group(process, signal.SIGKILL)
                await process.wait()
        try:
            jobs = {*([self.job_id] if self.job_id else []), *await jobs_of_run(self._commands, self._run_id)}
        except CommandError as error:
            jobs = {self.job_id} if self.job_id else set()
            if not jobs:
                return f"; whether a job is left is not known ({error.words}): look with squeue --me"
        errors = [await give_back(self._commands, job) for job in sorted(jobs)]
        return "".join(f"; {error}" for error in errors if error)

    def _too_late(self, wanted: int, timeout_s: float) -> str:
        last = self.state or next((line for line in reversed(self._said) if line), "salloc said nothing")
        return (
            f"cannot get {wanted} nodes within {timeout_s:g} s: {last}; "
            "wait longer with --allocation-timeout, or ask for fewer nodes or less time"
        )


async def surely(work: Awaitable[T]) -> T:
    """Finish this even when the caller is cancelled meanwhile; the cancellation then goes on."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await asyncio.wait([task])
        raise
