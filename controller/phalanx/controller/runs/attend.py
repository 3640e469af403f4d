"""Attending a run from a terminal: everything it does is shown until it is over, and Ctrl-C is passed on.

A client only: closing it, losing it or killing it changes nothing about the run. Its exit code is the one
that run.finished holds.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain

from phalanx.controller.control.client import (
    ContactLost,
    ControlClient,
    ControlRefused,
    LogAdvanced,
    Progress,
)
from phalanx.controller.exits import SIGNAL_BASE, Exit
from phalanx.controller.fleet.events import ImageFailed, ImageReady, LogEnded, Recorded, RunFinished
from phalanx.controller.logs.follow import LogTail
from phalanx.controller.logs.sources import Source
from phalanx.controller.runs.contact import socket_path
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.live import Screen
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.screen import Passing, outstanding
from phalanx.controller.runs.view import advance
from phalanx.controller.runs.watch import PATIENCE_S, Disconnected, OutOfContact, Reconnected, Seen, watch

#: How long the controller may take to answer a request to cancel.
CANCEL_S = 10.0
#: How long a terminal may take, at the end, to show what is on its way to it.
WORDS_S = 1.0
#: Log bytes that are written at once, when there are that many.
WRITE = 256 * 1024
HANGUP = SIGNAL_BASE + signal.SIGHUP
BROKEN_PIPE = SIGNAL_BASE + signal.SIGPIPE


@dataclass(frozen=True, slots=True)
class Manners:
    """How this client behaves. ``owns``: Ctrl-C cancels the run (three steps); otherwise it only leaves."""

    owns: bool = True
    patience_s: float = PATIENCE_S
    by: str = "user"


@dataclass(frozen=True, slots=True)
class Left:
    """How attending ended: the exit code, and whether the run is known to be over."""

    code: int
    over: bool
    words: str = ""


class Attendance:
    """One client of one run."""

    def __init__(
        self, run: RunDirectory, screen: Screen, logs: LogTail | None, manners: Manners, view: RunView
    ) -> None:
        """``view`` is filled as events come; ``logs`` None shows no log lines."""
        self.view = view
        self._run = run
        self._screen = screen
        self._logs = logs
        self._manners = manners
        self._passing = Passing()
        self._advanced: dict[str, int] = {}
        self._interrupts = 0
        self._unheard = False
        self._asked: set[asyncio.Task[None]] = set()
        self._words: set[asyncio.Task[None]] = set()
        self._leave: asyncio.Future[Left] | None = None

    async def stay(self) -> Left:
        """Until the run is over, contact is lost for good, or the user leaves."""
        loop = asyncio.get_running_loop()
        self._leave = loop.create_future()
        undo = self._listen(loop)
        follow = asyncio.create_task(self._follow(), name="events and logs of the run")
        redraw = asyncio.create_task(self._redraw(), name="live picture")
        try:
            await asyncio.wait((follow, redraw, self._leave), return_when=asyncio.FIRST_COMPLETED)
            if self._leave.done():
                return self._leave.result()
            if redraw.done():
                redraw.result()
            return await follow
        finally:
            undo()
            if self._words:
                # A run that ends at once must not swallow the answer to the Ctrl-C that ended it.
                await asyncio.wait(self._words, timeout=WORDS_S)
            await _end(follow, redraw, *self._asked, *self._words)

    # --- what comes from the run ---------------------------------------------------------------------

    async def _follow(self) -> Left:
        try:
            async with aclosing(watch(self._run, self._manners.patience_s)) as everything:
                async for seen in everything:
                    await self._take(seen)
        except OutOfContact as error:
            await self._drain(final=False)
            words = f"lost contact ({error}); the run may still be going: phalanx status {self._run.run_id}"
            return Left(Exit.LOST_CONTACT, over=False, words=words)
        await self._drain(final=True)
        code = self.view.exit_code
        return Left(Exit.FAILURE if code is None else code, over=True)

    async def _take(self, seen: Seen) -> None:
        if isinstance(seen, Recorded):
            await self._event(seen)
        elif isinstance(seen, LogAdvanced):
            self._advanced.update(seen.sizes)
            await self._show_advanced()
        elif isinstance(seen, Progress):
            self._passing.progress.setdefault(seen.phase, {})[seen.node] = (seen.done, seen.total)
        elif isinstance(seen, Disconnected):
            if self.view.seq:
                await self._screen.say(f"lost the controller ({seen.reason}), trying again")
        elif isinstance(seen, Reconnected):
            # What was written meanwhile may not be announced again.
            await self._drain(final=False)
            if self.view.seq and seen.seconds > 1:
                await self._screen.say(f"the controller is back after {seen.seconds:.0f} s, nothing was lost")

    async def _event(self, recorded: Recorded) -> None:
        advance(self.view, recorded)
        await self._show_advanced()
        event = recorded.event
        if isinstance(event, ImageReady | ImageFailed):
            self._passing.progress.pop("image", None)  # what comes next is of another
        if isinstance(event, LogEnded):
            await self._show(event.path, event.length, final=True)
        if isinstance(event, RunFinished):
            # Every line before the verdict: the last screen stands below all of them.
            await self._drain(final=True)
        await self._screen.event(self.view, recorded)

    async def _show_advanced(self) -> None:
        """Log bytes that were announced, once it is known how many ranks there are to tell apart."""
        if self.view.cases and self._advanced:
            sizes, self._advanced = self._advanced, {}
            if self._logs is not None:
                tails = (self._logs.advance(path, size) for path, size in sizes.items())
                await self._put(chain.from_iterable(tails))

    async def _show(self, path: str, size: int, final: bool) -> None:
        if self._logs is not None:
            await self._put(self._logs.advance(path, size, final))

    async def _drain(self, final: bool) -> None:
        if self._logs is not None and (self.view.cases or final):
            await self._put(self._logs.drain(final))

    async def _put(self, pieces: Iterator[tuple[Source, bytes]]) -> None:
        for output, data in together(pieces):
            # Who owns the run gets its two streams apart, as from srun; who only looks gets lines.
            await self._screen.log(data, output if self._manners.owns else "out")
            if self._screen.stdout_closed and not await self._goes_on():
                return

    async def _goes_on(self) -> bool:
        """Standard output takes no lines. Who owns the run stays; who only looks has nothing more to see."""
        why = self._screen.stdout_error
        words = f"cannot write to standard output: {why}" if why else ""
        if not self._manners.owns:
            self._go(Left(Exit.FAILURE if why else BROKEN_PIPE, over=False, words=words))
        elif why and not self._unheard:
            self._unheard = True
            kept = f"the run goes on, its logs are kept: phalanx logs {self._run.run_id}"
            await self._screen.end(None, [f"phalanx: {words}; {kept}"])
        return self._manners.owns

    async def _redraw(self) -> None:
        while True:
            await self._screen.tick(self.view, self._passing)
            await asyncio.sleep(self._screen.pace_s)

    # --- what comes from the user --------------------------------------------------------------------

    def _listen(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        handlers = {
            signal.SIGINT: self._interrupt,
            signal.SIGTERM: self._terminate,
            signal.SIGHUP: lambda: self._go(Left(HANGUP, over=False)),
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)

        def undo() -> None:
            for number in handlers:
                loop.remove_signal_handler(number)

        return undo

    def _interrupt(self) -> None:
        self._interrupts += 1
        if not self._manners.owns:
            self._go(Left(Exit.INTERRUPTED, over=False))
        elif self._interrupts == 1:
            what = outstanding(self.view)
            self._ask(1, f"ending the run ({what}); Ctrl-C again kills it, a third time leaves", "Ctrl-C")
        elif self._interrupts == 2:
            self._ask(2, f"killing ({outstanding(self.view)}); Ctrl-C again leaves at once", "Ctrl-C twice")
        else:
            # At once, whatever a blocked terminal or a stuck connection would wait for; nothing to restore.
            os._exit(Exit.INTERRUPTED)

    def _terminate(self) -> None:
        if not self._manners.owns:
            self._go(Left(SIGNAL_BASE + signal.SIGTERM, over=False))
        else:
            self._ask(1, "told to terminate: ending the run", "SIGTERM")

    def _go(self, left: Left) -> None:
        if self._leave is not None and not self._leave.done():
            self._leave.set_result(left)

    def _ask(self, level: int, words: str, how: str) -> None:
        """Say it and pass it on, beside each other: a stopped terminal must not hold the request up."""
        self._passing.note = words
        say, pass_on = self._screen.say(words), self._pass_on(level, how)
        self._keep(self._words, asyncio.create_task(say, name="words about the cancel"))
        self._keep(self._asked, asyncio.create_task(pass_on, name=f"cancel level {level}"))

    def _keep(self, tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _pass_on(self, level: int, how: str) -> None:
        try:
            async with asyncio.timeout(CANCEL_S):
                await cancel(self._run, level, f"{self._manners.by} ({how})")
        except (ContactLost, ControlRefused, TimeoutError) as error:
            why = str(error) or "no answer"
            await self._screen.say(f"cannot pass that on: {why}; try: phalanx cancel {self._run.run_id}")


def together(pieces: Iterator[tuple[Source, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Small pieces of the same output as one: a thousand ranks that write a line each are one write."""
    output, held, size = "", list[bytes](), 0
    for source, data in pieces:
        if held and (source.output != output or size >= WRITE):
            yield output, b"".join(held)
            held, size = [], 0
        output, size = source.output, size + len(data)
        held.append(data)
    if held:
        yield output, b"".join(held)


async def cancel(run: RunDirectory, level: int, by: str) -> None:
    """Ask a run's controller to stop it. Raises ContactLost, ControlRefused."""
    path = socket_path(run)
    if path is None:
        raise ContactLost("the controller has not said yet where it listens")
    await ControlClient(path).cancel(level, by)


async def _end(*tasks: asyncio.Task[Left] | asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
