"""The agents' step: one srun for all nodes, in a session of its own, its output in files.

srun is never told to end while tasks run: on any signal it kills them at once, and agents would have no time
to end containers (seen on Slurm 22.05). The agents leave by the protocol; what is left gets TERM from
``scancel``, which only delivers the signal, then KILL. Only an srun without a step is ended itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from . import slurm_argv as argv
from .processes import exit_words, exited_within, signal_group
from .slurm_commands import CommandError, SlurmCommands
from .slurm_job import step_number
from .slurm_text import parse_nodes
from .slurm_words import NOISE, agent_ended, attribute, error_words, explain, failed_nodes
from .words import Sayings, WordsFile, follow

#: Seconds that slurmd has to kill the tasks and srun to notice, before srun itself is killed.
KILL_S = 5.0
#: Seconds for finding and signalling the step: an end must not hang on a slurmctld that does not answer.
ASK_S = 15.0
#: Pause between looks for a step whose srun is gone, in seconds.
LOOK_S = 0.5
#: Seconds for removing the agent file from the nodes at the end.
REMOVE_S = 5.0


@dataclass(frozen=True, slots=True)
class AgentsStep:
    """Which step is ours."""

    job_id: str
    run_id: str
    name: str
    nodes: tuple[str, ...]


class StepWords:
    """What srun and agents said, sorted by node."""

    def __init__(self, nodes: tuple[str, ...], sayings: Sayings) -> None:
        self._nodes = nodes
        self._sayings = sayings
        self.failed: dict[str, None] = {}

    def hear(self, line: str) -> None:
        """One line of srun's output."""
        if line.startswith(NOISE):
            return
        self.failed.update(dict.fromkeys(failed_nodes(line)))
        spoken = attribute(line, self._nodes)
        for node in spoken.nodes or ("",):
            self._sayings.hear(node, spoken.text)

    def reason(self, node: str) -> str:
        """Why the node's agent is not there, "" when nothing that was said explains it."""
        others = () if node in self.failed else tuple(self.failed)
        return explain(self._sayings.of(node), self._sayings.of(""), others)

    def last(self) -> str:
        """srun's last words about no node in particular."""
        lines = [line for line in self._sayings.of("") if line.startswith("srun: ")]
        return error_words("\n".join(lines)) if lines else ""


class SlurmSpawned:
    """Agents that one srun has started."""

    def __init__(
        self,
        command: tuple[str, ...],
        process: asyncio.subprocess.Process,
        commands: SlurmCommands,
        step: AgentsStep,
        words: StepWords,
        files: Sequence[WordsFile],
    ) -> None:
        self.argv = command
        self._process = process
        self._commands = commands
        self._step = step
        self._words = words
        self._files = files
        self._trouble: dict[str, str] = {}
        self._follower: asyncio.Task[None] | None = asyncio.create_task(follow(files), name="words of srun")

    async def wait(self) -> tuple[int, str]:
        """Wait until srun is over: its exit status (negative for a signal) and its last errors."""
        status = await self._process.wait()
        await self._hear_out()
        return status, "; ".join(
            part for part in (exit_words(status) if status else "", self._words.last()) if part
        )

    def reason(self, node: str) -> str:
        """Why the node's agent is not there: what was said of it, what that means, what Slurm thinks of
        it."""
        for file in self._files:
            file.read()
        words, trouble = self._words.reason(node), self._trouble.get(node, "")
        if not words and not trouble and self._process.returncode is not None:
            words = f"srun is over ({exit_words(self._process.returncode)}) and said nothing of this node"
        return "; ".join(part for part in (words, trouble) if part)

    def says_gone(self, line: str) -> bool:
        """Whether a line that was handed on says that its node's agent has ended."""
        return agent_ended(line)

    def failed_nodes(self) -> tuple[str, ...]:
        """Nodes on which srun could start nothing. It then ends all the others too: they need a new spawn."""
        return tuple(self._words.failed)

    async def inquire(self, nodes: Sequence[str]) -> None:
        """Ask Slurm what it thinks of these nodes, for ``reason``. Scheduler trouble adds nothing."""
        try:
            answer = await self._commands.ask(argv.show_nodes(nodes))
        except CommandError:
            return
        self._trouble.update({name: record.trouble() for name, record in parse_nodes(answer.out).items()})

    async def end(self, grace_s: float) -> None:
        """TERM to the agents that are left, KILL after the grace, then nothing of srun is left either."""
        try:
            # After a failed launch srun has killed all tasks itself; a dead slurmd takes long to ask.
            if self._process.returncode is None or not self._words.failed:
                await self._end_agents(grace_s)
        finally:
            signal_group(self._process, signal.SIGKILL)
            await self._process.wait()
            await self._hear_out()
        if self._process.returncode:
            await self._remove_agent_files()

    async def _end_agents(self, grace_s: float) -> None:
        # An srun that was killed may have left its tasks: the step is looked for with or without it.
        if grace_s > 0 and await self._signal_agents("TERM"):
            await self._gone_within(grace_s)
        if await self._signal_agents("KILL"):
            await self._gone_within(KILL_S)
        elif self._process.returncode is None:
            # It is over in this moment, or waits for a step that it has not got.
            signal_group(self._process, signal.SIGTERM)
            if not await exited_within(self._process, 1.0):
                await self._signal_agents("KILL")

    async def _remove_agent_files(self) -> None:
        """Where not every agent ended well, its file may be left on the node. Nothing depends on this."""
        step = self._step
        nodes = [node for node in step.nodes if node not in self._words.failed]
        if not nodes:
            return
        command = argv.remove_agent_files(job_id=step.job_id, nodes=nodes, run_id=step.run_id)
        with contextlib.suppress(CommandError, TimeoutError):
            async with asyncio.timeout(REMOVE_S):
                await self._commands.ask(command)

    async def _gone_within(self, seconds: float) -> None:
        """Wait for srun to be over, or for the step when srun is so already; at most so long."""
        if self._process.returncode is None:
            await exited_within(self._process, seconds)
            return
        with contextlib.suppress(TimeoutError, CommandError):
            async with asyncio.timeout(seconds):
                while True:
                    if not await step_number(self._commands, self._step.job_id, self._step.name):
                        return
                    await asyncio.sleep(LOOK_S)

    async def _signal_agents(self, number: str) -> bool:
        """Signal the tasks of our step; False when there is none, or Slurm cannot be asked."""
        try:
            async with asyncio.timeout(ASK_S):
                step = await step_number(self._commands, self._step.job_id, self._step.name)
                if step:
                    await self._commands.ask(argv.signal_step(step, number))
        except (CommandError, TimeoutError):
            return False
        return bool(step)

    async def _hear_out(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])
            self._follower = None
        for file in self._files:
            file.finish()
