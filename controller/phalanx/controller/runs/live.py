"""The terminal: the only part of showing a run that writes.

Log lines go to standard output and nothing else does; everything that phalanx says goes to standard error. On
a terminal the live picture is redrawn below the log lines, at most ten times a second; the cursor is never
hidden and no mode is changed, so there is nothing to restore whatever ends this process. Writes happen in a
thread of their own: a terminal that is stopped (Ctrl-S) or a full pipe must not keep Ctrl-C from being heard.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from phalanx.controller.fleet.events import Recorded, to_line
from phalanx.controller.runs import changes, screen
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.words import Style, moment

OUT, ERR = 1, 2
#: Seconds without a word after which plain progress says that it still lives.
HEARTBEAT_S = 30.0


class Writer:
    """Writes to the two standard streams, in order, without blocking the loop.

    ``closed``: standard output takes nothing more. ``why``: in the system's words, "" when its reader left.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "terminal")
        self.closed, self.why = False, ""

    async def write(self, descriptor: int, data: bytes) -> None:
        """All of ``data``; what cannot be written is dropped, and of standard output all that follows."""
        if data and not (self.closed and descriptor == OUT):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, descriptor, data)

    def _write(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[_written(descriptor, view) :]
        except OSError as error:
            # A reader that left, a terminal that was hung up, a full disk: the run depends on none of them.
            if descriptor == OUT:
                self.closed = True
                self.why = "" if error.errno in (errno.EPIPE, errno.EIO) else error.strerror or str(error)


def _written(descriptor: int, data: memoryview) -> int:
    """How much of it was written; waits for one that another program has made not to block."""
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        select.select([], [descriptor], [])
        return 0


class Screen:
    """How a run is shown; this one gives only log lines and the last screen (``quiet``)."""

    #: seconds between calls of ``tick``
    pace_s = 1.0
    #: show the spawner's own words as they come
    verbose = False

    def __init__(self, writer: Writer, style: Style, now: Callable[[], float]) -> None:
        self._writer = writer
        self._style = style
        self._now = now

    @property
    def stdout_closed(self) -> bool:
        """Standard output takes no log lines any more."""
        return self._writer.closed

    @property
    def stdout_error(self) -> str:
        """Why, "" when it is only that nobody reads them."""
        return self._writer.why

    async def log(self, data: bytes, output: str = "out") -> None:
        """Lines of the workload: its standard output to ours, its standard error to ours."""
        await self._writer.write(ERR if output == "err" else OUT, data)

    async def event(self, view: RunView, recorded: Recorded) -> None:
        """Something happened; ``view`` knows it already."""

    async def tick(self, view: RunView, passing: screen.Passing) -> None:
        """Time has passed."""

    async def say(self, text: str) -> None:
        """A word of phalanx itself that is no event."""

    async def end(self, view: RunView | None, lines: list[str]) -> None:
        """The last screen."""
        await self._writer.write(ERR, _encode(lines))


class Plain(Screen):
    """Timestamped lines: state changes, and a sign of life each 30 s."""

    def __init__(self, writer: Writer, style: Style, now: Callable[[], float]) -> None:
        super().__init__(writer, style, now)
        self._last = now()

    async def event(self, view: RunView, recorded: Recorded) -> None:
        text = changes.words(view, recorded) or (changes.said(recorded) if self.verbose else "")
        if text:
            await self._line(recorded.at, text)

    async def tick(self, view: RunView, passing: screen.Passing) -> None:
        now = self._now()
        if now - self._last >= HEARTBEAT_S:
            await self._line(now, changes.heartbeat(view, now))

    async def say(self, text: str) -> None:
        await self._line(self._now(), text)

    async def _line(self, at: float, text: str) -> None:
        self._last = self._now()
        await self._writer.write(ERR, _encode([f"{moment(at)} {text}"]))


class Jsonl(Screen):
    """Every event as its line of JSON on standard error."""

    async def event(self, view: RunView, recorded: Recorded) -> None:
        await self._writer.write(ERR, to_line(view.run_id, recorded))

    async def end(self, view: RunView | None, lines: list[str]) -> None:
        """The event log has said it already."""


class Tty(Screen):
    """The live picture below the log lines."""

    pace_s = 0.1

    def __init__(self, writer: Writer, style: Style, now: Callable[[], float], shared: bool) -> None:
        """``shared``: standard output is this terminal as well."""
        super().__init__(writer, style, now)
        self._shared = shared
        self._area: list[str] = []
        self._drawn = 0
        self._drawn_at = 0.0
        self._dirty = False
        self._turn = asyncio.Lock()

    async def log(self, data: bytes, output: str = "out") -> None:
        if not self._shared and output != "err":
            await super().log(data, output)
            return
        async with self._turn:
            # One write: picture away, lines, picture again, so that nothing flickers.
            await self._writer.write(ERR, self._away() + data + self._draw(self._area))

    async def event(self, view: RunView, recorded: Recorded) -> None:
        self._dirty = True
        said = changes.said(recorded) if self.verbose else ""
        if said:
            await self.say(said)

    async def say(self, text: str) -> None:
        async with self._turn:
            await self._writer.write(
                ERR, self._away() + _encode([f"phalanx: {text}"]) + self._draw(self._area)
            )

    async def tick(self, view: RunView, passing: screen.Passing) -> None:
        now = self._now()
        if not self._dirty and now - self._drawn_at < 1.0:
            return
        area = screen.progress(view, now, self._style, passing)
        self._dirty, self._drawn_at = False, now
        async with self._turn:
            self._area = area
            await self._writer.write(ERR, self._away() + self._draw(area))

    async def end(self, view: RunView | None, lines: list[str]) -> None:
        last = screen.progress(view, self._now(), self._style) if view is not None else []
        async with self._turn:
            data = self._away() + _encode([*last, "", *lines] if last else lines)
            await self._writer.write(ERR, data)

    def _away(self) -> bytes:
        """Cursor to the first line of the picture, everything below cleared (ECMA-48 CPL, ED)."""
        if not self._drawn:
            return b""
        drawn, self._drawn = self._drawn, 0
        return b"\x1b[%dF\x1b[J" % drawn

    def _draw(self, area: list[str]) -> bytes:
        self._drawn = len(area)
        return _encode(area)


def _encode(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")


def resolved(progress: str) -> str:
    """What ``--progress`` means on this terminal: auto is tty or plain."""
    if progress != "auto":
        return progress
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    return "tty" if sys.stderr.isatty() and not dumb and not os.environ.get("CI") else "plain"


def choose(progress: str, writer: Writer, style: Style, now: Callable[[], float]) -> Screen:
    """The screen for ``--progress``: auto, tty, plain, json or quiet."""
    progress = resolved(progress)
    if progress == "tty":
        return Tty(writer, style, now, shared=sys.stdout.isatty())
    return {"plain": Plain, "json": Jsonl}.get(progress, Screen)(writer, style, now)
