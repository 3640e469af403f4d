"""The door and the hub of a real controller, with a test's script behind them instead of an engine."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from phalanx.agent.bootstrap import Bootstrap
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.certificate import make_identity
from phalanx.controller.fleet.hub import Hub
from phalanx.controller.fleet.listener import accept_forever, listen
from phalanx.controller.fleet.roster import Roster
from phalanx.controller.plan.model import Timing
from phalanx.protocol import messages as m
from phalanx.protocol.blob import make_manifest
from phalanx.protocol.logstream import CREDIT, LogReceiver

RUN = "20260101-demo-7f3a"
SECRET = b"s" * 32
BUILD = "b" * 64
NODE = "n1"

M = TypeVar("M", bound=m.Message)


@dataclass
class Log:
    """A stream as it came: its bytes are hashed, and kept while they are few."""

    opening: m.LogOpen
    receiver: LogReceiver = field(default_factory=LogReceiver)
    data: bytearray = field(default_factory=bytearray)
    digest: Any = field(default_factory=hashlib.sha256)
    gaps: list[m.LogGap] = field(default_factory=list)
    whole: asyncio.Event = field(default_factory=asyncio.Event)


class Controller:
    """One node is expected. ``acking``: whether logs are acknowledged; ``keep``: whether they are kept."""

    def __init__(self, timing: Timing | None = None, addresses: tuple[str, ...] = ("127.0.0.1",)) -> None:
        self.timing = timing or Timing(heartbeat_s=0.2, dead_after_s=2.0, lease_s=5.0)
        self.identity = make_identity(RUN)
        self.events: list[ev.Event] = []
        self.roster = Roster()
        self.roster.expect((NODE,))
        self.hub = Hub(
            RUN, SECRET, self.identity.fingerprint, BUILD, self.timing, self._record, self.roster.seat
        )
        self.said: list[m.Message] = []
        self.logs: dict[int, Log] = {}
        self.acking = True
        self.keep = True
        self.blobs: dict[bytes, bytes] = {}
        self.spoil: dict[int, bytes] = {}
        self._queues: dict[type[m.Message], asyncio.Queue[m.Message]] = defaultdict(asyncio.Queue)
        self._listener = listen(addresses)
        self._tasks: list[asyncio.Task[Any]] = []
        self.hub.take([kind for kind in m.MESSAGES.values() if kind.DIRECTION is not m.C], self._take)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        return self._listener.addresses

    def bootstrap(self, *addresses: tuple[str, int], **other: Any) -> Bootstrap:
        values = {"run_id": RUN, "addresses": addresses or self.addresses, "secret": SECRET}
        values |= {"pin": self.identity.fingerprint, "agent_build": BUILD, "join_timeout_s": 5.0}
        return Bootstrap(**{**values, **other})

    async def __aenter__(self) -> Controller:
        for sock in self._listener.sockets:
            work = accept_forever(sock, self.identity.context, self.hub.make_session)
            self._tasks.append(asyncio.create_task(work))
        self._tasks.append(asyncio.create_task(self.hub.keep_time()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hub.close()
        await self.vanish()

    async def vanish(self) -> None:
        """Nobody listens any more, and no connection is left."""
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.hub.peers.values():
            for session in (peer.control, peer.bulk):
                if session is not None:
                    session.drop("the controller is gone")

    # --- what agents say

    def _record(self, event: ev.Event) -> None:
        self.events.append(event)
        self.roster.apply(event)

    def _take(self, node: str, message: m.Message) -> None:
        match message:
            case m.LogOpen():
                self.logs.setdefault(message.stream, Log(message))
                self.ack(message.stream)
            case m.LogData() | m.LogGap() | m.LogEnd():
                self._log(self.logs[message.stream], message)
                return
            case m.ChunkGet():
                self._serve(node, message)
                return
            case m.Left():
                self.hub.heard_left(node)
        self.said.append(message)
        self._queues[type(message)].put_nowait(message)

    def _log(self, log: Log, message: m.Message) -> None:
        match message:
            case m.LogData():
                fresh = bytes(log.receiver.on_data(message.offset, message.payload))
                log.digest.update(fresh)
                if self.keep:
                    log.data += fresh
            case m.LogGap():
                if log.receiver.on_gap(message.offset, message.length):
                    log.gaps.append(message)
            case m.LogEnd():
                log.receiver.on_end(message.length)
        self.ack(log.opening.stream)

    def ack(self, stream: int) -> None:
        """What came of a stream is on disk, if acks are given."""
        log = self.logs[stream]
        if self.acking:
            log.receiver.synced(log.receiver.received)
            self.tell(m.LogAck(stream, log.receiver.durable, CREDIT))
            if log.receiver.complete:
                log.whole.set()

    def ack_all(self) -> None:
        """From now on everything is acknowledged."""
        self.acking = True
        for stream in self.logs:
            self.ack(stream)

    def log(self, step: str, output: str = "out", rank: int = -1) -> Log:
        """The stream of that name."""
        for log in self.logs.values():
            opening = log.opening
            if (opening.step, opening.output, opening.rank) == (step, output, rank):
                return log
        raise KeyError(step)

    async def whole(self, step: str, output: str = "out", rank: int = -1) -> bytes:
        """All that a process wrote, once it is here."""
        log = self.log(step, output, rank)
        await asyncio.wait_for(log.whole.wait(), 20)
        return bytes(log.data)

    async def heard(self, kind: type[M]) -> M:
        """The next message of a kind."""
        message = await asyncio.wait_for(self._queues[kind].get(), 20)
        assert isinstance(message, kind)
        return message

    # --- what agents are told

    def tell(self, message: m.Message) -> None:
        self.hub.tell([NODE], message)

    def cut(self) -> None:
        """Break every connection of the node."""
        peer = self.hub.peers[NODE]
        for session in (peer.control, peer.bulk):
            if session is not None:
                session.drop("a test cuts it")

    def ship(self, content: bytes, request: int = 1) -> bytes:
        """Have the node fetch a blob; its digest."""
        chunks = [content[i : i + m.CHUNK_BYTES] for i in range(0, len(content), m.CHUNK_BYTES)]
        manifest = make_manifest(chunks)
        self.blobs[manifest.blob] = content
        for page in manifest.pages():
            self.tell(page)
        self.tell(m.BlobFetch(request, manifest.blob, manifest.size))
        return manifest.blob

    def _serve(self, node: str, wanted: m.ChunkGet) -> None:
        start = wanted.index * m.CHUNK_BYTES
        payload = self.blobs[wanted.blob][start : start + m.CHUNK_BYTES]
        payload = self.spoil.pop(wanted.index, payload)
        self.hub.tell_bulk(node, m.Chunk(wanted.blob, wanted.index, payload=payload))

    async def open_case(
        self, case: str = "demo", *, ranks: tuple[int, ...] = (0,), **spec: Any
    ) -> m.CaseOpened:
        self.tell(m.CaseOpen(7, case, m.ContainerSpec(m.Runtime.PROCESS, **spec), ranks, len(ranks), None))
        return await self.heard(m.CaseOpened)

    def start(self, step: str, *argv: str, case: str = "demo", **other: Any) -> None:
        values = {"env": {}, "secrets": {}, "ranks": (), "deadline_s": 0.0}
        self.tell(m.StepStart(case, step, argv, **{**values, **other}))

    def shell(self, step: str, script: str, **other: Any) -> None:
        self.start(step, "sh", "-c", script, **other)

    async def leave(self) -> m.Left:
        self.tell(m.Leave("the test is over", 0.0))
        return await self.heard(m.Left)
