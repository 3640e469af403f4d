"""What the agent's session knows of a runtime, and nothing more.

A runtime makes a *place* for each case; steps run in the place, each process of a step being a *running*. All
of their output goes to files, so that neither an engine nor an agent has to live for a byte to be kept.
Whatever a place holds is under a lease: when it is not renewed, everything in the place ends, agent or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from phalanx.agent.lease import Lease
from phalanx.protocol.messages import CaseOpen, Cause, Engine, StepStart


class RuntimeUnavailable(Exception):
    """The runtime cannot do what was asked; the message says what, why and what to do next."""


class LibraryMissing(RuntimeUnavailable):
    """The engine's client library is not importable on this node: ``open`` again with the library."""


class ImageError(RuntimeUnavailable):
    """An image could not be loaded, exported or verified; the message keeps the engine's own words."""


@dataclass(frozen=True, slots=True)
class CasePlaces:
    """Paths of a case on this node. What is missing of the directories is made, with mode 0700."""

    base: Path
    work: Path
    results: Path
    spool: Path
    socket: Path


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a place is. ``lease_s``: how long it holds from its opening without a renewal, in seconds."""

    run_id: str
    node: str
    node_rank: int
    incarnation: str
    uid: int
    lease_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process of a step ended: ``status`` as a shell gives it (128+n for signal n), seconds it ran."""

    status: int
    cause: Cause
    seconds: float
    detail: str


class Running(Protocol):
    """One process of a step. Its output is in the files ``out`` and ``err`` of ``directory``."""

    directory: Path

    async def wait(self) -> Ended:
        """How it ended, once it has and all that it wrote is in the files. Never raises for a failed step."""

    async def stop(self, grace_s: float) -> None:
        """TERM to all processes of the step, KILL after ``grace_s`` seconds to what is left (0: at once).

        Raises RuntimeUnavailable when some cannot be ended. ``wait`` then says Cause.STOPPED.
        """


class Place(Protocol):
    """A case on this node. ``container`` is the engine's name for it, "" where there is no engine."""

    container: str
    lease: Lease

    async def start(self, step: StepStart, rank: int, env: dict[str, str], directory: Path) -> Running:
        """Start the step's command for a rank (-1: for the node) with its spool ``directory``.

        The environment is the case's, then the step's, then ``env``, then the step's secrets. What keeps a
        command from starting is no exception but an ``Ended`` with Cause.NOT_STARTED or Cause.ENGINE.
        """

    def inside(self, path: Path) -> str:
        """The path under which the workload sees a file of the node."""

    async def pause(self) -> None:
        """Let every process of the place stand still; again, to catch those who came late.

        It stays under its lease, and can be stopped and closed: what is to end goes on for that. Raises
        RuntimeUnavailable or OSError.
        """

    async def resume(self) -> None:
        """Let them go on."""

    async def diagnose(self) -> str:
        """Processes, sockets, memory, OOM lines, ends of output and of logs: at most 384 KiB of text."""

    async def close(self, grace_s: float) -> None:
        """End everything in the place. Raises RuntimeUnavailable naming what is left."""


class Runtime(Protocol):
    """What a workload runs in."""

    async def open(self, library: Path | None) -> Engine:
        """Make ready; ``library`` is a directory or zip with the engine's client.

        Raises LibraryMissing when the client is needed and nowhere to be found, RuntimeUnavailable otherwise.
        """

    async def image_id(self, reference: str) -> str:
        """The id under which the engine has the image, "" when it has none."""

    async def open_case(self, case: CaseOpen, places: CasePlaces, owner: Owner) -> Place:
        """Make the place of a case, holding for ``owner.lease_s`` seconds. Raises RuntimeUnavailable."""

    async def sweep(self) -> list[str]:
        """Remove what is ours (same uid) and over: words for each thing removed."""

    async def close(self) -> None:
        """Let go of the engine's client. Places are not ended by it."""
