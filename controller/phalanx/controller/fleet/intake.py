"""What agents say, turned into events and handed to whoever keeps that kind of thing. It decides nothing.

A node speaks for itself only: what it says about ranks that are not its own is dropped and counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from phalanx.protocol import messages as m
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.logstream import CREDIT

from ..logs.paths import StreamName
from ..logs.store import LogStore, StoredStream
from .events import (
    AgentDraining,
    AgentFacts,
    AgentLeft,
    AgentNotice,
    CaseClosedOn,
    CaseCollectedOn,
    CaseDiagnosedOn,
    CaseOpenedOn,
    Event,
    ImageOnNode,
    ImagesOnNode,
    RankExited,
    RankMetric,
    RankReady,
    RankStarted,
    RuntimeOnNode,
)
from .exchange import CaseExchange, Reply
from .hub import Hub
from .pulling import Pulling
from .shipping import Shipping

#: Log streams that one node may open: names come from steps, numbers from ranks.
MOST_STREAMS = 65536

Spawn = Callable[..., object]


@dataclass(slots=True)
class Intake:
    """Takes every message of a welcomed agent."""

    hub: Hub
    record: Callable[[Event], None]
    store: LogStore
    shipping: Shipping
    pulling: Pulling
    spawn: Spawn
    #: of the cases that run, by name
    exchanges: dict[str, CaseExchange] = field(default_factory=dict)
    on_exec_exit: Callable[[str, m.StepExited], None] = lambda node, message: None
    dropped: int = 0
    _streams: dict[tuple[str, int], StoredStream] = field(default_factory=dict)
    _opened: Counter[str] = field(default_factory=Counter)
    _numbers: dict[StreamName, int] = field(default_factory=dict)

    def connect(self) -> None:
        """Take messages of the hub from now on."""
        for kind, handler in self._table().items():
            self.hub.take([kind], handler)
        self.hub.on_bulk = self.pulling.bulk_is_up

    def _table(self) -> dict[type[m.Message], Callable[[str, m.Message], None]]:
        take_offer = self.pulling.on_offer
        return {
            m.BlobHave: self.shipping.on_have,
            m.FetchProgress: self.shipping.on_progress,
            m.ChunkGet: lambda node, message: self.shipping.on_chunk_get(node, message, self.spawn),
            m.BlobChunks: self.pulling.on_chunks,
            m.Chunk: self.pulling.on_chunk,
            m.ChunkRefused: self.pulling.on_refused,
            m.FileOffer: lambda node, message: take_offer(node, message, self.spawn),
            m.Collected: self._on_collected,
            m.Left: self._on_left,
            m.StepStarted: self._on_step_started,
            m.StepExited: self._on_step_exited,
            m.WorkloadReady: self._on_rank_word,
            m.WorkloadMetric: self._on_rank_word,
            m.BarrierEnter: self._on_exchange,
            m.KvPut: self._on_exchange,
            m.KvGet: self._on_exchange,
            m.LogOpen: self._on_log_open,
            m.LogData: self._on_log_data,
            m.LogGap: self._on_log_gap,
            m.LogEnd: self._on_log_end,
            **dict.fromkeys(_PLAIN, self._on_plain),
        }

    # --- messages that are events as they are

    def _on_plain(self, node: str, message: m.Message) -> None:
        self.record(_PLAIN[type(message)](node, message))

    def _on_left(self, node: str, message: m.Message) -> None:
        if isinstance(message, m.Left):
            self.hub.heard_left(node)
            self.record(AgentLeft(node, message.leftovers))

    def _on_collected(self, node: str, message: m.Message) -> None:
        if isinstance(message, m.Collected):
            event = CaseCollectedOn(message.case, node, message.files, message.left_out)
            self.pulling.after_offers(node, lambda: self.record(event), self.spawn)

    def _on_rank_word(self, node: str, message: m.Message) -> None:
        """Readiness and numbers of a rank, from the node that has it."""
        if isinstance(message, m.WorkloadReady) and self._owns(node, message.case, message.rank):
            self.record(RankReady(message.case, message.rank))
        elif isinstance(message, m.WorkloadMetric) and self._owns(node, message.case, message.rank):
            self.record(RankMetric(message.case, message.rank, message.name, message.value, message.unit))

    # --- steps and what ranks exchange

    def _owns(self, node: str, case: str, rank: int) -> bool:
        """Whether a node may speak for a rank of a case that runs."""
        if rank == m.NODE_LEVEL:
            return True
        exchange = self.exchanges.get(case)
        if exchange is not None and exchange.node_of.get(rank) == node:
            return True
        self.dropped += 1
        return False

    def _on_step_started(self, node: str, message: m.Message) -> None:
        if isinstance(message, m.StepStarted) and self._owns(node, message.case, message.rank):
            self.record(RankStarted(message.case, message.step, node, message.rank))

    def _on_step_exited(self, node: str, message: m.Message) -> None:
        if not isinstance(message, m.StepExited) or not self._owns(node, message.case, message.rank):
            return
        self.record(
            RankExited(
                message.case,
                message.step,
                node,
                message.rank,
                message.status,
                message.cause.value,
                message.seconds,
                message.detail,
            )
        )
        self.on_exec_exit(node, message)

    def ranks_gone(self, case: str, ranks: list[int], reason: str) -> None:
        """Ranks of a case are over: its barriers that wait for them fail."""
        exchange = self.exchanges.get(case)
        if exchange is not None:
            self._reply(exchange, exchange.leave(ranks, reason))

    def node_gone(self, node: str) -> None:
        """A node is lost with its ranks of every case."""
        for case, exchange in self.exchanges.items():
            self.ranks_gone(case, exchange.ranks_on(node), f"{node} was lost")

    def _on_exchange(self, node: str, message: m.Message) -> None:
        exchange = self.exchanges.get(getattr(message, "case", ""))
        if exchange is None:
            self._refuse_exchange(node, message)
        elif isinstance(message, m.BarrierEnter):
            self._reply(exchange, exchange.enter(node, message))
        elif isinstance(message, m.KvPut):
            self._reply(exchange, exchange.put(node, message))
        elif isinstance(message, m.KvGet):
            self._reply(exchange, exchange.get(node, message))

    def _refuse_exchange(self, node: str, message: m.Message) -> None:
        words = "the case is over"
        if isinstance(message, m.BarrierEnter):
            fail = m.BarrierFail(message.case, message.name, message.generation, words)
            self.hub.tell([node], fail)
        elif isinstance(message, m.KvPut | m.KvGet):
            self.hub.tell([node], m.KvReply(message.request, None, words))

    def _reply(self, exchange: CaseExchange, replies: list[Reply]) -> None:
        for reply in replies:
            self.hub.tell(reply.nodes, reply.message)
        for event in exchange.take_events():
            self.record(event)

    # --- logs

    def _on_log_open(self, node: str, message: m.Message) -> None:
        if not isinstance(message, m.LogOpen):
            return
        if (node, message.stream) not in self._streams:
            self._opened[node] += 1
        if self._opened[node] > MOST_STREAMS:
            raise RemoteError(f"more than {MOST_STREAMS} log streams")
        name = StreamName(node, message.case, message.step, message.rank, message.output)
        self._numbers[name] = message.stream
        stream = self._streams[(node, message.stream)] = self.store.open(name)
        self.ack(name, stream.receiver.durable, CREDIT)

    def ack(self, name: StreamName, offset: int, credit: int) -> None:
        """Bytes before ``offset`` are on disk."""
        number = self._numbers.get(name)
        if number is not None:
            self.hub.tell([name.node], m.LogAck(number, offset, credit))

    def _on_log_data(self, node: str, message: m.Message) -> None:
        stream = self._streams.get((node, getattr(message, "stream", -1)))
        if isinstance(message, m.LogData) and stream is not None:
            self.store.data(stream, message.offset, message.at, message.payload)

    def _on_log_gap(self, node: str, message: m.Message) -> None:
        stream = self._streams.get((node, getattr(message, "stream", -1)))
        if not isinstance(message, m.LogGap) or stream is None:
            return
        if new := self.store.gap(stream, message.offset, message.length):
            self.record(AgentNotice(node, f"{new} bytes of {stream.path} are lost: {message.reason}"))

    def _on_log_end(self, node: str, message: m.Message) -> None:
        stream = self._streams.get((node, getattr(message, "stream", -1)))
        if isinstance(message, m.LogEnd) and stream is not None:
            with suppress(RemoteError):  # an end that is said twice, before a longer one, changes nothing
                self.store.end(stream, message.length)


def _opened(node: str, message: m.RuntimeOpened) -> Event:
    kind = message.engine.kind or "process"
    return RuntimeOnNode(node, kind, message.needs_library, message.error, message.request)


def _hex(digest: bytes | None) -> str:
    return digest.hex() if digest else ""


def _images(node: str, message: m.ImagesStatus) -> Event:
    return ImagesOnNode(
        node,
        tuple({**dataclasses.asdict(image), "likeness": _hex(image.likeness)} for image in message.images),
        message.more,
        message.layers,
        message.layer_bytes,
        message.freed_bytes,
        message.error,
    )


_PLAIN: dict[type[m.Message], Callable[..., Event]] = {
    m.Facts: lambda node, x: AgentFacts(node, dataclasses.asdict(x)),
    m.Notice: lambda node, x: AgentNotice(node, x.text),
    m.Draining: lambda node, x: AgentDraining(node, x.reason),
    m.RuntimeOpened: _opened,
    m.ImageStatus: lambda node, x: ImageOnNode(
        node,
        x.reference,
        x.image_id,
        x.error,
        x.request,
        _hex(x.likeness),
        x.by_manifest,
    ),
    m.ImagesStatus: _images,
    m.CaseOpened: lambda node, x: CaseOpenedOn(x.case, node, x.container, x.error),
    m.CaseClosed: lambda node, x: CaseClosedOn(x.case, node, x.error),
    m.Diagnosed: lambda node, x: CaseDiagnosedOn(x.case, node, x.error),
}
