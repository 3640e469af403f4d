"""Everything that happens in a run, from its first event to run.finished, whatever becomes of the connection.

The controller's socket is the quick way; the event log on disk is the truth. When the socket breaks, the
log is read instead and the socket tried again with growing pauses. Only run.finished ends the iteration well:
a lost stream is told as ``OutOfContact`` once patience is over, never taken for an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from phalanx.controller.control.client import ContactLost, ControlClient, ControlRefused, Notice
from phalanx.controller.fleet.events import Recorded, RunFinished
from phalanx.controller.runs.contact import socket_path
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.records import EventFile

#: Pauses between attempts to reach the controller, seconds; the last one is kept.
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
#: How long a controller may be out of reach before its client gives up (``--reconnect-timeout``).
PATIENCE_S = 10.0


class OutOfContact(Exception):
    """The controller stayed out of reach and the log does not say that the run is over."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The socket broke; trying again. ``reason`` in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The socket is back after ``seconds``; nothing was lost."""

    seconds: float


Seen = Notice | Disconnected | Reconnected


async def watch(run: RunDirectory, patience_s: float = PATIENCE_S) -> AsyncGenerator[Seen, None]:
    """Every event of a run once and in order, and what the controller says besides.

    Ends after run.finished. Raises OutOfContact after ``patience_s`` seconds without the controller.
    """
    async with aclosing(_Watcher(run, patience_s).all()) as everything:
        async for seen in everything:
            yield seen


class _Watcher:
    """The state of one iteration: how far the log was read and since when the controller is out of reach."""

    def __init__(self, run: RunDirectory, patience_s: float) -> None:
        self._run = run
        self._patience_s = patience_s
        self._seq = 0
        self._finished = False
        self._file = EventFile(run.events)
        self._lost_at: float | None = None
        self._attempts = 0

    async def all(self) -> AsyncGenerator[Seen, None]:
        while True:
            reason = ""
            try:
                async with aclosing(self._from_socket()) as socket:
                    async for seen in socket:
                        yield seen
            except (ContactLost, ControlRefused) as error:
                reason = str(error)
            if not self._finished:
                for recorded in self._from_disk():
                    yield recorded
            if self._finished:
                return
            told = self._lose(reason or "the controller closed the connection")
            if told is not None:
                yield told
            await asyncio.sleep(PAUSES[min(self._attempts, len(PAUSES) - 1)])
            self._attempts += 1

    async def _from_socket(self) -> AsyncGenerator[Seen, None]:
        path = socket_path(self._run)
        if path is None:
            raise ContactLost("control.json is not there")
        async with aclosing(ControlClient(path).watch(self._seq)) as notices:
            async for notice in notices:
                back = self._regain()
                if back is not None:
                    yield back
                if not isinstance(notice, Recorded) or self._take(notice):
                    yield notice
                if self._finished:
                    return

    def _from_disk(self) -> list[Recorded]:
        return [recorded for recorded in self._file.new() if self._take(recorded)]

    def _take(self, recorded: Recorded) -> bool:
        """Whether the event is new; remembers it."""
        if recorded.seq <= self._seq:
            return False
        self._seq = recorded.seq
        self._finished = self._finished or isinstance(recorded.event, RunFinished)
        return True

    def _lose(self, reason: str) -> Disconnected | None:
        now = asyncio.get_running_loop().time()
        if self._lost_at is None:
            self._lost_at, self._attempts = now, 0
            return Disconnected(reason)
        if now - self._lost_at >= self._patience_s:
            raise OutOfContact(reason)
        return None

    def _regain(self) -> Reconnected | None:
        if self._lost_at is None:
            return None
        seconds = asyncio.get_running_loop().time() - self._lost_at
        self._lost_at = None
        return Reconnected(seconds)
