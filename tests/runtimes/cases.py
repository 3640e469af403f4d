"""A case on a runtime, with the few lines that every test of a runtime needs."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.agent.runtimes.base import CasePlaces, Ended, Owner, Place, Running, Runtime
from phalanx.protocol import messages
from phalanx.protocol.messages import CaseOpen, ContainerSpec, StepStart

IMAGE = "phx-test/busybox:1"


@dataclass
class Bench:
    """A runtime that is open, and the places that a test opens on it."""

    kind: messages.Runtime
    runtime: Runtime
    root: Path
    image: str = IMAGE
    opened: list[Place] = field(default_factory=list)
    numbers: Any = field(default_factory=itertools.count)

    @property
    def docker(self) -> bool:
        return self.kind is messages.Runtime.DOCKER

    def spec(self, **asked: Any) -> ContainerSpec:
        image = {"image": self.image} if self.docker else {}
        return ContainerSpec(runtime=self.kind, **{**image, **asked})

    def places(self, case: str = "case") -> CasePlaces:
        base = self.root / "cases" / case
        return CasePlaces(
            base, base / "work", base / "results", base / "spool", base / "sock" / "phalanx.sock"
        )

    def owner(self, lease_s: float = 60.0, **other: Any) -> Owner:
        values = {"run_id": "20260101-run-abcd", "node": "n1", "node_rank": 0, "incarnation": "cafe01"}
        return Owner(**{**values, "uid": 0, "lease_s": lease_s, **other})

    async def open(self, *, lease_s: float = 60.0, env: dict[str, str] | None = None, **spec: Any) -> Place:
        case = CaseOpen(1, "case", self.spec(**spec), (0, 1), 2, None, env or {})
        place = await self.runtime.open_case(case, self.places(), self.owner(lease_s))
        self.opened.append(place)
        return place

    def directory(self, who: str = "rank0") -> Path:
        return self.places().spool / f"step-{next(self.numbers)}" / who

    async def start(
        self,
        place: Place,
        *argv: str,
        rank: int = 0,
        env: dict[str, str] | None = None,
        step_env: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
    ) -> Running:
        step = StepStart("case", "main", argv, step_env or {}, secrets or {}, (rank,), 0.0)
        return await place.start(step, rank, env or {}, self.directory(f"rank{rank}"))

    async def run(self, place: Place, *argv: str, **asked: Any) -> tuple[Ended, str, str]:
        """Run a command to its end: how it ended, what it wrote."""
        running = await self.start(place, *argv, **asked)
        ended = await running.wait()
        return ended, text(running, "out"), text(running, "err")

    async def shell(self, place: Place, script: str, **asked: Any) -> tuple[Ended, str, str]:
        return await self.run(place, "sh", "-c", script, **asked)


def text(running: Running, name: str) -> str:
    try:
        return (running.directory / name).read_text(errors="replace")
    except FileNotFoundError:
        return ""


def running(command: str) -> bool:
    """True while a process of this machine has these words in its command line."""
    wanted = command.replace(" ", "\0").encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in entry.read_bytes() and entry.parent.name != str(os.getpid()):
                return True
        except OSError:
            continue
    return False
