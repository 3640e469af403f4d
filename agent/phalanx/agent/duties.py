"""What each message makes the agent do: one table, and the plumbing around it.

Every request is answered. A handler that breaks in an unforeseen way answers with its error, so that the
controller never waits for a node that will not speak.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.agent import library
from phalanx.agent.blobs import BlobError
from phalanx.agent.cases import Cases
from phalanx.agent.evidence import Evidence
from phalanx.agent.exchange import CaseExchange
from phalanx.agent.facts.gather import gather
from phalanx.agent.pressure import QUOTA_BYTES, Pressure
from phalanx.agent.relay.place import cache_place
from phalanx.agent.runtimes.base import LibraryMissing, Runtime, RuntimeUnavailable
from phalanx.agent.runtimes.selection import runtime as make_runtime
from phalanx.agent.session import FENCED, Session, Work, owner_of, say
from phalanx.agent.workload import WorkloadServer
from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.messages import (
    BarrierFail,
    BarrierRelease,
    BlobChunks,
    BlobFetch,
    BlobHave,
    CaseClose,
    CaseClosed,
    CaseOpen,
    CaseOpened,
    Chunk,
    ChunkGet,
    ChunkRefused,
    Collect,
    Collected,
    Diagnose,
    Diagnosed,
    Engine,
    Fence,
    ImageQuery,
    ImageSeed,
    ImageSeeded,
    ImagesQuery,
    ImagesStatus,
    ImageStatus,
    ImageSync,
    KvReply,
    LayersQuery,
    LayersStatus,
    Leave,
    LogAck,
    Message,
    RelayOpen,
    RelayOpened,
    RuntimeOpen,
    RuntimeOpened,
    SeedLayers,
    StepStart,
    StepStop,
    SyncParents,
    SyncStop,
)
from phalanx.protocol.messages import Runtime as RuntimeKind
from phalanx.protocol.schema import as_words

if TYPE_CHECKING:
    from phalanx.agent.imaging import Imaging
    from phalanx.agent.runtimes.docker import DockerRuntime

NO_ENGINE = Engine("", "", "", "", "not asked yet")

Answer = Callable[[str], Message]


@dataclass(slots=True)
class Duties:
    """The duties of one session. ``quota``: bytes of a case's output that may wait on this node."""

    session: Session
    cache: Path
    quota: int = QUOTA_BYTES
    runtimes: dict[RuntimeKind, Runtime] = field(default_factory=dict)
    exchanges: dict[str, CaseExchange] = field(default_factory=dict)
    engine: Engine = NO_ENGINE
    opened: dict[RuntimeKind, Engine] = field(default_factory=dict)
    evidence: Evidence = field(init=False)
    _engine_busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    _imaging: Imaging | None = None

    def take_up(self) -> None:
        """Wire the session to these duties."""
        session = self.session
        session.handle, session.handle_bulk = self.handle, self.handle_bulk
        session.cases = Cases(
            owner=owner_of(session),
            base=session.base,
            send=session.send,
            spawn=session.spawn,
            logs=session.logs,
            blobs=session.blobs,
            runtime_of=self.runtime,
            serve_api=self._serve_api,
            stop_api=self._stop_api,
            data_cache=lambda: cache_place(os.environ, os.geteuid()),
            libraries=self.cache,
        )
        self.evidence = Evidence(session.cases.open.get, session.send, session.logs, session.blobs)

    def background(self) -> dict[str, Work]:
        """What goes on as long as the session does, by name."""
        session = self.session
        pressure = Pressure(session.logs, session.cases.pressed, session.notice, self.quota)
        return {"spool quotas": pressure.run(), "facts": self._report_facts()}

    def runtime(self, kind: RuntimeKind) -> Runtime:
        """The runtime of a kind, made once."""
        if kind not in self.runtimes:
            self.runtimes[kind] = make_runtime(kind, self.session.base.parent)
        return self.runtimes[kind]

    # --- dispatch

    def handle(self, message: Message) -> None:
        """A message on the control link."""
        simple = self._at_once(message)
        if simple is not None:
            self._do(simple, message)
            return
        work, answer = self._as_task(message)
        if work is not None:
            self.session.spawn(self._answered(work, answer), type(message).__name__)

    def _do(self, simple: Callable[[], object], message: Message) -> None:
        """Raises ProtocolError for what breaks the rules of the wire."""
        try:
            simple()
        except ProtocolError:
            raise
        except Exception as error:  # noqa: BLE001 - the messages behind this one were received: none may be lost
            words = f"internal error in the agent ({type(message).__name__}): {type(error).__name__}: {error}"
            say(words)
            self.session.notice(words)

    def _at_once(self, message: Message) -> Callable[[], object] | None:
        session = self.session
        match message:
            case LogAck():
                return lambda: session.logs.on_ack(message)
            case BlobChunks():
                return lambda: session.blobs.on_chunks(message)
            case StepStart():
                return lambda: session.cases.start_step(message)
            case BarrierRelease() if message.case in self.exchanges:
                return lambda: self.exchanges[message.case].on_release(message)
            case BarrierFail() if message.case in self.exchanges:
                return lambda: self.exchanges[message.case].on_fail(message)
            case KvReply():
                return lambda: self._on_kv_reply(message)
            case SyncParents():
                return lambda: self.imaging.change_parents(message)
            case SeedLayers():
                return lambda: self.imaging.seed_layers(message)
        return None

    def _on_kv_reply(self, message: KvReply) -> None:
        for exchange in self.exchanges.values():
            exchange.on_reply(message)

    def _as_task(self, message: Message) -> tuple[Coroutine[Any, Any, None] | None, Answer | None]:
        cases, session, evidence = self.session.cases, self.session, self.evidence
        match message:
            case CaseOpen():
                return cases.open_case(message), lambda w: CaseOpened(message.request, message.case, "", w)
            case CaseClose():
                return cases.close_case(message), lambda w: CaseClosed(message.request, message.case, w)
            case StepStop():
                return cases.stop_step(message), None
            case Diagnose():
                return evidence.diagnose(message), lambda w: Diagnosed(message.request, message.case, w)
            case Collect():
                return self.evidence.collect(message), lambda w: Collected(
                    message.request, message.case, 0, (w,)
                )
            case Leave():
                return session.leave(message.grace_s), None
            case Fence():
                return self._fenced(message), None
        return self._about_content(message)

    def _about_content(self, message: Message) -> tuple[Coroutine[Any, Any, None] | None, Answer | None]:
        match message:
            case BlobFetch():
                return self._fetch(message), lambda w: BlobHave(message.request, message.blob, w)
            case RuntimeOpen():
                return (
                    self._open_runtime(message),
                    lambda w: RuntimeOpened(message.request, False, w, self.engine),
                )
            case ImageQuery():
                return self.imaging.status(message), lambda w: self._no_image(message, w)
        return self._about_layers(message)

    def _about_layers(self, message: Message) -> tuple[Coroutine[Any, Any, None] | None, Answer | None]:
        match message:
            case LayersQuery():
                return self.imaging.query(message), lambda w: LayersStatus(
                    message.request, False, 0, (), False, 0, 0, w
                )
            case ImagesQuery():
                return self.imaging.inventory(message), lambda w: ImagesStatus(
                    message.request, (), 0, 0, 0, 0, w
                )
            case SyncStop():
                return self.imaging.stop(message), None
            case RelayOpen():
                return self.imaging.open_relay(message), lambda w: RelayOpened(message.request, 0, w)
            case ImageSeed():
                return self.imaging.seed(message), lambda w: ImageSeeded(
                    message.request, message.reference, b"", (), w
                )
            case ImageSync():
                return self.imaging.sync(message), lambda w: self._no_image(message, w)
        return None, None

    @property
    def imaging(self) -> Imaging:
        """What moves images; imported when one does."""
        if self._imaging is None:
            from phalanx.agent.imaging import Imaging

            self._imaging = Imaging(self.session, self._docker, self._engine_busy)
        return self._imaging

    def _docker(self) -> DockerRuntime:
        from phalanx.agent.runtimes.docker import DockerRuntime

        found = self.runtime(RuntimeKind.DOCKER)
        if not isinstance(found, DockerRuntime):
            raise RuntimeUnavailable("the docker runtime is not what it should be")
        return found

    async def _answered(self, work: Coroutine[Any, Any, None], answer: Answer | None) -> None:
        try:
            await work
        except (RuntimeUnavailable, BlobError) as error:
            words = as_words(str(error))
        except Exception as error:  # noqa: BLE001 - protects the run from a bug of one handler: it is answered
            words = as_words(f"internal error in the agent: {type(error).__name__}: {error}")
            say(words)
            self.session.notice(words)
        else:
            return
        if answer is not None:
            self.session.send(answer(words))

    def handle_bulk(self, message: Message) -> None:
        """A message on the bulk link."""
        blobs = self.session.blobs
        if isinstance(message, Chunk | ChunkRefused):
            if self._imaging is None or not self._imaging.takes(message):
                blobs.on_chunk(message)
        elif isinstance(message, ChunkGet):
            self.session.spawn(blobs.serve(message), "chunk")

    async def _fenced(self, message: Fence) -> None:
        say(f"fenced off: {message.reason}")
        self.session.end(FENCED)

    # --- content

    async def _fetch(self, message: BlobFetch) -> None:
        if (found := await asyncio.to_thread(library.kept, message.blob, self.cache)) is not None:
            self.session.blobs.held.setdefault(message.blob, found)
        await self.session.blobs.fetch(message)
        self.session.send(BlobHave(message.request, message.blob, ""))

    async def _open_runtime(self, message: RuntimeOpen) -> None:
        if (known := self.opened.get(message.runtime)) is not None:  # it is in use: opened once for all
            self.session.send(RuntimeOpened(message.request, False, "", known))
            return
        try:
            self.engine = self.opened[message.runtime] = await self._opened(message)
        except LibraryMissing:
            self.session.send(RuntimeOpened(message.request, True, "", self.engine))
            return
        self.session.send(RuntimeOpened(message.request, False, "", self.engine))
        self.session.spawn(self._sweep(message.runtime), "what earlier runs left")

    async def _opened(self, message: RuntimeOpen) -> Engine:
        """With this node's own client if it has one, else with the one that was sent or is kept.

        Raises LibraryMissing when that is not here, RuntimeUnavailable.
        """
        runtime = self.runtime(message.runtime)
        try:
            return await runtime.open(None)
        except LibraryMissing:
            bundle = self.session.blobs.held.get(message.library or b"")
            if bundle is None and message.library is not None:
                bundle = await asyncio.to_thread(library.kept, message.library, self.cache)
            if bundle is None:
                raise
        try:
            await asyncio.to_thread(library.add_library, bundle, self.cache)
            return await runtime.open(None)
        except LibraryMissing as error:
            raise RuntimeUnavailable("the engine's client was sent, and cannot be imported") from error
        except library.LibraryUnusable as error:
            raise RuntimeUnavailable(str(error)) from error

    async def _sweep(self, kind: RuntimeKind) -> None:
        try:
            removed = await self.runtime(kind).sweep()
        except (RuntimeUnavailable, OSError) as error:
            self.session.notice(f"cannot look for what earlier runs left: {error}")
            return
        for words in removed:
            self.session.notice(words)

    def _no_image(self, message: ImageQuery | ImageSync, error: str) -> ImageStatus:
        return ImageStatus(message.request, message.reference, "", as_words(error))

    # --- the workload's socket

    def _serve_api(self, case: CaseOpen, path: Path) -> object:
        exchange = CaseExchange(case.case, self.session.send, lambda: self.session.crowded)
        server = WorkloadServer.start(path, exchange, ranks=case.ranks, name=case.case)
        self.exchanges[case.case] = exchange
        return server

    def _stop_api(self, server: object) -> None:
        if isinstance(server, WorkloadServer):
            exchange = self.exchanges.pop(server.name, None)
            if exchange is not None:
                exchange.give_up("the case is over on this node")
            with contextlib.suppress(OSError):  # the files of the socket go with the case's folder
                server.stop()

    async def close(self) -> None:
        """End what moves images, and let go of the engines' clients."""
        if self._imaging is not None:
            await self._imaging.close()
        for runtime in self.runtimes.values():
            await runtime.close()

    # --- facts

    async def _report_facts(self) -> None:
        """What this node is."""
        self.session.send(await asyncio.to_thread(gather, self.session.base, self.engine))
