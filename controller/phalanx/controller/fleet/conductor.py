"""The shell around the engine: it carries out instructions and reports what came of them as events.

Every activity is a task of the conductor's group with a name; the whole tree is in ``conduct``.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from phalanx.protocol.membership import Member

from ..images.transfer import ImageTransfer
from ..logs.store import LogStore, StoredStream
from ..plan.model import Plan
from ..results.outcome import Circumstances, Evidence, judge
from ..targets.agent_file import agent_file
from ..targets.base import (
    Allocation,
    AllocationError,
    AllocationHealth,
    Bootstrap,
    Spawned,
    SpawnError,
    Target,
)
from ..targets.bundle import cache_directory
from ..targets.library_file import library_zip
from . import events as ev
from . import instructions as ins
from .certificate import make_identity
from .chronicle import Chronicle
from .engine import Engine
from .exchange import CaseExchange
from .hub import Hub
from .intake import Intake
from .journal import Journal
from .listener import Listener, accept_forever, listen
from .pulling import Pulling
from .shipping import Shipping
from .states import Phase
from .timers import Timers
from .workspace import WorkspaceTooLarge, pack

#: The scheduler is asked about the allocation this often, in seconds: agents tell sooner.
POLL_SCHEDULER_S = 30.0
#: How long logs of a case may take to be whole before its verdict, in seconds.
LOGS_WITHIN_S = 30.0
#: Lines of the spawner that are recorded as events; all are in the launch directory.
MOST_SPAWN_LINES = 500


class Conductor:
    """One run, from the plan to its last event. ``publish`` gets every line of the event log
    with its sequence number."""

    def __init__(
        self,
        run_dir: Path,
        plan: Plan,
        secret_of: Callable[[str], str],
        target: Target,
        publish: Callable[[int, bytes], None],
        progress: Callable[[str, str, int, int], None],
    ) -> None:
        self.run_dir = run_dir
        self.plan = plan
        self.target = target
        self.engine = Engine(plan, secret_of)
        self.finished = asyncio.Event()
        self._journal = Journal(run_dir / "events.jsonl", plan.run_id)
        self._chronicle = Chronicle(self._journal, self._believe, publish)
        self.record = self._chronicle.record
        self._timers = Timers(self._on_timer)
        self._identity = make_identity(plan.run_id)
        self._secret = secrets.token_bytes(32)
        self._cache = cache_directory(os.environ)
        self._agent = agent_file(self._cache)
        single = len(plan.cases) == 1
        self.store = LogStore(run_dir, single_case=single, ack=self._ack, ended=self._log_ended)
        self.hub = Hub(
            plan.run_id,
            self._secret,
            self._identity.fingerprint,
            self._agent.sha256,
            plan.timing,
            self.record,
            self.engine.roster.seat,
        )
        shipping = Shipping(self.hub, self.record, progress)
        pulling = Pulling(self.hub, run_dir, single, self.record)
        self.intake = Intake(self.hub, self.record, self.store, shipping, pulling, self.start)
        self._images = ImageTransfer(self.hub, pulling, self.record, run_dir / ".images")
        self.intake.on_exported = self._images.on_exported
        self._tasks: asyncio.TaskGroup | None = None
        self._listener: Listener | None = None
        self._allocation: Allocation | None = None
        self._allocating: asyncio.Task[None] | None = None
        self._spawned: Spawned | None = None
        self._spawn_over = asyncio.Event()
        self._spawn_lines = 0
        self._scheduler_asked = False
        self._case_began: dict[str, float] = {}
        self._evidence: defaultdict[str, Evidence] = defaultdict(Evidence)

    # --- the tree of tasks

    async def conduct(self) -> None:
        """Carry the run to its end. Raises JournalError when the event log cannot be written."""
        self._listener = listen(self.target.listen_addresses())
        self.intake.connect()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                own = [
                    self.start(self._chronicle.keep_writing(), name="event log"),
                    self.start(self.store.keep_synced(), name="log sync"),
                    self.start(self.hub.keep_time(), name="heartbeats"),
                    self.start(self._poll_scheduler(), name="scheduler"),
                ]
                for sock in self._listener.sockets:
                    context = self._identity.context
                    own.append(
                        self.start(accept_forever(sock, context, self.hub.make_session), name="accept")
                    )
                names = tuple(case.name for case in self.plan.cases)
                target = self.plan.target
                self.record(ev.RunStarted(self.plan.name, target.kind, target.nodes, names, os.getpid()))
                await self.finished.wait()
                await self._close()
                raise _Over
        except* _Over:
            pass
        finally:
            self._timers.close()
            self._listener.close()
            self._journal.close()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Start a task of the run."""
        if self._tasks is None:
            work.close()
            raise RuntimeError(f"the run is over: {name}")
        return self._tasks.create_task(work, name=name)

    async def _close(self) -> None:
        await self.hub.close()
        await self.store.close()

    # --- events and instructions

    def _believe(self, recorded: ev.Recorded) -> None:
        """An event is in the log: what follows from it."""
        event = recorded.event
        self._keep_exchange(event)
        if case := getattr(event, "case", ""):
            self._evidence[case].add(event)
        now = time.monotonic()
        for instruction in self.engine.handle(event, now):
            self._perform(instruction)
        if isinstance(event, ev.RunFinished):
            self.finished.set()

    def _on_timer(self, name: str) -> None:
        for instruction in self.engine.on_timer(name, time.monotonic()):
            self._perform(instruction)

    def _perform(self, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.Record():
                self.record(instruction.event)
            case ins.Tell():
                self.hub.tell(instruction.nodes, instruction.message)
            case ins.SetTimer():
                self._timers.set(instruction.name, instruction.seconds)
            case ins.DropTimer():
                self._timers.drop(instruction.name)
            case ins.StopAllocating():
                if self._allocating is not None:
                    self._allocating.cancel()
            case _:
                self._perform_long(instruction)

    def _perform_long(self, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.AllocateNodes():
                self._allocating = self.start(self._allocate(), name="allocation")
            case ins.SpawnAgents():
                self.start(self._spawn(), name="spawner")
            case ins.ExplainMissing():
                self.start(self._explain(instruction), name="missing nodes")
            case ins.PrepareImage():
                self.start(self._images.prepare(instruction), name="image source")
            case ins.Ship():
                self.start(self._ship(instruction), name=f"ship {instruction.purpose}")
            case ins.JudgeCase():
                self.start(self._judge(instruction), name=f"verdict of {instruction.case}")
            case ins.AskScheduler():
                self.start(self._ask_scheduler(), name="ask the scheduler")
            case ins.EndAgents():
                self.start(self._end_agents(instruction.grace_s), name="end of agents")
            case ins.ReleaseAllocation():
                self.start(self._release(), name="release")
            case _:
                raise TypeError(f"no way to perform {type(instruction).__name__}")

    # --- nodes

    async def _allocate(self) -> None:
        argv = self.target.allocation_argv()
        if argv:
            self.record(ev.AllocationRequested(argv))
        try:
            allocation = await self.target.allocate()
        except AllocationError as error:
            self.record(ev.AllocationRefused(str(error)))
        except asyncio.CancelledError:
            # Only StopAllocating cancels this task alone; the target has given back what it had asked for.
            self.record(ev.AllocationRefused("cancelled while waiting for nodes"))
        else:
            self._allocation = allocation
            self.record(ev.AllocationGranted(allocation.job_id, allocation.nodes, allocation.owned))

    async def _spawn(self) -> None:
        if self._allocation is None or self._listener is None:
            raise RuntimeError("no allocation to spawn on")
        bootstrap = Bootstrap(
            self.plan.run_id,
            self._listener.addresses,
            self._identity.fingerprint.hex(),
            self._secret.hex(),
            self._agent.sha256,
            self.plan.timing.join_timeout_s,
            self.target.give_back_argv(self._allocation),
        )
        launch = self.run_dir / "launch"
        launch.mkdir(mode=0o700, exist_ok=True)
        try:
            self._spawned = await self.target.spawn(
                self._allocation, bootstrap, self._agent.path, launch, self._spawner_said
            )
        except SpawnError as error:
            self.record(ev.SpawnEnded(127, str(error)))
            return
        self.record(ev.SpawnStarted(self._spawned.argv))
        status, words = await self._spawned.wait()
        self._spawn_over.set()
        self.record(ev.SpawnEnded(status, words))

    def _spawner_said(self, node: str, line: str) -> None:
        self._spawn_lines += 1
        if self._spawn_lines <= MOST_SPAWN_LINES and self._tasks is not None:
            self.record(ev.SpawnSaid(node, line[:2000]))

    async def _explain(self, instruction: ins.ExplainMissing) -> None:
        spawned = self._spawned
        inquire = getattr(spawned, "inquire", None)
        if inquire is not None:
            await inquire(instruction.nodes)
        missing = {node: self._reason(node) for node in instruction.nodes}
        self.record(ev.JoinTimeout(instruction.joined, instruction.expected, missing))

    def _reason(self, node: str) -> str:
        words = self._spawned.reason(node) if self._spawned is not None else ""
        return words or "its agent was started, and nothing was heard of it"

    async def _end_agents(self, grace_s: float) -> None:
        if self._spawned is None:
            self.record(ev.SpawnEnded(0, "nothing was spawned"))
            return
        try:
            async with asyncio.timeout(grace_s):
                await self._spawn_over.wait()  # agents that have left end by themselves
        except TimeoutError:  # our own deadline: nothing in there touches a socket
            await self._spawned.end(0.0)

    async def _release(self) -> None:
        if self._allocation is None:
            self.record(ev.AllocationReleased("", ""))
            return
        error = await self.target.release(self._allocation) if self._allocation.owned else ""
        self.record(ev.AllocationReleased(self._allocation.job_id, error))

    # --- scheduler

    async def _poll_scheduler(self) -> None:
        while True:
            await asyncio.sleep(POLL_SCHEDULER_S)
            await self._ask_scheduler()

    async def _ask_scheduler(self) -> None:
        late = (Phase.ENDING, Phase.RELEASING, Phase.RELEASED, Phase.FINISHED)
        if self._allocation is None or self._scheduler_asked or self.engine.phase in late:
            return
        report = await self.target.report(self._allocation)
        if report.health is AllocationHealth.ENDED and not self._scheduler_asked:
            self._scheduler_asked = True
            self.record(ev.AllocationEnded(report.state, report.reason))

    # --- content

    async def _ship(self, instruction: ins.Ship) -> None:
        try:
            path = await asyncio.to_thread(self._shipped_file, instruction)
        except (OSError, WorkspaceTooLarge) as error:
            for node in instruction.nodes:
                self.record(ev.BlobFetched(node, instruction.purpose, "", 0, str(error)))
            return
        await self.intake.shipping.ship(instruction.purpose, path, instruction.nodes)

    def _shipped_file(self, instruction: ins.Ship) -> Path:
        if instruction.purpose == "library":
            return library_zip(self._cache).path
        if instruction.purpose == "image":
            return self._images.archive
        stage = self.run_dir / ".workspaces"
        stage.mkdir(mode=0o700, exist_ok=True)
        archive = stage / f"{secrets.token_hex(4)}.tar"
        pack(Path(instruction.path), archive)
        return archive

    # --- cases

    def _keep_exchange(self, event: ev.Event) -> None:
        """Ranks that are over or lost leave the barriers of their case."""
        if isinstance(event, ev.CaseStarted):
            self._case_began[event.case] = time.monotonic()
            per_node = event.ranks // max(1, len(event.nodes))
            node_of = {rank: event.nodes[rank // per_node] for rank in range(event.ranks)}
            self.intake.exchange = CaseExchange(event.case, node_of)
        elif isinstance(event, ev.RankExited) and event.rank >= 0 and not event.step.startswith("exec-"):
            words = event.detail or f"exit status {event.status}"
            self.intake.ranks_gone([event.rank], f"{words} on {event.node}")
        elif isinstance(event, ev.AgentLost) and self.intake.exchange is not None:
            ranks = [r for r, node in self.intake.exchange.node_of.items() if node == event.node]
            self.intake.ranks_gone(ranks, f"{event.node} was lost")

    async def _judge(self, instruction: ins.JudgeCase) -> None:
        await self._logs_are_whole(instruction.case)
        began = self._case_began.get(instruction.case, time.monotonic())
        seconds = time.monotonic() - began
        engine = self.engine
        image_id = engine.preparation.image_id if engine.preparation else ""
        facts = {name: one.facts for name, one in engine.roster.nodes.items() if one.facts is not None}
        event = await asyncio.to_thread(
            judge,
            self.plan,
            instruction.case,
            self.run_dir,
            instruction.outcome,
            self._evidence[instruction.case],
            Circumstances(engine.job_id, image_id, seconds, facts),
        )
        self.record(event)

    async def _logs_are_whole(self, case: str) -> None:
        deadline = time.monotonic() + LOGS_WITHIN_S
        while time.monotonic() < deadline:
            here = self.engine.roster.of(Member.JOINED)
            if not self.store.incomplete(case, here):
                return
            await asyncio.sleep(0.02)

    # --- logs

    def _ack(self, name: Any, offset: int, credit: int) -> None:
        self.intake.ack(name, offset, credit)

    def _log_ended(self, stream: StoredStream) -> None:
        receiver = stream.receiver
        if self._tasks is not None:
            self.record(ev.LogEnded(stream.name.node, stream.path, receiver.final or 0, receiver.missing))

    # --- for the control socket

    def cancel(self, level: int, by: str) -> None:
        """Someone asks to stop."""
        self.record(ev.CancelRequested(level, by))


class _Over(Exception):
    """The run is over: ends the group's remaining tasks."""
