"""One process of a step, from its start to its verdict, whoever ends it: itself, its deadline, or a person.

What came first is the cause: a stop that is asked for while a deadline's grace runs changes nothing, a
process that ended by itself in the same moment keeps its own verdict. A process that cannot be ended gets
a verdict as well, so that a run never waits for a stuck device.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.agent.runtimes.base import Ended, Place, Running, RuntimeUnavailable
from phalanx.agent.steps import NeverStarted
from phalanx.protocol.messages import Cause, StepStart

#: Status of what was stopped before it ran (128 + SIGTERM), of what could not be ended (128 + SIGKILL) and
#: of what its deadline ended although it says 0 (as timeout(1)).
_TERMINATED, _KILLED, _TIMED_OUT = 143, 137, 124


def not_started(words: str, cause: Cause = Cause.NOT_STARTED) -> Ended:
    """The verdict on a process that never ran."""
    return Ended(126, cause, 0.0, words)


@dataclass(slots=True, eq=False)
class Attempt:
    """``message`` for one ``rank``. ``over`` is set once there is a verdict and someone was told."""

    message: StepStart
    rank: int
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _running: Running | None = None
    _why: Cause | None = None
    _grace_s: float = 0.0
    _stuck: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def stopping(self) -> bool:
        """Whether it is being ended."""
        return self._why is not None

    async def run(
        self,
        place: Place,
        env: dict[str, str],
        directory: Path,
        on_start: Callable[[], None],
        at_deadline: Callable[[], Awaitable[None]],
    ) -> Ended:
        """Start it in a place and wait for its end. ``at_deadline`` runs before a deadline ends it."""
        began = time.monotonic()
        if self.stopping:
            return Ended(_TERMINATED, Cause.STOPPED, 0.0, "stopped before it was started")
        try:
            running = self._running = await place.start(self.message, self.rank, env, directory)
        except (RuntimeUnavailable, OSError) as error:
            return not_started(f"cannot start {self.message.argv[:1]}: {error}", Cause.ENGINE)
        if not isinstance(running, NeverStarted):
            on_start()
        ended = await self._watch(running, at_deadline)
        if ended is None:
            why = self._why or Cause.STOPPED
            return Ended(_KILLED, why, time.monotonic() - began, self._stuck.result())
        if self._why is Cause.DEADLINE and ended.cause is Cause.STOPPED:
            words = f"stopped at its deadline of {self.message.deadline_s:g} s"
            status = ended.status or _TIMED_OUT
            return dataclasses.replace(ended, status=status, cause=Cause.DEADLINE, detail=words)
        return ended

    async def _watch(self, running: Running, at_deadline: Callable[[], Awaitable[None]]) -> Ended | None:
        """How it ended; None when it could not be ended."""
        name = f"end of {self.message.step} rank {self.rank}"
        ending = asyncio.get_running_loop().create_task(running.wait(), name=name)
        try:
            if self._why is not None:  # asked for while it was started
                await self._end(running, self._grace_s)
            await self._either(ending, self.message.deadline_s or None)
            if not ending.done() and not self._stuck.done() and self._why is None:
                self._why = Cause.DEADLINE
                await at_deadline()
                if not ending.done():
                    await self._end(running, self.message.grace_s)
            await self._either(ending, None)
            return ending.result() if ending.done() else None
        finally:
            ending.cancel()

    async def _either(self, ending: asyncio.Task[Ended], within_s: float | None) -> None:
        either: list[asyncio.Future[Any]] = [ending, self._stuck]
        await asyncio.wait(either, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self, grace_s: float) -> None:
        """TERM, then KILL after ``grace_s`` seconds; again, to hasten it. Returns once there is a verdict."""
        self._grace_s = min(grace_s, self._grace_s) if self._why is not None else grace_s
        self._why = self._why or Cause.STOPPED
        if self._running is not None and not self.over.is_set():
            await self._end(self._running, grace_s)
        await self.over.wait()

    async def _end(self, running: Running, grace_s: float) -> None:
        try:
            await running.stop(grace_s)
        except (RuntimeUnavailable, OSError) as error:
            with contextlib.suppress(asyncio.InvalidStateError):
                self._stuck.set_result(str(error))
