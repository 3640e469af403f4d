"""One stripe of a pull: a thread that reads its share of the chunks, from one parent after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from phalanx.agent.relay.events import ParentLost, Patience, PullEvent, Starved
from phalanx.agent.relay.parents import Known, Line
from phalanx.agent.relay.rate import Pacer
from phalanx.agent.relay.sources import ControllerSource, RelaySource, Source, SourceLost
from phalanx.agent.relay.spool import Spool, SpoolError
from phalanx.agent.relay.wanted import Wanted
from phalanx.protocol import zstd
from phalanx.protocol.blob import ChunkMismatch, Manifest
from phalanx.protocol.errors import ProtocolError, RemoteError
from phalanx.protocol.messages import CHUNK_BYTES, Chunk, ChunkGet, ChunkRefused, Message, Parent, RelayHello

#: Asked for at a time: bytes that fill 1 GB/s over 8 ms, and chunks enough that one is always on the wire.
WINDOW_BYTES = 8 * 1024 * 1024
WINDOW_CHUNKS = 4


def window(chunk_bytes: int) -> int:
    """Chunks of a blob asked for at a time."""
    return max(WINDOW_CHUNKS, WINDOW_BYTES // chunk_bytes)


@dataclass(slots=True)
class Desk:
    """What the stripes of a pull share. ``changed`` guards it, and is notified when there may be news."""

    wanted: Wanted
    known: Known
    pacer: Pacer
    patience: Patience
    run_id: str
    node: str
    tell: Callable[[PullEvent], None]
    ask: Callable[[ChunkGet], bool]
    fail: Callable[[str], None]
    on_kept: Callable[[], None]
    changed: threading.Condition = field(default_factory=threading.Condition)
    of: int = 0
    read: int = 0
    over: bool = False

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change what is shared, and let the stripes look."""
        with self.changed:
            yield
            self.changed.notify_all()


class Stripe:
    """Stripe ``number`` of as many as there are."""

    def __init__(self, desk: Desk, number: int) -> None:
        self.number = number
        self.line = Line(desk.known)
        self._desk = desk
        self._source: Source | None = None
        self._reading = Parent(""), 0
        self._window = WINDOW_CHUNKS
        self._zstd = zstd.library()
        self._unpacked = memoryview(b"")
        self.thread = threading.Thread(target=self._run, name=f"pull: stripe {number}", daemon=True)

    # --- from other threads, which hold ``changed``

    def set_parents(self, parents: tuple[Parent, ...]) -> None:
        """Read from these from now on; none: wait."""
        if not self.line.replace(parents):
            self.abort()

    def abort(self) -> None:
        """Leave what is read from."""
        if self._source is not None:
            self._source.abort()

    def give(self, message: Chunk | ChunkRefused) -> bool:
        """Hand in a word of the controller; whether this stripe asked for it."""
        source = self._source
        return isinstance(source, ControllerSource) and source.give(message)

    @property
    def reading_bytes(self) -> int:
        """Bytes that came from what is read from just now."""
        return self._source.read if self._source is not None else 0

    # --- its own thread

    def _run(self) -> None:
        try:
            while (source := self._await_source()) is not None:
                self._read_from(source, *self._reading)
        except SpoolError as error:
            self._desk.fail(str(error))
        except Exception as error:  # noqa: BLE001 - a defect here must not leave the run waiting for ever
            self._desk.fail(f"the fetch of layers broke: {error!r}")

    def _await_source(self) -> Source | None:
        """What to read from; None when the pull is over."""
        desk, line = self._desk, self.line
        lacked = False
        while True:
            with desk.changed:
                if desk.over:
                    return None
                parent = line.reading = line.current()
                if parent is not None:
                    self._source = self._make_source(parent)
                    self._reading = parent, line.epoch
                    return self._source
                news = bool(line.parents) and line.begin_again()
                verdict, epoch = line.verdict(), line.epoch
            if verdict:
                desk.fail(verdict)
                return None
            if news:
                reason = f"no parent has given anything; the last one was {line.last_reason}"
                desk.tell(Starved(self.number, reason))
            lacked = self._look_alone(lacked)
            self._pause(epoch, desk.patience.retry_s if line.parents else desk.patience.silent_s)

    def _look_alone(self, lacked: bool) -> bool:
        """Whether chunks are wanted and nobody is there who could give them; told when it was so a while ago,
        too."""
        desk, line = self._desk, self.line
        lacks = desk.wanted.lacks(self.number, desk.of)
        with desk.changed:
            lacks = lacks and not line.parents
            news = lacks and lacked and not line.starved
            line.starved = line.starved or news
        if news:
            desk.tell(Starved(self.number, "no parent is named, and what is wanted is not here"))
        return lacks

    def _pause(self, epoch: int, seconds: float | None) -> None:
        desk = self._desk
        with desk.changed:
            desk.changed.wait_for(lambda: desk.over or self.line.epoch != epoch, seconds)

    def _read_from(self, source: Source, parent: Parent, epoch: int) -> None:
        """Read from a parent until it is left, or the pull is over. Raises SpoolError."""
        reason, corrupt = "", False
        try:
            if isinstance(source, RelaySource):
                source.connect(self._hello)
            self._read(source, epoch)
        except SourceLost as lost:
            reason = str(lost)
        except RemoteError as error:
            reason, corrupt = str(error), True
        except ProtocolError as error:
            reason = str(error)
        except OSError as error:
            reason = self._words(error)
        finally:
            with self._desk.changed:
                self._source = self.line.reading = None
                self._desk.read += source.read
            source.close()
        self._leave(parent, epoch, reason, corrupt)

    def _leave(self, parent: Parent, epoch: int, reason: str, corrupt: bool) -> None:
        desk, line = self._desk, self.line
        with desk.changed:
            if desk.over:
                return
            if line.epoch == epoch:
                news = line.leave(parent, corrupt, reason)
            else:  # others were named meanwhile; what it sent counts all the same
                news = corrupt
                if corrupt:
                    desk.known.ban(parent.node, reason)
        if news:
            desk.tell(ParentLost(parent.node, corrupt, reason))

    def _make_source(self, parent: Parent) -> Source:
        patience = self._desk.patience
        if not parent.node:
            return ControllerSource(self._desk.ask, patience.controller_silent_s)
        return RelaySource(parent, self._desk.pacer, patience)

    def _hello(self, parent: Parent) -> RelayHello | None:
        desk = self._desk
        with desk.changed:
            ticket = desk.known.ticket(parent)
        return RelayHello(desk.run_id, desk.node, ticket.serial, ticket.mac) if ticket is not None else None

    def _words(self, error: OSError) -> str:
        if isinstance(error, BlockingIOError):  # SO_RCVTIMEO, SO_SNDTIMEO
            return f"nothing came for {self._desk.patience.silent_s:g} s"
        return error.strerror or str(error)

    # --- chunks

    def _read(self, source: Source, epoch: int) -> None:
        """Ask and keep until the pull is over or other parents are named. Raises what the source does."""
        outstanding: dict[tuple[bytes, int], Spool] = {}
        try:
            while True:
                self._ask(source, outstanding)
                if outstanding:
                    self._take(outstanding, *source.receive())
                elif self._await_work(epoch):
                    return
        finally:
            self._desk.wanted.give_back((spool, index) for (_, index), spool in outstanding.items())

    def _ask(self, source: Source, outstanding: dict[tuple[bytes, int], Spool]) -> None:
        wanted = self._desk.wanted
        while not self._desk.over and len(outstanding) < self._window:
            want = wanted.take(self.number, self._desk.of)
            if want is None:
                return
            spool, index = want
            if spool.recall(index):
                wanted.came(spool.manifest.blob, index)
                self._desk.on_kept()
                if outstanding:  # a parent must not wait until all that was left here is verified
                    return
                continue
            outstanding[spool.manifest.blob, index] = spool
            self._window = window(spool.manifest.chunk_bytes)
            source.ask(ChunkGet(spool.manifest.blob, index, unpacks=self._zstd is not None))

    def _await_work(self, epoch: int) -> bool:
        """Wait for more to ask for; whether there will be none from here."""
        desk = self._desk
        with desk.changed:
            if not desk.over and self.line.epoch == epoch:
                desk.changed.wait(desk.patience.claim_s)
            return desk.over or self.line.epoch != epoch

    def _take(
        self,
        outstanding: dict[tuple[bytes, int], Spool],
        message: Message,
        payload: bytes | memoryview,
    ) -> None:
        if isinstance(message, ChunkRefused):
            raise SourceLost(f"it refused chunk {message.index}: {message.reason}")
        if not isinstance(message, Chunk):
            return  # RelayWait: it lives
        key = message.blob, message.index
        spool = outstanding.get(key)
        if spool is None:
            raise ChunkMismatch(f"it sent chunk {message.index} that nobody asked for")
        if message.packed:
            payload = self._unpack(spool.manifest, message.index, payload)
        spool.keep(message.index, payload)
        del outstanding[key]
        self._desk.wanted.came(*key)
        with self._desk.changed:
            self.line.gave()
        self._desk.on_kept()

    def _unpack(self, manifest: Manifest, index: int, payload: bytes | memoryview) -> memoryview:
        """The bytes of a packed chunk, good until the next. Raises ChunkMismatch."""
        length = manifest.length(index)
        if self._zstd is None or len(payload) >= length:
            raise ChunkMismatch(f"it sent chunk {index} packed, unasked or no smaller than it is")
        if not self._unpacked:
            self._unpacked = memoryview(bytearray(CHUNK_BYTES))
        try:
            return self._unpacked[: self._zstd.decompress(payload, self._unpacked[:length])]
        except ValueError as error:
            raise ChunkMismatch(f"chunk {index} cannot be unpacked: {error}") from None
