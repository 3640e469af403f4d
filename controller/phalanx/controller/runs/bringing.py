"""One more image for nodes of a live run, seen from a terminal: shown until it is there, or called off.

Its view is that of a run in which nothing but this image matters, so its screens are those of a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from phalanx.controller.control.client import ControlClient, ImageRequest, Notice, Progress
from phalanx.controller.exits import Exit, code_words
from phalanx.controller.fleet.events import (
    Event,
    ImageFailed,
    ImageReady,
    ImageRequested,
    ImageSource,
    Recorded,
)
from phalanx.controller.logs.clean import clean_text
from phalanx.controller.runs.ending import transfer_lines
from phalanx.controller.runs.live import Screen
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.screen import Passing
from phalanx.controller.runs.view import advance
from phalanx.controller.runs.words import Style, duration, plural, short_image


async def bring(
    client: ControlClient, wanted: ImageRequest, screen: Screen, view: RunView
) -> ImageReady | None:
    """Stay until the image is there or cannot come; its last event, None for the latter.

    ``view`` is filled. To leave earlier calls it off. Raises ContactLost, ControlRefused.
    """
    passing = Passing()
    drawing = asyncio.create_task(_redraw(screen, view, passing), name="live picture")
    try:
        async with aclosing(client.bring(wanted)) as notices:
            return await _follow(notices, screen, view, passing)
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)


async def _follow(
    notices: AsyncGenerator[Notice, None], screen: Screen, view: RunView, passing: Passing
) -> ImageReady | None:
    ready = None
    async for notice in notices:
        if isinstance(notice, Progress):
            passing.progress.setdefault(notice.phase, {})[notice.node] = (notice.done, notice.total)
        elif isinstance(notice, Recorded):
            if isinstance(notice.event, ImageRequested):
                view.request = notice.event.request
            advance(view, notice)
            if not _says_it_last(notice.event):
                await screen.event(view, notice)
            ready = notice.event if isinstance(notice.event, ImageReady) else ready
    return ready


def _says_it_last(event: Event) -> bool:
    """Whether the last lines say the same."""
    return isinstance(event, ImageFailed) or (isinstance(event, ImageSource) and bool(event.error))


async def _redraw(screen: Screen, view: RunView, passing: Passing) -> None:
    while True:
        await screen.tick(view, passing)
        await asyncio.sleep(screen.pace_s)


def last_lines(view: RunView, ready: ImageReady | None, style: Style) -> list[str]:
    """What came of it."""
    if ready is None:
        code = view.exit_code or Exit.FAILURE
        words = clean_text(view.reason) or "it was called off"
        reference = clean_text(view.image.reference)
        head = f"  {style.mark('failed')} cannot bring {reference} to every node: {words}"
        return [head, f"exit {code}  ({code_words(code)})"]
    parts = [
        f"{clean_text(ready.reference)} {short_image(ready.image_id)} on {plural(ready.nodes, 'node')}",
        duration(ready.seconds),
    ]
    return [f"  {style.mark('done')} " + f" {style.dot} ".join(parts), *transfer_lines(view, style)]


def document(view: RunView, ready: ImageReady | None) -> dict[str, Any]:
    """The same for scripts. Sizes in bytes, times in seconds."""
    found: dict[str, Any] = {
        "run_id": view.run_id,
        "request": view.request,
        "reference": view.image.reference,
        "state": "succeeded" if ready is not None else "failed",
        "exit_code": 0 if ready is not None else view.exit_code,
        "reason": view.reason,
    }
    if ready is not None:
        names = ("image_id", "nodes", "seconds", "sent_bytes", "read_bytes", "saved_bytes", "slowest")
        found |= {name: getattr(ready, name) for name in (*names, "transfer_s")}
    return found
