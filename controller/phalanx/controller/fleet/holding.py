"""What a run holds of its target: an allocation and the agents on it, from the first request to the end.

Whatever becomes of the controller's other parts, ``let_go`` leaves neither an agent nor an allocation behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..targets.base import (
    Allocation,
    AllocationError,
    AllocationHealth,
    Bootstrap,
    Spawned,
    SpawnError,
    Target,
)
from . import events as ev
from .instructions import ExplainMissing

#: The scheduler is asked about the allocation this often, in seconds: agents tell sooner.
POLL_SCHEDULER_S = 30.0
#: States of a job that is going, which do not say why; and how long the state after it is waited for.
PASSING = frozenset({"COMPLETING", "STAGE_OUT"})
FINAL_STATE_S = 3.0
#: Lines of the spawner that are recorded as events; all are in the launch directory.
MOST_SPAWN_LINES = 500
#: How long a spawn that has begun may take to return, and a spawner to be over after its end, in seconds.
SPAWN_S = 60.0
ENDED_WITHIN_S = 30.0
#: How long the scheduler may take to take an allocation back when the controller cannot go on, in seconds.
RELEASE_S = 60.0


class Holding:
    """Allocation and spawner of one run. What happens to them is recorded as events."""

    def __init__(self, target: Target, record: Callable[[ev.Event], None], launch: Path) -> None:
        self._target = target
        self._record = record
        self._launch = launch
        self.allocation: Allocation | None = None
        self._released = False
        self._spawning: asyncio.Task[Spawned] | None = None
        self._spawned: Spawned | None = None
        self._spawn_over = asyncio.Event()
        self._spawn_lines = 0
        self._scheduler_asked = False
        self._scheduler_word = ""

    # --- getting

    async def allocate(self) -> None:
        """Get the nodes."""
        argv = self._target.allocation_argv()
        if argv:
            self._record(ev.AllocationRequested(argv))
        try:
            allocation = await self._target.allocate()
        except AllocationError as error:
            self._record(ev.AllocationRefused(str(error)))
        except asyncio.CancelledError:
            # Stopped, or the controller is ending; the target has given back what it had asked for.
            self._record(ev.AllocationRefused("cancelled while waiting for nodes"))
        else:
            self.allocation = allocation
            self._record(ev.AllocationGranted(allocation.job_id, allocation.nodes, allocation.owned))

    async def spawn(self, bootstrap: Bootstrap, agent: Path) -> None:
        """Start the agents, and wait until their spawner is over."""
        if self.allocation is None:
            raise RuntimeError("no allocation to spawn on")
        self._launch.mkdir(mode=0o700, exist_ok=True)
        # A task of its own: a spawn that is cancelled half-way could leave agents that nobody knows.
        self._spawning = asyncio.create_task(
            self._target.spawn(self.allocation, bootstrap, agent, self._launch, self._said),
            name="start of agents",
        )
        try:
            self._spawned = await asyncio.shield(self._spawning)
        except SpawnError as error:
            self._spawn_over.set()
            self._record(ev.SpawnEnded(127, str(error)))
            return
        self._record(ev.SpawnStarted(self._spawned.argv))
        status, words = await self._spawned.wait()
        self._spawn_over.set()
        self._record(ev.SpawnEnded(status, words))

    def _said(self, node: str, line: str) -> None:
        self._spawn_lines += 1
        if self._spawn_lines <= MOST_SPAWN_LINES:
            says_gone = getattr(self._spawned, "says_gone", None)
            gone = bool(node) and says_gone is not None and says_gone(line)
            self._record(ev.SpawnSaid(node, line[:2000], gone))

    async def explain(self, instruction: ExplainMissing) -> None:
        """Say of each missing node why it is not there, as far as can be known."""
        inquire = getattr(self._spawned, "inquire", None)
        if inquire is not None:
            await inquire(instruction.nodes)
        missing = {node: self._reason(node) for node in instruction.nodes}
        self._record(ev.JoinTimeout(instruction.joined, instruction.expected, missing))

    def _reason(self, node: str) -> str:
        words = self._spawned.reason(node) if self._spawned is not None else ""
        return words or "its agent was started, and nothing was heard of it"

    # --- the scheduler

    async def poll(self, over: Callable[[], bool]) -> None:
        """Ask the scheduler now and then, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SCHEDULER_S)
            await self.ask(over)

    async def ask(self, over: Callable[[], bool]) -> None:
        """Ask the scheduler whether the allocation is still there, unless the run is ``over``."""
        if self.allocation is None or self._scheduler_asked or over():
            return
        report = await self._target.report(self.allocation)
        if report.health is AllocationHealth.ENDED and not self._scheduler_asked:
            self._scheduler_asked = True
            self._scheduler_word = report.state
            self._record(ev.AllocationEnded(report.state, report.reason))

    async def _hear_final_state(self, allocation: Allocation) -> None:
        """A job that is being taken away only says COMPLETING; why it went it says when it has gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINAL_STATE_S):
                while self._scheduler_word in PASSING:
                    report = await self._target.report(allocation)
                    if report.health is AllocationHealth.ENDED and report.state not in PASSING:
                        self._scheduler_word = report.state
                        self._record(ev.AllocationEnded(report.state, report.reason))
                        return
                    await asyncio.sleep(FINAL_STATE_S / 30)

    # --- giving back

    def give_back_argv(self) -> tuple[str, ...]:
        """The command with which others can give the allocation back once we are gone, () for none."""
        return self._target.give_back_argv(self.allocation) if self.allocation is not None else ()

    async def end_agents(self, grace_s: float) -> None:
        """End what is left of the spawner and its agents after the grace."""
        if self._spawning is None:
            self._record(ev.SpawnEnded(0, "nothing was spawned"))
            return
        if await self._over_within(grace_s):
            return
        await self._kill_spawner()
        if self._spawned is not None and not await self._over_within(ENDED_WITHIN_S):
            self._record(ev.SpawnEnded(255, f"it did not end within {ENDED_WITHIN_S:g} s of being killed"))

    async def _kill_spawner(self) -> None:
        """End spawner and agents for sure. What it is just starting is waited for: it must not be missed."""
        if self._spawning is not None:
            await asyncio.wait([self._spawning], timeout=SPAWN_S)
            if self._spawning.done() and not self._spawning.cancelled() and not self._spawning.exception():
                self._spawned = self._spawning.result()
            else:
                self._spawning.cancel()
        if self._spawned is not None:
            await self._spawned.end(0.0)

    async def _over_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._spawn_over.wait()  # agents that have left end by themselves
        except TimeoutError:  # our own deadline: nothing in there touches a socket
            return False
        return True

    async def release(self) -> None:
        """Give the allocation back if it is ours."""
        if self.allocation is None:
            self._record(ev.AllocationReleased("", ""))
            return
        if self._scheduler_asked:
            await self._hear_final_state(self.allocation)
        error = await self._give_back(self.allocation)
        self._record(ev.AllocationReleased(self.allocation.job_id, error))

    async def _give_back(self, allocation: Allocation) -> str:
        error = await self._target.release(allocation) if allocation.owned else ""
        self._released = not error
        return error

    async def let_go(self) -> list[str]:
        """End agents and release the allocation, for a controller that cannot go on; what could not be done.

        Each part is tried whatever becomes of the one before it.
        """
        left: list[str] = []
        if not self._spawn_over.is_set():
            try:
                await self._kill_spawner()
            except Exception as error:  # noqa: BLE001 - the allocation must be released in any case
                left.append(f"agents may be left on their nodes: {error}")
        if self.allocation is not None and not self._released:
            job = self.allocation.job_id or "of nodes"
            try:
                async with asyncio.timeout(RELEASE_S):
                    error_words = await self._give_back(self.allocation)
            except Exception as error:  # noqa: BLE001 - these are the last words about the allocation
                error_words = str(error) or type(error).__name__
            if error_words:
                left.append(f"allocation {job}: {error_words}")
        return left
