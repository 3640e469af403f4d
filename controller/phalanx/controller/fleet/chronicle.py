"""The one way an event becomes true: queued, written, synced, then believed, then told to whoever watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .events import Event, Recorded
from .journal import Journal

Believe = Callable[[Recorded], None]
Publish = Callable[[int, bytes], None]
Written = list[tuple[Recorded, bytes]]


class Chronicle:
    """Events on their way into the log. ``believe`` gets each one after it is on disk, in order.

    ``short`` is called after a batch that needed the room kept for the log: the disk is full.
    """

    def __init__(
        self,
        journal: Journal,
        believe: Believe,
        publish: Publish,
        short: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._believe = believe
        self._publish = publish
        self._short = short
        self._waiting: list[Event] = []
        self._wake = asyncio.Event()
        # A thread of its own: blobs and results that wait for a disk must not hold the event log up.
        self.thread = ThreadPoolExecutor(1, "event log")
        self._writing: asyncio.Future[Written] | None = None

    def record(self, event: Event) -> None:
        """Queue an event; returns at once."""
        self._waiting.append(event)
        self._wake.set()

    async def keep_writing(self) -> None:
        """Write until cancelled: everything that waits, in one sync. Raises JournalError."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            for recorded, line in await self._append(batch):
                self._believe(recorded)
                self._publish(recorded.seq, line)
            if self._journal.short:
                self._short()

    async def _append(self, batch: list[Event]) -> Written:
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self.thread, self._journal.append, batch, time.time())
        written = await asyncio.shield(self._writing)
        self._writing = None
        return written

    async def last_words(self, events: list[Event]) -> list[Recorded]:
        """Write events that nobody acts upon any more, after whatever is being written now; all of these.

        For the end of a controller that cannot go on. Raises JournalError.
        """
        written = [*await self._settle(), *await self._append(events)]
        for recorded, line in written:
            self._publish(recorded.seq, line)
        return [recorded for recorded, _ in written]

    async def _settle(self) -> Written:
        """Wait for a write whose writer was cancelled; what it wrote, if it could."""
        writing, self._writing = self._writing, None
        if writing is None:
            return []
        await asyncio.wait([writing])
        return [] if writing.exception() else writing.result()

    async def close(self) -> None:
        """Give up the log, once nothing writes to it."""
        await self._settle()
        self.thread.shutdown()
        self._journal.close()
