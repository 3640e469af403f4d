"""Whether the chunks of a connection go packed: measured on that connection, decided chunk by chunk.

A chunk of S bytes takes S / B as it is and, packed while the one before is on its way, the longer of S / C
and its packed bytes / B. B is what the kernel counts, C and the packed bytes are what this side sees when it
packs: where CPU is short, C is low, and chunks go as they are. Unpacking takes less than half as long as
packing, so that it decides nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: Bytes of tcp_info (linux/tcp.h) that are asked of the kernel.
TCP_INFO_BYTES = 256
#: tcpi_bytes_acked is at byte 120 (Linux 4.1), tcpi_busy_time and tcpi_rwnd_limited at 168 (Linux 4.10).
_ACKED, _BUSY = struct.Struct("=Q"), struct.Struct("=QQ")
_ACKED_AT, _BUSY_AT = 120, 168

#: The kernel counts in ticks of 1 to 10 ms: a link is judged by so much of its time, or so many bytes.
JUDGED_S = 0.05
JUDGED_BYTES = 16 * 1024 * 1024
#: Seconds that a byte takes on links too fast for it: verified and written, a node takes in about that much.
FAST_S = 1e-9
#: Packed when that takes at most this part of the time, and again as they are when it takes more than that.
BEGIN, STAY = 0.85, 0.95
#: A chunk that does not get this much smaller goes as it is.
SMALLER = 0.9
#: Chunks by which it is tried, judged by the fastest: the first is slow, memory and caches are cold.
TRIAL = 3
#: While it does not pay it is tried again so rarely that trying takes this part of the time.
TRYING = 0.01


@dataclass(frozen=True, slots=True)
class Sent:
    """What the kernel has counted of a connection since its beginning.

    ``acked`` bytes have arrived; in ``busy_s`` seconds there was something to send, in ``full_s`` of them the
    reader had no room.
    """

    acked: int
    busy_s: float
    full_s: float


def read_tcp_info(info: bytes) -> Sent | None:
    """What a tcp_info of the kernel says; None for an older kernel, which does not count this."""
    if len(info) < _BUSY_AT + _BUSY.size:
        return None
    (acked,) = _ACKED.unpack_from(info, _ACKED_AT)
    busy, full = _BUSY.unpack_from(info, _BUSY_AT)
    return Sent(acked, busy / 1e6, full / 1e6)


def room(length: int) -> int:
    """Most bytes that a chunk of ``length`` may take packed."""
    return int(length * SMALLER)


@dataclass(slots=True)
class Packing:
    """The rule of one connection. Pure: for each chunk ``saw`` and ``wants``, and ``packed`` when it was.

    ``on``: chunks are packed just now, if only to try. Times are in seconds a byte: ``wire_s`` on the link,
    ``reader_s`` for a reader without room, ``pack_s`` for this side to pack; ``part`` of the bytes is left
    then. None: not known yet.
    """

    on: bool = False
    wire_s: float | None = None
    reader_s: float = 0.0
    pack_s: float | None = None
    part: float | None = None
    _before: Sent | None = None
    _trial: int = 0
    #: seconds that packing took since it last paid well, and that the link is to work before the next trial
    _spent_s: float = 0.0
    _rest_s: float = 0.0

    def saw(self, sent: Sent | None, least_s: float = 0.0) -> None:
        """What the kernel counts now. ``least_s``: seconds a byte that a cap on the rate makes it take."""
        if sent is not None:
            self._count(sent)
        if least_s:
            self.wire_s = max(self.wire_s or 0.0, least_s)

    def _count(self, sent: Sent) -> None:
        if self._before is None:
            self._before = sent
        acked = sent.acked - self._before.acked
        busy_s, full_s = sent.busy_s - self._before.busy_s, sent.full_s - self._before.full_s
        if acked > 0 and (busy_s >= JUDGED_S or acked >= JUDGED_BYTES):
            self._before = sent
            self.reader_s = full_s / acked
            self.wire_s = _mixed(self.wire_s, max(0.0, busy_s - full_s) / acked, 0.75)

    def wants(self, length: int) -> bool:
        """Whether to pack the next chunk, of ``length`` bytes."""
        if self.wire_s is None or self.wire_s < FAST_S:
            self.on = False
        elif not self.on:
            self._rest_s -= length * (self.wire_s + self.reader_s)
            if self._rest_s <= 0.0:
                self.on, self._trial = True, TRIAL
                self.pack_s = self.part = None
        return self.on

    def packed(self, length: int, left: int, took_s: float) -> None:
        """A chunk of ``length`` bytes took ``took_s`` seconds; ``left`` bytes of it, 0: not small enough."""
        pack_s, part = took_s / length, left / length if left else 1.0
        self._spent_s += took_s
        self.part = _mixed(self.part, part, 0.5)
        if self._trial:
            self.pack_s = min(self.pack_s or pack_s, pack_s)
            self._trial = self._trial - 1 if left else 0
            self.on = self._trial > 0 or self._takes() <= BEGIN
        else:
            self.pack_s = _mixed(self.pack_s, pack_s, 0.125)
            self.on = self._takes() <= STAY
        if not self.on:
            self._rest_s = self._spent_s / TRYING
        if not self.on or self._takes() <= BEGIN:
            self._spent_s = 0.0

    def _takes(self) -> float:
        """The time of a packed chunk, as a part of the time of one as it is."""
        if not self.wire_s or self.pack_s is None or self.part is None:
            return 1.0
        packed = max(self.pack_s, self.wire_s * self.part + self.reader_s)
        return packed / (self.wire_s + self.reader_s)


def _mixed(old: float | None, new: float, weight: float) -> float:
    """``weight`` of what is now, the rest of what was."""
    return new if old is None else old + (new - old) * weight
