"""Packs the chunks of one connection where that brings them sooner: the next one while one is on its way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from phalanx.agent.relay.descriptor import Descriptor
from phalanx.protocol import zstd
from phalanx.protocol.messages import ChunkGet
from phalanx.protocol.packing import Packing, Sent, room

#: The file, the offset and the length of a chunk.
Span = tuple[Descriptor, int, int]
#: A chunk as it is after packing, empty when it does not get small enough, and the seconds that it took.
_Packed = tuple[memoryview, float]
_NOTHING = memoryview(b"")
#: Bytes that wait in the kernel while it is not known how fast the link is: they all go as they are.
UNSENT_BYTES = 256 * 1024


class Packer:
    """For the thread of a connection.

    ``sent``: what the kernel counts of it; ``least_s``: seconds that a byte takes by the cap on the rate;
    ``hold_back``: how many bytes may wait in the kernel, 0 for as many as it likes.
    While it pays, memory for two packed chunks and for one that is not is held.
    """

    def __init__(
        self,
        sent: Callable[[], Sent | None],
        least_s: Callable[[], float],
        hold_back: Callable[[int], None] = lambda unsent_bytes: None,
    ) -> None:
        self._sent = sent
        self._hold_back = hold_back
        self._unsent = 0
        self._least_s = least_s
        self._zstd = zstd.library()
        self._rule = Packing()
        self._ahead: tuple[ChunkGet, Future[_Packed]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._raw = _NOTHING
        #: what is on its way, and what is next
        self._room = [_NOTHING, _NOTHING]

    @property
    def on(self) -> bool:
        """Whether it pays just now."""
        return self._rule.on

    def pack(self, get: ChunkGet, span: Span) -> memoryview:
        """The chunk packed, good until the next but one; empty when it is to go as it is."""
        ahead = self._take(get)
        if not get.unpacks or self._zstd is None:
            return _NOTHING
        length = span[2]
        self._rule.saw(self._sent(), self._least_s())
        unsent = UNSENT_BYTES if self._rule.wire_s is None else 0
        if unsent != self._unsent:
            self._hold_back(unsent)
            self._unsent = unsent
        try:
            if ahead is not None:
                packed, took_s = ahead.result()
            elif self._rule.wants(length):
                packed, took_s = self._compress(self._zstd, span)
            else:
                return _NOTHING
        except OSError:
            return _NOTHING  # whoever sends it as it is says what is wrong with the file
        self._rule.packed(length, len(packed), took_s)
        if not self._rule.on:
            self._raw, self._room = _NOTHING, [_NOTHING, _NOTHING]
        return packed

    def begin(self, get: ChunkGet, span: Span) -> None:
        """Pack in another thread what ``pack`` will most likely be called for next."""
        if get.unpacks and self._zstd is not None and self._rule.on:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="relay: packing")
            try:
                self._ahead = get, self._thread.submit(self._compress, self._zstd, span)
            except RuntimeError:  # no more threads are allowed: ``pack`` does it
                self._thread = None

    def _take(self, get: ChunkGet) -> Future[_Packed] | None:
        """What was begun for ``get``; let fall if it was for another, which was not given after all."""
        if self._ahead is None:
            return None
        (begun, future), self._ahead = self._ahead, None
        if begun is get:
            return future
        future.exception()  # the memory in which it works is free after that
        return None

    def close(self) -> None:
        """End its thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _compress(self, library: zstd.Zstd, span: Span) -> _Packed:
        """Raises OSError."""
        file, offset, length = span
        began = time.monotonic()
        self._room.reverse()
        if len(self._raw) < length:
            self._raw = memoryview(bytearray(length))
        if len(self._room[0]) < room(length):
            self._room[0] = memoryview(bytearray(room(length)))
        raw, into = self._raw[:length], self._room[0][: room(length)]
        if os.preadv(file.number, [raw], offset) != length:
            raise OSError("the file is shorter than it was")
        packed = into[: library.compress(raw, into)]
        return packed, time.monotonic() - began
