"""The one way an event becomes true: queued, written, synced, then believed, then told to whoever watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .events import Event, Recorded
from .journal import Journal

Believe = Callable[[Recorded], None]
Publish = Callable[[int, bytes], None]


class Chronicle:
    """Events on their way into the log. ``believe`` gets each one after it is on disk, in order."""

    def __init__(self, journal: Journal, believe: Believe, publish: Publish) -> None:
        self._journal = journal
        self._believe = believe
        self._publish = publish
        self._waiting: list[Event] = []
        self._wake = asyncio.Event()

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
            for recorded, line in await asyncio.to_thread(self._journal.append, batch, time.time()):
                self._believe(recorded)
                self._publish(recorded.seq, line)
