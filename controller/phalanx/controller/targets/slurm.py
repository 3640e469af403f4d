"""Nodes from Slurm: allocate with salloc (or use the allocation we are in), spawn with one srun, give back.

The commands are in ``slurm_argv``, what they print is read in ``slurm_text`` and ``slurm_words``; here they
are put in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..plan.model import Plan
from . import slurm_argv as argv
from .addresses import listen_addresses, machine_interfaces
from .base import Allocation, AllocationReport, Bootstrap, SpawnError, Words
from .environment import agent_names
from .processes import start_detached
from .slurm_allocation import QueueWords, Request, use_existing
from .slurm_commands import SlurmCommands
from .slurm_job import give_back, report
from .slurm_step import AgentsStep, SlurmSpawned, StepWords
from .words import Sayings, WordsFile


def _unheard(line: str) -> None:
    """For callers that do not ask for the words of the queue."""


class SlurmTarget:
    """A Slurm cluster, as the options of the plan name it."""

    def __init__(
        self,
        plan: Plan,
        *,
        queue_words: QueueWords | None = None,
        commands: Callable[[], SlurmCommands] = SlurmCommands.here,
    ) -> None:
        self._plan = plan
        self._target = plan.target
        self._queue_words = queue_words or _unheard
        self._commands = commands()
        self._spawns = 0

    def listen_addresses(self) -> tuple[str, ...]:
        """All addresses that nodes may reach, or those of --advertise. Raises AddressError (an
        AllocationError)."""
        return listen_addresses(machine_interfaces(), self._target.advertise)

    def allocation_argv(self) -> tuple[str, ...]:
        """The salloc that asks for nodes, () when an allocation is used that is there already."""
        if self._target.slurm.job_id:
            return ()
        return argv.salloc(
            self._target.slurm, nodes=self._target.nodes, name=self._plan.name, run_id=self._plan.run_id
        )

    async def allocate(self) -> Allocation:
        """Get the nodes, or wait for them in the queue. Raises AllocationError. Cancelled, it leaves no
        job."""
        command = self.allocation_argv()
        if not command:
            return await use_existing(self._commands, self._target.slurm.job_id, self._target.nodes)
        request = Request(self._commands, command, self._plan.run_id, self._queue_words)
        return await request.nodes(self._target.nodes, self._plan.timing.allocation_timeout_s)

    async def spawn(
        self, allocation: Allocation, bootstrap: Bootstrap, agent: Path, launch_dir: Path, words: Words
    ) -> SlurmSpawned:
        """Start one agent per node with one srun; its output is in launch_dir/srun.out and .err.

        Raises SpawnError. A second spawn of a run, over fewer nodes, appends to the same files.
        """
        if not os.access(agent, os.X_OK):
            raise SpawnError(
                f"cannot start agents: {agent} is not an executable file; is the installation whole?"
            )
        self._spawns += 1
        command = argv.agents_step(
            self._target.slurm,
            job_id=allocation.job_id,
            nodes=allocation.nodes,
            run_id=bootstrap.run_id,
            agent=agent,
            python=self._target.agent_python,
            export=agent_names(os.environ),
            spawn=self._spawns,
        )
        out, err = launch_dir / "srun.out", launch_dir / "srun.err"
        said = StepWords(allocation.nodes, Sayings(words, launch_dir))
        files = [WordsFile(out, said.hear), WordsFile(err, said.hear)]
        try:
            process = await start_detached(
                command, stdin=bootstrap.line(), out=out, err=err, env=self._commands.environ
            )
        except OSError as error:
            raise SpawnError(f"cannot start srun: {error.strerror}; is Slurm installed here?") from error
        step = AgentsStep(
            allocation.job_id,
            bootstrap.run_id,
            argv.step_name(bootstrap.run_id, self._spawns),
            allocation.nodes,
        )
        return SlurmSpawned(command, process, self._commands, step, said, files)

    async def report(self, allocation: Allocation) -> AllocationReport:
        """Ask Slurm once about the allocation; UNKNOWN with its words when it cannot be asked."""
        return await report(self._commands, allocation.job_id)

    def give_back_argv(self, allocation: Allocation) -> tuple[str, ...]:
        """What an agent runs when its controller was killed: the job would stay until its time limit."""
        return ("scancel", allocation.job_id) if allocation.owned else ()

    async def release(self, allocation: Allocation) -> str:
        """Cancel an owned allocation and see it gone; "" or why that is not sure."""
        return await give_back(self._commands, allocation.job_id) if allocation.owned else ""
