"""What a case gives back beside its logs: what this node saw when it failed, and the files it made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from phalanx.agent.blobs import BlobError, BlobStore
from phalanx.agent.cases import OpenCase
from phalanx.agent.collect import CollectLimits, Found, find_results
from phalanx.agent.diagnosis import write_down
from phalanx.agent.logs import LogPump
from phalanx.agent.runtimes.base import RuntimeUnavailable
from phalanx.protocol.messages import (
    Collect,
    Collected,
    Diagnose,
    Diagnosed,
    FileOffer,
    Message,
)
from phalanx.protocol.schema import as_words

#: Words about files that are left out, of one Collect.
MOST_WORDS = 64


@dataclass(slots=True)
class Evidence:
    """Diagnostics and results of the cases that ``open`` knows by name."""

    open: Callable[[str], OpenCase | None]
    send: Callable[[Message], None]
    logs: LogPump
    blobs: BlobStore

    async def diagnose(self, message: Diagnose) -> None:
        """Write what this node sees into the diagnostics stream of the case, once."""
        case = self.open(message.case)
        error = "" if case is not None else "the case is not open on this node"
        if case is not None:
            try:
                await write_down(message.case, case.places, case.place, self.logs)
            except (RuntimeUnavailable, OSError) as trouble:
                error = str(trouble)
        self.send(Diagnosed(message.request, message.case, as_words(error)))

    async def collect(self, message: Collect) -> None:
        """Offer the results of a case."""
        case = self.open(message.case)
        if case is None:
            self.send(Collected(message.request, message.case, 0, ()))
            return
        places = case.places
        unread: list[str] = []
        if case.script_results is not None:
            unread = await case.script_results.bring(places.results, case.folder, message.wait_s)
        found = await asyncio.to_thread(
            find_results,
            places.results,
            places.work,
            message.patterns,
            CollectLimits(),
            case.message.spec.workdir,
            (message.fresh, case.began),
        )
        for complaint in unread:
            found.leave_out(complaint)
        offered = await self._offer(message, found)
        words = found.left_out[:MOST_WORDS]
        if more := found.left_out_count - len(words):
            words[-1:] = [f"and {more + 1} more files"]
        self.send(Collected(message.request, message.case, offered, tuple(map(as_words, words))))

    async def _offer(self, message: Collect, found: Found) -> int:
        if found.files:
            await self.blobs.need_bulk()
        offered = 0
        for file in found.files:
            try:
                manifest = await self.blobs.offer(file.folder, file.name)
            except BlobError as error:
                found.leave_out(f"{file.name}: {error}")
                continue
            for page in manifest.pages():
                self.send(page)
            self.send(FileOffer(message.request, message.case, file.name, manifest.size, manifest.blob))
            offered += 1
        return offered
