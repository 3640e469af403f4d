"""Back-pressure: a case whose unsent output is beyond its quota is paused until it has drained.

The spool is what stands between a workload that floods its output and the node's disk. Nothing is thrown
away: the processes of the case are stopped, the log stream catches up, and they go on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.agent.logs import LogPump
from phalanx.agent.runtimes.base import Place, RuntimeUnavailable

#: Output of a case on one node that may wait for the controller, in bytes. Long enough for a controller that
#: is away for a minute (16 MB/s), and small beside what the disk of a compute node has free.
QUOTA_BYTES = 1 << 30
#: Bytes of the spool's filesystem that no output may take: others live on it too.
RESERVE_BYTES = 256 << 20
#: Output that may wait while less than the reserve is free: enough to keep the log stream busy.
SHORT_BYTES = 16 << 20
#: How often is looked, in seconds, while there is a place to look at and while there is none.
LOOK_S, IDLE_S = 0.02, 0.25
#: A case that pauses and goes on all the time is told of this often, in seconds.
TELL_EVERY_S = 60.0


@dataclass(slots=True)
class Gauge:
    """The decision for one case. Pure."""

    quota: int = QUOTA_BYTES
    held: bool = False
    growth: int = 0
    _last: int = 0
    _most: int = 0

    def judge(self, waiting: int, free: int) -> bool:
        """Whether the case is to be paused: ``waiting`` bytes of it are unacked, ``free`` are on the disk.

        It is paused as soon as the next look might find it beyond the quota, by what it was seen to write
        between two looks; and it goes on below half of it.
        """
        limit = self.quota if free >= RESERVE_BYTES else min(self.quota, SHORT_BYTES)
        self.growth = max(0, waiting - self._last)
        self._last, self._most = waiting, max(self._most, self.growth)
        expected = max(self.growth, min(self._most, limit // 4))
        self.held = waiting > limit // 2 if self.held else waiting + expected >= limit
        return self.held


@dataclass(slots=True)
class Pressed:
    """A place under the quota: the case whose streams count, and whether it may be paused just now."""

    case: str
    place: Place
    spool: Path
    may_pause: bool


@dataclass(slots=True)
class _Hold:
    gauge: Gauge
    place: Place
    paused: bool = False
    told: bool = False
    told_at: float = -TELL_EVERY_S
    trouble: str = ""


@dataclass(slots=True)
class Pressure:
    """Looks at every place again and again. ``notice`` tells people."""

    logs: LogPump
    places: Callable[[], Iterable[Pressed]]
    notice: Callable[[str], None]
    quota: int = QUOTA_BYTES
    _holds: dict[str, _Hold] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S if self._holds else IDLE_S)

    async def look(self) -> None:
        """Pause and resume what has to be."""
        there = {pressed.case: pressed for pressed in self.places()}
        for case in self._holds.keys() - there.keys():
            del self._holds[case]
        for case, pressed in there.items():
            hold = self._holds.get(case)
            if hold is None or hold.place is not pressed.place:
                hold = self._holds[case] = _Hold(Gauge(self.quota), pressed.place)
            await self._look_at(hold, pressed)

    async def _look_at(self, hold: _Hold, pressed: Pressed) -> None:
        waiting = self.logs.unacked(pressed.case)
        wanted = hold.gauge.judge(waiting, _free(pressed.spool)) and pressed.may_pause
        if wanted == hold.paused and not (wanted and hold.gauge.growth):
            return  # growth while it is paused: someone came late
        try:
            await (pressed.place.pause() if wanted else pressed.place.resume())
        except (RuntimeUnavailable, OSError) as error:
            if str(error) != hold.trouble:
                hold.trouble = str(error)
                self.notice(f"cannot {'pause' if wanted else 'resume'} {_name(pressed)}: {error}")
            return
        if wanted != hold.paused:
            hold.paused = wanted
            self._tell(hold, _name(pressed), waiting)

    def _tell(self, hold: _Hold, name: str, waiting: int) -> None:
        now = time.monotonic()
        if hold.paused:
            hold.told = now - hold.told_at >= TELL_EVERY_S
            if hold.told:
                hold.told_at = now
                size = f"{waiting / (1 << 20):.0f} MiB"
                self.notice(f"{name} is paused: {size} of its output wait for the controller")
        elif hold.told:
            self.notice(f"{name} goes on: its output has reached the controller")


def _name(pressed: Pressed) -> str:
    return f"case {pressed.case}" if pressed.case else "what was started beside the cases"


def _free(folder: Path) -> int:
    try:
        about = os.statvfs(folder)
    except OSError:
        return RESERVE_BYTES  # it is being removed
    return about.f_bavail * about.f_frsize
