"""From spool files to the controller: follow what steps write, send whole lines, give acked bytes back.

One task follows all streams of the node. It sends only what credit and the socket allow, so a slow
controller holds back this loop and never the memory; the bytes wait in the spool file. What cannot be read
any more is declared as a gap, in order with the data, and never left out silently.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.protocol.logstream import BATCH, LogSender, whole_lines
from phalanx.protocol.messages import LogAck, LogData, LogEnd, LogGap, LogOpen, Message

#: How often files are looked at while something is written, and while nothing is, in seconds.
BUSY_S, IDLE_S = 0.02, 0.1
#: A line without an end is sent after this long, in seconds (a progress bar, a prompt).
PARTIAL_AFTER_S = 0.15
#: Bytes of one stream that are sent before the others have their turn.
TURN_BYTES = 4 * BATCH
#: Acked bytes are given back to the disk in pieces of at least this size.
PUNCH_BYTES = 8 * 1024 * 1024

#: Want of the moment: the file is tried again. Any other error of a spool file stays.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
_CANNOT_PUNCH = 1 << 62


@dataclass(slots=True)
class Stream:
    """One output of one process. ``start``: where in the stream the file begins.

    That is 0 until someone truncates the file (``> /dev/stderr`` does). ``punched`` counts from the file's
    beginning. ``broken``: why the file cannot be read.
    """

    number: int
    opening: LogOpen
    path: Path
    fd: int = -1
    sender: LogSender = field(default_factory=LogSender)
    waiting_since: float = 0.0
    over: bool = False
    start: int = 0
    punched: int = 0
    broken: str = ""

    def measure(self) -> None:
        """See how much the file holds by now, and whether that is all."""
        try:
            self._look()
        except OSError as error:
            if error.errno not in _PASSING:
                self._give_up(f"the spool cannot be read: {error.strerror}")
            elif self.over:
                return  # what it holds is not known yet
        if self.over and self.sender.final is None:
            self.sender.finish(self.sender.size)

    def _look(self) -> None:
        if self.broken:
            return
        if self.fd < 0:
            try:
                self.fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return
        about = os.fstat(self.fd)
        if not stat.S_ISREG(about.st_mode):
            self._give_up("something else was put in place of its spool file")
            return
        if self.start + about.st_size < self.sender.size:
            self.start, self.punched = self.sender.size, 0
        if self.sender.final is None:
            self.sender.grown(self.start + about.st_size)

    def _give_up(self, reason: str) -> None:
        self.broken = reason
        self.close()

    def read(self, length: int) -> bytes:
        """Up to ``length`` bytes that were not sent yet; none when they are not there any more."""
        try:
            return os.pread(self.fd, length, self.sender.sent - self.start)
        except OSError as error:
            self._give_up(f"the spool cannot be read: {error.strerror}")
            return b""

    def lost(self) -> tuple[int, str]:
        """Bytes from the next one on that can never be sent, and why."""
        if self.broken:
            return self.sender.size - self.sender.sent, self.broken
        if self.sender.sent < self.start:
            return self.start - self.sender.sent, "the workload truncated its output"
        return 0, ""

    @property
    def unacked(self) -> int:
        """Bytes of the file that are not on the controller's disk."""
        return max(0, self.sender.size - max(self.sender.acked, self.start))

    def give_back(self) -> None:
        """Punch a hole where the bytes are on the controller's disk, where the filesystem can."""
        acked = self.sender.acked - self.start
        acked -= acked % 4096
        if acked - self.punched < PUNCH_BYTES or self.fd < 0:
            return
        from phalanx.agent.punch import punch_hole

        if punch_hole(self.fd, self.punched, acked - self.punched):
            self.punched = acked
        else:
            self.punched = _CANNOT_PUNCH

    def close(self) -> None:
        """Let the file go."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class LogPump:
    """All streams of an agent. ``send_log`` is False while nothing more fits into the control link."""

    def __init__(self, send: Callable[[Message], None], send_log: Callable[[LogData | LogGap], bool]) -> None:
        self._send = send
        self._send_log = send_log
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._wake = asyncio.Event()

    def follow(self, opening: Callable[[int], LogOpen], path: Path) -> Stream:
        """Start to follow a file; ``opening`` makes the message from the stream's number."""
        number = self._next
        self._next += 1
        stream = self._streams[number] = Stream(number, opening(number), path)
        self._send(stream.opening)
        self._wake.set()
        return stream

    def finish(self, stream: Stream) -> None:
        """The writer of a stream is over: what is in the file now is all."""
        stream.over = True
        self._wake.set()

    def on_ack(self, message: LogAck) -> None:
        """The controller has bytes on disk. Raises RemoteError for more than there are."""
        stream = self._streams.get(message.stream)
        if stream is None:
            return
        stream.sender.on_ack(message.offset, message.credit)
        stream.give_back()
        if stream.sender.done:
            stream.close()
            del self._streams[message.stream]

    def reconnected(self) -> None:
        """A new control link: what was in flight is sent again."""
        for stream in self._streams.values():
            stream.sender.reconnected()
        self._wake.set()

    def has_room(self) -> None:
        """The link takes more."""
        self._wake.set()

    def pending(self, case: str | None = None) -> bool:
        """Whether bytes of a case (or of any) are not yet on the controller's disk."""
        return any(case is None or stream.opening.case == case for stream in self._streams.values())

    def unacked(self, case: str) -> int:
        """Bytes of a case that are on this node's disk alone, as of now."""
        mine = [stream for stream in self._streams.values() if stream.opening.case == case]
        for stream in mine:
            stream.measure()
        return sum(stream.unacked for stream in mine)

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
            self._wake.clear()
            moved = max((self._pump(stream) for stream in list(self._streams.values())), default=0)
            if moved >= TURN_BYTES:
                await asyncio.sleep(0)
            elif self._streams:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BUSY_S if moved else IDLE_S):
                        await self._wake.wait()
            else:
                await self._wake.wait()

    def _pump(self, stream: Stream) -> int:
        """Send what may go of a stream; how many bytes that were."""
        stream.measure()
        sender = stream.sender
        moved = 0
        while moved < TURN_BYTES and sender.room():
            took = self._send_piece(stream)
            if not took:
                break
            sender.took(took)
            moved += took
        if sender.drained and not sender.end_sent:
            sender.end_sent = True
            self._send(LogEnd(stream.number, sender.final or 0))
        return moved

    def _send_piece(self, stream: Stream) -> int:
        """Send a batch or declare a gap; the bytes that it stands for, 0 when nothing went."""
        sender = stream.sender
        lost, reason = stream.lost()
        if lost:
            return lost if self._send_log(LogGap(stream.number, sender.sent, lost, reason)) else 0
        data = stream.read(sender.room())
        now = time.monotonic()
        if not data:
            return 0
        if not stream.waiting_since:
            stream.waiting_since = now
        flush = stream.over or now - stream.waiting_since >= PARTIAL_AFTER_S
        take = whole_lines(data, flush)
        if not take or not self._send_log(LogData(stream.number, sender.sent, time.time(), data[:take])):
            return 0
        stream.waiting_since = 0.0
        return take
