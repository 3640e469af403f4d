"""From spool files to the controller: follow what steps write, send whole lines, give acked bytes back.

One task follows all streams of the node. It sends only what credit and the socket allow, so a slow
controller holds back this loop and never the memory; the bytes wait in the spool file.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.protocol.logstream import BATCH, LogSender, whole_lines
from phalanx.protocol.messages import Kind, LogAck, LogData, LogEnd, LogGap, LogOpen, Message

#: How often files are looked at while something is written, and while nothing is, in seconds.
BUSY_S, IDLE_S = 0.02, 0.1
#: A line without an end is sent after this long, in seconds (a progress bar, a prompt).
PARTIAL_AFTER_S = 0.15
#: Log bytes that may wait for the socket before the loop stops reading files.
LANE_BYTES = 1024 * 1024
#: Acked bytes are given back to the disk in pieces of at least this size.
PUNCH_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Stream:
    """One output of one process."""

    number: int
    opening: LogOpen
    path: Path
    fd: int = -1
    sender: LogSender = field(default_factory=LogSender)
    waiting_since: float = 0.0
    over: bool = False
    punched: int = 0

    def open_file(self) -> bool:
        """Open the spool file if it is there by now."""
        if self.fd < 0:
            try:
                self.fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        return True

    def close(self) -> None:
        """Let the file go."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class LogPump:
    """All streams of an agent. ``lane`` tells how many bytes wait for the socket."""

    def __init__(
        self,
        send: Callable[[Message], None],
        send_data: Callable[[LogData], bool],
        lane: Callable[[Kind], int],
    ) -> None:
        self._send = send
        self._send_data = send_data
        self._lane = lane
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._changed = asyncio.Event()

    def follow(self, opening: Callable[[int], LogOpen], path: Path) -> Stream:
        """Start to follow a file; ``opening`` makes the message from the stream's number."""
        number = self._next
        self._next += 1
        stream = self._streams[number] = Stream(number, opening(number), path)
        self._send(stream.opening)
        self._changed.set()
        return stream

    def finish(self, stream: Stream) -> None:
        """The writer of a stream is over: what is in the file now is all."""
        stream.over = True
        size = os.fstat(stream.fd).st_size if stream.open_file() else 0
        stream.sender.finish(max(size, stream.sender.sent))
        self._changed.set()

    def on_ack(self, message: LogAck) -> None:
        """The controller has bytes on disk."""
        stream = self._streams.get(message.stream)
        if stream is None:
            return
        stream.sender.on_ack(message.offset, message.credit)
        self._give_back(stream)
        if stream.sender.done:
            stream.close()
            del self._streams[message.stream]
        self._changed.set()

    def reconnected(self) -> None:
        """A new control link: what was in flight is sent again."""
        for stream in self._streams.values():
            stream.sender.reconnected()
        self._changed.set()

    def pending(self, case: str | None = None) -> bool:
        """Whether bytes of a case (or of any) are not yet on the controller's disk."""
        return any(case is None or stream.opening.case == case for stream in self._streams.values())

    async def drained(self, case: str | None, within_s: float) -> bool:
        """Wait until nothing of a case is pending; False when that takes longer than ``within_s``."""
        deadline = time.monotonic() + within_s
        while self.pending(case):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(BUSY_S)
        return True

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            busy = self._round()
            self._changed.clear()
            if not self._streams:
                await self._changed.wait()
            else:
                await asyncio.sleep(0 if busy > 1 else BUSY_S if busy else IDLE_S)

    def _round(self) -> int:
        """Look at every stream once: 0 nothing moved, 1 something did, 2 there is more right now."""
        moved = 0
        for stream in list(self._streams.values()):
            moved = max(moved, self._pump(stream))
        return moved

    def _pump(self, stream: Stream) -> int:
        sender = stream.sender
        if not stream.open_file():
            if stream.over and not sender.end_sent:
                self._end(stream)
            return 0
        if not stream.over:
            sender.grown(os.fstat(stream.fd).st_size)
        sent = 0
        while (room := sender.room()) and self._lane(Kind.LOG) < LANE_BYTES:
            length = self._send_batch(stream, min(room, BATCH))
            if length == 0:
                break
            sent += length
            if sent >= 4 * BATCH:
                return 2
        if sender.drained and not sender.end_sent:
            self._end(stream)
        return 1 if sent else 0

    def _send_batch(self, stream: Stream, length: int) -> int:
        sender = stream.sender
        data = os.pread(stream.fd, length, sender.sent)
        now = time.monotonic()
        if not data:
            return self._declare_gap(stream) if stream.over else 0
        if not stream.waiting_since:
            stream.waiting_since = now
        flush = stream.over or now - stream.waiting_since >= PARTIAL_AFTER_S
        take = whole_lines(data, flush)
        if take == 0:
            return 0
        if not self._send_data(LogData(stream.number, sender.sent, time.time(), data[:take])):
            return 0
        stream.waiting_since = 0.0
        sender.took(take)
        return take

    def _declare_gap(self, stream: Stream) -> int:
        """The file is shorter than it was (the workload truncated it): say so, go on behind."""
        sender = stream.sender
        missing = sender.size - sender.sent
        self._send(LogGap(stream.number, sender.sent, missing, "the spool file was truncated"))
        sender.took(missing)
        return missing

    def _end(self, stream: Stream) -> None:
        stream.sender.end_sent = True
        self._send(LogEnd(stream.number, stream.sender.final or 0))

    def _give_back(self, stream: Stream) -> None:
        """Punch a hole where the bytes are on the controller's disk, where the filesystem can."""
        acked = stream.sender.acked - stream.sender.acked % 4096
        if acked - stream.punched < PUNCH_BYTES or stream.fd < 0:
            return
        from phalanx.agent.punch import punch_hole

        if punch_hole(stream.fd, stream.punched, acked - stream.punched):
            stream.punched = acked
        else:
            stream.punched = 1 << 62
