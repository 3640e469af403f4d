"""``phalanx image sync --run``: one more image for the nodes of a live run.

How it goes is told from the event log, as everything is; whoever asked is followed as long as they stay, and
the image is called off when they leave before it is there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from phalanx.protocol.membership import Member

from ..fleet.conductor import Conductor
from ..plan.image import checked_reference
from ..workflow.errors import InputError
from .http import bad, conflict, names

#: What is told besides the events of the request: how far it is, and that the controller lives.
_BESIDES = ("progress", "heartbeat")
#: The events that end it.
_LAST = ("image.ready", "image.failed")


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What was asked for. ``nodes`` None: all that are there."""

    reference: str
    archive: str
    nodes: tuple[str, ...] | None

    @staticmethod
    def parse(body: dict[str, Any]) -> ImageRequest:
        """A request of a JSON body. Raises Refusal naming what is wrong."""
        reference, archive, nodes = body.get("reference"), body.get("archive", ""), body.get("nodes")
        if not isinstance(reference, str):
            raise bad("reference: expected the name of an image")
        try:
            checked_reference(reference, "reference")
        except InputError as error:
            raise bad(str(error)) from None
        if not isinstance(archive, str) or "\0" in archive or (archive and archive[0] != "/"):
            raise bad("archive: expected an absolute path of the login node, or nothing")
        return ImageRequest(reference, archive, names(nodes, "nodes"))


@dataclass(slots=True)
class Asked:
    """A request on its way. ``over``: its last event was told."""

    conductor: Conductor
    request: int
    over: bool = False

    async def lines(
        self, queue: asyncio.Queue[tuple[int, bytes] | None], kept: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """The lines that tell of it, to the last one, or to the end of the run.

        Nobody reads them any more when the queue is not ``kept``.
        """
        while not self.over and (item := await queue.get()) is not None and kept():
            document = json.loads(item[1])
            kind, data = document.get("type"), document.get("data") or {}
            if kind in _BESIDES or data.get("request") == self.request:
                self.over = kind in _LAST
                yield item[1]

    def end(self) -> None:
        """Whoever asked is gone or has heard the end."""
        if not self.over:
            self.conductor.call_off(self.request)


def ask_for(conductor: Conductor, wanted: ImageRequest) -> Asked:
    """Ask the run for it. Raises Refusal."""
    roster = conductor.engine.roster
    here, silent = roster.of(Member.JOINED), roster.of(Member.SILENT)
    if wanted.nodes is None and silent:
        words = f"{', '.join(silent)} is not heard from just now; try again, or leave it out with -x"
        raise conflict(words)
    nodes = here if wanted.nodes is None else wanted.nodes
    if words := conductor.engine.cannot_bring(nodes):
        raise conflict(words)
    return Asked(conductor, conductor.bring(wanted.reference, wanted.archive, nodes))
