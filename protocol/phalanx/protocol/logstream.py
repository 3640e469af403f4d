"""A log stream: at least once with offsets on the wire, exactly once on disk, every loss declared.

The agent reads its spool file and sends from the last acknowledged offset; the controller appends at the
exact offset, syncs, then acknowledges. After a reconnect the sender starts again at the last ack and the
receiver drops what it has. Credit bounds what is in flight, so a slow disk slows the sender, not the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RemoteError

#: Bytes in flight per stream: acks come after a disk sync (tens of ms), so 4 MiB allow some 60 MB/s each.
CREDIT = 4 * 1024 * 1024
#: Largest batch, in bytes: whole lines where possible, under the LOG frame cap.
BATCH = 192 * 1024


@dataclass(slots=True)
class LogSender:
    """The agent's side of one stream. ``size``: bytes in the spool file so far."""

    size: int = 0
    sent: int = 0
    acked: int = 0
    credit: int = CREDIT
    final: int | None = None
    end_sent: bool = False

    def grown(self, size: int) -> None:
        """The spool file has ``size`` bytes."""
        self.size = max(self.size, size)

    def finish(self, length: int) -> None:
        """The writer is done; the stream has ``length`` bytes."""
        self.size = self.final = length

    def room(self) -> int:
        """Bytes that may be read from ``sent`` on and sent now, at most one batch."""
        return max(0, min(self.size, self.acked + self.credit, self.sent + BATCH) - self.sent)

    def took(self, length: int) -> None:
        """A batch of ``length`` bytes was queued."""
        self.sent += length

    def on_ack(self, offset: int, credit: int) -> None:
        """The controller has everything before ``offset`` on disk.

        Raises RemoteError for an ack beyond what exists.
        """
        if offset > self.size:
            raise RemoteError(f"ack of byte {offset} of a stream with {self.size}")
        if offset > self.acked:
            self.acked = offset
        self.sent = max(self.sent, self.acked)
        self.credit = credit

    def reconnected(self) -> None:
        """A new connection: what was in flight is sent again."""
        self.sent = self.acked

    @property
    def drained(self) -> bool:
        """Whether everything that will ever be in the stream has been sent."""
        return self.final is not None and self.sent >= self.final

    @property
    def done(self) -> bool:
        """Whether everything is on the controller's disk, and it was told that this is all."""
        return self.end_sent and self.final is not None and self.acked >= self.final


@dataclass(slots=True)
class LogReceiver:
    """The controller's side. ``received``: next byte to append; ``durable``: synced to disk."""

    received: int = 0
    durable: int = 0
    missing: int = 0
    final: int | None = None

    def on_data(self, offset: int, payload: bytes) -> bytes | memoryview:
        """The part of ``payload`` to append at ``received`` (moved on by the call); empty for a repeat.

        Raises RemoteError for bytes beyond a hole that was not declared, or beyond the stream's end.
        """
        if offset > self.received:
            raise RemoteError(f"bytes from {offset} on, {self.received} expected: an undeclared gap")
        if self.final is not None and offset + len(payload) > self.final:
            raise RemoteError(f"bytes beyond the declared end at {self.final}")
        skip = self.received - offset
        if skip >= len(payload):
            return b""
        self.received = offset + len(payload)
        return memoryview(payload)[skip:] if skip else payload

    def on_gap(self, offset: int, length: int) -> int:
        """Bytes that never come, declared by the sender; how many of them are new to us."""
        if offset > self.received:
            raise RemoteError(f"a gap from {offset} on, {self.received} expected")
        if self.final is not None and offset + length > self.final:
            raise RemoteError(f"a gap beyond the declared end at {self.final}")
        new = max(0, offset + length - self.received)
        self.received += new
        self.missing += new
        return new

    def on_end(self, length: int) -> None:
        """The stream has ``length`` bytes in all. Raises RemoteError when we hold more."""
        if length < self.received:
            raise RemoteError(f"end at {length}, but {self.received} bytes came")
        self.final = length

    def synced(self, offset: int) -> None:
        """Everything before ``offset`` is on disk."""
        self.durable = max(self.durable, min(offset, self.received))

    @property
    def complete(self) -> bool:
        """Whether the whole stream is on disk."""
        return self.final is not None and self.durable >= self.final


def whole_lines(data: bytes, flush: bool) -> int:
    """How much of ``data`` to send: up to its last newline, or all of it when ``flush`` or none is there.

    A partial line waits for its end unless ``flush`` says that it waited long enough.
    """
    if flush:
        return len(data)
    end = data.rfind(b"\n") + 1
    if end == 0 and len(data) >= BATCH:
        return len(data)
    return end
