"""Nodes that are processes of this machine: agents ``local1..localN``, for laptops, tests and first runs.

Each agent has a session of its own and files for output, as agents of a cluster have: the death of the
controller does not reach it, and its own lease ends it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .addresses import LOOPBACK
from .base import Allocation, AllocationHealth, AllocationReport, Bootstrap, SpawnError, Words
from .environment import agent_environment
from .processes import exit_words, exited_within, signal_group, start_detached
from .words import Sayings, WordsFile, follow


def agent_argv(agent: Path, python: str, node: str, node_rank: int) -> tuple[str, ...]:
    """The command of one agent on this machine."""
    choice = ("--python", python) if python else ()
    return (str(agent), *choice, "run", "--node", node, "--node-rank", str(node_rank))


class LocalTarget:
    """This machine as a cluster of N nodes."""

    def __init__(self, nodes: int, *, agent_python: str = "", names: Sequence[str] = ()) -> None:
        self._names = tuple(names) or tuple(f"local{i}" for i in range(1, max(nodes, 1) + 1))
        self._python = agent_python

    def listen_addresses(self) -> tuple[str, ...]:
        """Loopback alone: no other machine has a reason to call."""
        return (LOOPBACK,)

    def allocation_argv(self) -> tuple[str, ...]:
        """Nothing is asked for."""
        return ()

    async def allocate(self) -> Allocation:
        """The nodes are always there."""
        return Allocation(job_id="", nodes=self._names, owned=False)

    async def spawn(
        self, allocation: Allocation, bootstrap: Bootstrap, agent: Path, launch_dir: Path, words: Words
    ) -> LocalSpawned:
        """Start one agent process per node. Raises SpawnError when one cannot be started, with none left."""
        sayings = Sayings(words, launch_dir)
        spawned = LocalSpawned(agent_argv(agent, self._python, allocation.nodes[0], 0), sayings)
        try:
            for rank, node in enumerate(allocation.nodes):
                argv = agent_argv(agent, self._python, node, rank)
                await spawned.add(node, argv, bootstrap.line(), launch_dir / f"agent-{node}.log")
        except OSError as error:
            await spawned.end(0.0)
            raise SpawnError(
                f"cannot start an agent on this machine: {agent}: {error.strerror}; is it whole?"
            ) from error
        except BaseException:
            await spawned.end(0.0)
            raise
        spawned.listen()
        return spawned

    async def report(self, allocation: Allocation) -> AllocationReport:
        """This machine runs."""
        return AllocationReport(AllocationHealth.RUNNING, "RUNNING", "")

    def give_back_argv(self, allocation: Allocation) -> tuple[str, ...]:
        """Nothing was taken, nothing has to be given back."""
        return ()

    async def release(self, allocation: Allocation) -> str:
        """Nothing to give back."""
        return ""


@dataclass(frozen=True, slots=True)
class LocalAgent:
    """One agent process and the file it prints to."""

    node: str
    process: asyncio.subprocess.Process
    file: WordsFile


class LocalSpawned:
    """Agents of this machine; the spawner is over when the last of them is."""

    def __init__(self, argv: tuple[str, ...], sayings: Sayings) -> None:
        self.argv = argv
        self._sayings = sayings
        self._agents: dict[str, LocalAgent] = {}
        self._follower: asyncio.Task[None] | None = None

    async def add(self, node: str, argv: Sequence[str], stdin: bytes, log: Path) -> None:
        """Start one more. Raises OSError."""
        env = agent_environment(os.environ)
        file = WordsFile(log, lambda line: self._sayings.hear(node, line))
        process = await start_detached(argv, stdin=stdin, out=log, err=log, env=env)
        self._agents[node] = LocalAgent(node, process, file)

    def listen(self) -> None:
        """Begin to hand on what the agents say, until all is over."""
        files = [agent.file for agent in self._agents.values()]
        self._follower = asyncio.create_task(follow(files), name="words of local agents")

    async def wait(self) -> tuple[int, str]:
        """Wait until every agent is over; the first status that is not 0, and which agents had one."""
        await asyncio.gather(*(agent.process.wait() for agent in self._agents.values()))
        await self._hear_out()
        statuses = {node: agent.process.returncode or 0 for node, agent in self._agents.items()}
        bad = {node: status for node, status in statuses.items() if status}
        words = ", ".join(f"{node}: {exit_words(status)}" for node, status in bad.items())
        return next(iter(bad.values()), 0), words

    async def inquire(self, nodes: Sequence[str]) -> None:
        """Nobody else knows more."""

    def reason(self, node: str) -> str:
        """How the node's agent ended, with the last line it printed; "" while it runs."""
        agent = self._agents.get(node)
        if agent is None or agent.process.returncode is None:
            return ""
        agent.file.finish()
        said = self._sayings.of(node)[-1:]
        return ": ".join([f"agent ended with {exit_words(agent.process.returncode)}", *said])

    async def end(self, grace_s: float) -> None:
        """TERM to each agent's process group, KILL after the grace; all are reaped."""
        agents = list(self._agents.values())
        try:
            if grace_s > 0:
                for agent in agents:
                    signal_group(agent.process, signal.SIGTERM)
                await asyncio.gather(*(exited_within(agent.process, grace_s) for agent in agents))
        finally:
            # What an agent left in its group goes with it, also when the agent itself is over.
            for agent in agents:
                signal_group(agent.process, signal.SIGKILL)
            await asyncio.gather(*(agent.process.wait() for agent in agents))
            await self._hear_out()

    async def _hear_out(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])
            self._follower = None
        for agent in self._agents.values():
            agent.file.finish()
