"""A control server on a real unix socket, with a real event log and log store behind it and no fleet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
from phalanx.controller.control.server import ControlServer, Watchers
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.chronicle import Chronicle
from phalanx.controller.fleet.conductor import Conductor
from phalanx.controller.fleet.engine import Engine
from phalanx.controller.fleet.journal import Journal
from phalanx.controller.fleet.states import CasePhase, Phase
from phalanx.controller.logs.paths import StreamName
from phalanx.controller.logs.store import LogStore
from phalanx.protocol.membership import Member
from phalanx.protocol.messages import Cause, Message, StepExited, StepStart

from tests.fleet.world import make_plan


class Hub:
    """Keeps what nodes are told."""

    def __init__(self) -> None:
        self.told: list[tuple[tuple[str, ...], Message]] = []

    def tell(self, nodes: Any, message: Message) -> None:
        self.told.append((tuple(nodes), message))

    def last_heard(self, node: str) -> float:
        return 0.5

    def clock_offset(self, node: str) -> float:
        return 0.0


class Desk:
    """What the server needs of a conductor."""

    def __init__(self, run_dir: Path, socket: Path) -> None:
        self.run_dir, self.socket = run_dir, socket
        self.watchers = Watchers()
        self.engine = Engine(make_plan(2))
        self.engine.roster.expect(("n0", "n1"))
        for record in self.engine.roster.nodes.values():
            record.state = Member.JOINED
        self.engine.phase = Phase.RUNNING
        self.run_case("case0")
        self.store = LogStore(run_dir, single_case=True, ack=lambda *told: None, ended=lambda stream: None)
        self.hub = Hub()
        self.intake = SimpleNamespace(on_exec_exit=None)
        self.cancels: list[tuple[int, str]] = []
        self.wanted: list[tuple[str, str, tuple[str, ...]]] = []
        self.called_off: list[int] = []
        self.chronicle = Chronicle(
            Journal(run_dir / "events.jsonl", "run"), lambda recorded: None, self.watchers.publish
        )
        self.server = ControlServer(cast(Conductor, self), self.watchers)

    def run_case(self, name: str, nodes: tuple[str, ...] = ("n0", "n1")) -> None:
        """A case of this name is running on these nodes."""
        self.engine.cases.flows[name] = cast(Any, SimpleNamespace(phase=CasePhase.STEPPING, here=nodes))

    def bring(self, reference: str, archive: str, nodes: tuple[str, ...]) -> int:
        self.wanted.append((reference, archive, nodes))
        return 2

    def call_off(self, request: int) -> None:
        self.called_off.append(request)

    def cancel(self, level: int, by: str) -> None:
        self.cancels.append((level, by))

    def http(self) -> aiohttp.ClientSession:
        """A client on the socket."""
        return aiohttp.ClientSession("http://run", connector=aiohttp.UnixConnector(path=str(self.socket)))

    async def record(self, count: int) -> None:
        """Record events one after another, letting others run in between."""
        for number in range(count):
            self.chronicle.record(ev.AgentNotice("n0", f"number {number}"))
            await asyncio.sleep(0)

    async def step(self) -> StepStart:
        """The command that nodes were told to run."""
        async with asyncio.timeout(10):
            while not self.hub.told:
                await asyncio.sleep(0)
        message = self.hub.told[0][1]
        assert isinstance(message, StepStart)
        return message

    async def write(self, start: StepStart, node: str, text: bytes) -> None:
        """A node's output of the command is on disk, whole."""
        stream = self.store.open(StreamName(node, start.case, start.step, -1, "out"))
        self.store.data(stream, 0, 1.0, text)
        self.store.end(stream, len(text))
        await self.store.sync()

    def exit(self, start: StepStart, node: str, status: int) -> None:
        """The command is over on a node."""
        self.intake.on_exec_exit(node, StepExited(start.case, start.step, -1, status, Cause.EXITED, 0.1))


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    """A server that listens."""
    one = Desk(folder, folder / "s")
    await one.server.start(one.socket)
    writing = asyncio.create_task(one.chronicle.keep_writing())
    try:
        yield one
    finally:
        writing.cancel()
        await asyncio.wait([writing])
        await one.server.close()
        await one.store.close()
        await one.chronicle.close()
