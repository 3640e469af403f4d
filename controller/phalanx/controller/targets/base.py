"""What a target is: where nodes come from, how an agent gets onto each, and how all of it is given back.

Each target is argv (lists of strings), parsers (pure functions of text) and a thin shell. The controller
knows only the names below.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from ..plan.model import Plan


@dataclass(frozen=True, slots=True)
class Allocation:
    """Nodes in the order of their node ranks. ``owned``: we asked for it, so we give it back."""

    job_id: str
    nodes: tuple[str, ...]
    owned: bool


class AllocationError(Exception):
    """There will be no nodes. The message is the scheduler's own words and the next step."""


class SpawnError(Exception):
    """The spawner itself could not be started."""


class AllocationHealth(Enum):
    """What the scheduler says of an allocation. UNKNOWN is never a verdict."""

    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AllocationReport:
    """One answer of the scheduler: its health, its own word for the state and why."""

    health: AllocationHealth
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What an agent must know to join. It goes over stdin as one JSON line, never in argv or environment.

    ``addresses``: where the controller listens, all to be tried. ``pin``: sha256 of its certificate (hex).
    ``secret``: the run's join secret (hex). ``agent_build``: sha256 of the agent file that was sent.
    ``give_back``: the command with which an agent whose controller was killed gives the allocation back.
    """

    run_id: str
    addresses: tuple[tuple[str, int], ...]
    pin: str
    secret: str
    agent_build: str
    join_timeout_s: float
    give_back: tuple[str, ...] = ()

    def line(self) -> bytes:
        """The line, newline included."""
        document = {
            "v": 1,
            "run_id": self.run_id,
            "addresses": [list(address) for address in self.addresses],
            "pin": self.pin,
            "secret": self.secret,
            "agent_build": self.agent_build,
            "join_timeout_s": self.join_timeout_s,
            "give_back": list(self.give_back),
        }
        return json.dumps(document).encode() + b"\n"


#: Called with (node or "", line) for each line that the spawner or a not yet joined agent prints.
Words = Callable[[str, str], None]


class Spawned(Protocol):
    """Agents that were started."""

    argv: tuple[str, ...]

    async def wait(self) -> tuple[int, str]:
        """Wait until the spawner is over; its exit status and last words."""

    def reason(self, node: str) -> str:
        """Why this node's agent is not there, as far as the spawner can tell; "" when it cannot."""

    async def end(self, grace_s: float) -> None:
        """End what is left of spawner and agents: politely, then for sure. Never leaves a process."""


class Target(Protocol):
    """Where nodes come from."""

    def listen_addresses(self) -> tuple[str, ...]:
        """Addresses of this machine on which the controller listens for these nodes."""

    def allocation_argv(self) -> tuple[str, ...]:
        """The command that asks for nodes, () when none is needed."""

    async def allocate(self) -> Allocation:
        """Get the nodes. Raises AllocationError."""

    async def spawn(
        self, allocation: Allocation, bootstrap: Bootstrap, agent: Path, launch_dir: Path, words: Words
    ) -> Spawned:
        """Start one agent per node. Returns when the spawner runs. Raises SpawnError."""

    async def report(self, allocation: Allocation) -> AllocationReport:
        """Ask the scheduler about the allocation. Never raises for scheduler trouble: UNKNOWN."""

    def give_back_argv(self, allocation: Allocation) -> tuple[str, ...]:
        """The command that gives an owned allocation back from one of its nodes; () when there is none."""

    async def release(self, allocation: Allocation) -> str:
        """Give an owned allocation back; "" or why that could not be done."""


TargetFactory = Callable[[Plan], Target]
