"""The shell around the engine: it carries out instructions and reports what came of them as events.

Every activity is a task of the conductor's group with a name; the whole tree is in ``conduct``.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import secrets
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from phalanx.protocol.membership import Member
from phalanx.protocol.messages import BulkSecurity, Runtime

from ..images.delivery import Delivery, staging
from ..images.relays import Relays
from ..images.sources import Sources
from ..logs.pausing import Pausing
from ..logs.store import LogStore, StoredStream
from ..plan.model import Plan
from ..results.outcome import Circumstances, Evidence, Missing, judge
from ..runs.files import RunFiles
from ..targets.agent_file import agent_file
from ..targets.base import Bootstrap, Target
from ..targets.bundle import cache_directory
from . import events as ev
from . import instructions as ins
from .certificate import make_identity
from .chronicle import Chronicle
from .content import UNMADE, Content
from .ending import Ending, ending_of
from .engine import LEAVE_SLACK_S, Engine
from .exchange import CaseExchange
from .holding import Holding
from .hub import Hub
from .intake import Intake
from .journal import Journal, JournalError
from .listener import Listener, accept_forever, listen
from .preparation import kinds_of
from .pulling import INCOMING, Pulling
from .reserve import Reserve
from .shipping import Shipping
from .states import OVER
from .timers import Timers

#: Pause between two looks whether the logs of a case are whole, in seconds.
LOOK_S = 0.05
#: Folders of the run directory that hold what is on its way; nothing of them is kept.
STAGES = (INCOMING, ".workspaces", ".images")
#: How long logs of a case may take to be whole before its verdict, in seconds.
LOGS_WITHIN_S = 30.0

log = logging.getLogger("phalanx.controller")


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
        file_mode: int | None = None,
    ) -> None:
        self.run_dir = run_dir
        self._file_mode = file_mode
        self.plan = plan
        self.target = target
        self.engine = Engine(plan, secret_of)
        self._files = RunFiles(run_dir, plan.run_id)
        reserve = Reserve(run_dir / ".reserve")
        self._chronicle = Chronicle(
            Journal(run_dir / "events.jsonl", plan.run_id, reserve),
            self._believe,
            publish,
            self._disk_is_full,
        )
        self.record = self._chronicle.record
        self._timers = Timers(self._on_timer)
        self._identity = make_identity(plan.run_id)
        self._secret = secrets.token_bytes(32)
        cache = cache_directory(os.environ)
        self._agent = agent_file(cache)
        self._content = Content(cache, run_dir / ".workspaces")
        single = len(plan.cases) == 1
        self._pausing = Pausing(reserve.has_room, self._notice, self._resume, self._chronicle.thread)
        self.store = LogStore(
            run_dir,
            single_case=single,
            ack=self._ack,
            ended=self._log_ended,
            paused=self._pausing.on_pause,
        )
        self.hub = Hub(
            plan.run_id,
            self._secret,
            self._identity.fingerprint,
            self._agent.sha256,
            plan.timing,
            self.record,
            self.engine.roster.seat,
        )
        shipping = Shipping(self.hub, self.record, progress, plan.travel.rate_bytes_s)
        pulling = Pulling(self.hub, run_dir, single, self.record)
        self.intake = Intake(self.hub, self.record, self.store, shipping, pulling, self.start)
        self.intake.connect()  # a delivery takes some of its messages over
        travel = plan.travel
        self._relays = Relays(
            plan.run_id, BulkSecurity(travel.security), travel.rate_bytes_s, self.engine.roster.address
        )
        self._progress = progress
        self._delivery = self._make_delivery(ev.OWN)
        self._requests = itertools.count(ev.OWN + 1)
        self._moving: set[asyncio.Task[Any]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._finished: asyncio.Future[None] | None = None
        self._listener: Listener | None = None
        self._holding = Holding(target, self.record, run_dir / "launch")
        self._allocating: asyncio.Task[None] | None = None
        self._judged: set[str] = set()
        self._writing_rows = threading.Lock()
        self._case_began: dict[str, float] = {}
        self._evidence: defaultdict[str, Evidence] = defaultdict(Evidence)

    def _make_delivery(self, request: int) -> Delivery:
        hub, shipping, pulling = self.hub, self.intake.shipping, self.intake.pulling
        sources = Sources(hub, pulling, staging(self.run_dir, request), os.environ)
        delivery = Delivery(hub, shipping, sources, self._relays, self.record, self._progress, request)
        for kind, taker in delivery.takers().items():
            self.hub.take([kind], taker)
        return delivery

    # --- the tree of tasks

    async def conduct(self) -> None:
        """Carry the run to its end.

        Raises JournalError when the event log cannot be written, ListenError, AllocationError (no address to
        listen on), or what no part of it expected. Whatever it raises, agents were told to leave, the spawner
        was ended and the allocation given back before.
        """
        self._listener = listen(self.target.listen_addresses())
        try:
            await self._live()
        except BaseException as error:
            await self._give_up(error)
            raise
        finally:
            await self._shut()

    async def _live(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                over = self._finished = asyncio.get_running_loop().create_future()
                self._start_own()
                names = tuple(case.name for case in self.plan.cases)
                plan, target = self.plan, self.plan.target
                self.record(
                    ev.RunStarted(plan.name, target.kind, target.nodes, names, os.getpid(), plan.parallel)
                )
                await over
                raise _Over
        except* _Over:
            pass

    def _start_own(self) -> None:
        """Start the tasks that last as long as the run."""
        self.start(self._chronicle.keep_writing(), name="event log")
        self.start(self.store.keep_synced(), name="log sync")
        self.start(self._pausing.keep_looking(self.store), name="room for logs")
        self.start(self.hub.keep_time(), name="heartbeats")
        self.start(self._files.keep_written(), name="status file")
        self.start(self._holding.poll(self._is_late), name="scheduler")
        for sock in self._listener.sockets if self._listener else ():
            accept = accept_forever(sock, self._identity.context, self.hub.make_session)
            self.start(accept, name="accept")

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any] | None:
        """Start a task of the run; nothing happens any more once the run is over."""
        if self._tasks is None:
            work.close()
            return None
        return self._tasks.create_task(work, name=name)

    async def _give_up(self, error: BaseException) -> None:
        """The controller cannot go on: leave nothing behind, and say so where that is possible."""
        self._tasks = None
        self._timers.close()
        end = ending_of(error)
        log.error("%s; telling agents to leave and giving the nodes back", end.reason)
        hurry = end.cancelled or self.engine.cancel_level > 1
        await self._dismiss(end.reason, 0.0 if hurry else self.plan.timing.stop_grace_s)
        left = tuple(await self._holding.let_go())
        for words in left:
            log.error("%s", words)
        if not end.mute:
            rows = await asyncio.to_thread(self._rows_of_the_rest, end)
            finished = ev.RunFinished(end.state, end.exit_code, end.reason, left)
            with suppress(JournalError):  # it was fine a moment ago; then the log stays without a last word
                for recorded in await self._chronicle.last_words([*rows, finished]):
                    self._files.take(recorded)

    async def _dismiss(self, reason: str, grace_s: float) -> None:
        last = [
            asyncio.create_task(self.hub.keep_time(), name="heartbeats until agents have left"),
            asyncio.create_task(self.store.keep_synced(), name="last logs of agents"),
        ]
        try:
            async with asyncio.timeout(grace_s + LEAVE_SLACK_S):
                await self.hub.dismiss(reason, grace_s)
        except TimeoutError:  # our own deadline: it waits for connections to close, and reads none
            log.error("not every agent has left within %g s", grace_s + LEAVE_SLACK_S)
        finally:
            for task in last:
                task.cancel()
            await asyncio.wait(last)

    async def _shut(self) -> None:
        self._tasks = None
        self._timers.close()
        await self.hub.close()
        await self.store.close()
        await self._chronicle.close()
        await self._files.close()
        if self._listener is not None:
            self._listener.close()
        for folder in STAGES:
            await asyncio.to_thread(shutil.rmtree, self.run_dir / folder, ignore_errors=True)

    # --- events and instructions

    def _believe(self, recorded: ev.Recorded) -> None:
        """An event is in the log: what follows from it."""
        event = recorded.event
        self._keep_exchange(event)
        if case := getattr(event, "case", ""):
            self._evidence[case].add(event)
        now = time.monotonic()
        if isinstance(event, ev.FleetJoined):
            self._delivery.began = now
        elif isinstance(event, ev.ImageFailed | ev.ImageReady) and event.request == self._delivery.request:
            self._stop_moving()
        instructions = self.engine.handle(event, now)
        going = self.engine.bringing
        if going is not None and going.wanted.request != self._delivery.request:
            self._delivery = self._make_delivery(going.wanted.request)
        for instruction in instructions:
            self._perform(instruction)
        if isinstance(event, ev.AgentLost):
            self.hub.fence(event.node, f"given up: {event.detail}")
        self._files.take(recorded)
        if isinstance(event, ev.RunFinished) and self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def _on_timer(self, name: str) -> None:
        try:
            for instruction in self.engine.on_timer(name, time.monotonic()):
                self._perform(instruction)
        except Exception as error:  # noqa: BLE001 - the loop would only log it, and the run would hang
            if self._finished is not None and not self._finished.done():
                self._finished.set_exception(error)

    def _perform(self, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.Record(ev.ImageReady() as ready):
                self.record(self._delivery.summed_up(ready))
            case ins.Record():
                self.record(instruction.event)
            case ins.Tell():
                self.hub.tell(instruction.nodes, self._content.named(instruction.message))
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
                self._allocating = self.start(self._holding.allocate(), name="allocation")
            case ins.SpawnAgents():
                self.start(self._spawn(), name="spawner")
                if Runtime.DOCKER in kinds_of(self.plan):
                    self.start(self._content.make_client(), name="engine's client")
            case ins.ExplainMissing():
                self.start(self._holding.explain(instruction), name="missing nodes")
            case ins.Ship():
                self.start(self._ship(instruction), name=f"ship {instruction.purpose}")
            case ins.JudgeCase():
                self.start(self._judge(instruction), name=f"verdict of {instruction.case}")
            case ins.AskScheduler():
                self.start(self._holding.ask(self._is_late), name="ask the scheduler")
            case ins.EndAgents():
                self.start(self._holding.end_agents(instruction.grace_s), name="end of agents")
            case ins.ReleaseAllocation():
                self.start(self._holding.release(), name="release")
            case _:
                self._perform_image(instruction)

    def _perform_image(self, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.FindImage():
                self._move(self._delivery.find(instruction), name="image source")
            case ins.SeedOn():
                self._move(self._delivery.seed_on(instruction), name="image source")
            case ins.OpenRelays():
                self._move(self._delivery.open_relays(instruction), name="relays")
            case ins.SyncImage():
                self._move(self._delivery.sync(instruction), name="image to the nodes")
            case ins.RequestImage():
                self.bring(instruction.reference, "", instruction.nodes, instruction.case)
            case ins.AskLayers():
                self._delivery.ask_layers(instruction)
            case ins.ChangeParents():
                self._delivery.change_parents(instruction)
            case _:
                raise TypeError(f"no way to perform {type(instruction).__name__}")

    def _move(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """A task for the image that is on its way."""
        delivery = self._delivery
        task = self.start(work if delivery.request == ev.OWN else self._beside(work, delivery), name=name)
        if task is not None:
            self._moving.add(task)
            task.add_done_callback(self._moving.discard)

    async def _beside(self, work: Coroutine[Any, Any, None], delivery: Delivery) -> None:
        """An image that was asked for later may fail in any way, and must not cost the run its end."""
        try:
            await work
        except Exception as error:  # it is told to whoever asked
            log.exception("cannot go on with the image of request %d", delivery.request)
            words = f"internal error of the controller: {type(error).__name__}: {error}"
            going = self.engine.bringing
            delivery.no_source(going.wanted.reference if going is not None else "", words)

    def _stop_moving(self) -> None:
        """The image is on every node, or will not be: let go of what its way took."""
        moving = list(self._moving)
        for task in moving:
            task.cancel()
        stage = staging(self.run_dir, self._delivery.request)
        self.start(self._cleared(moving, stage), name="what an image took")

    async def _cleared(self, moving: list[asyncio.Task[Any]], stage: Path) -> None:
        if moving:
            await asyncio.wait(moving)
        await asyncio.to_thread(shutil.rmtree, stage, ignore_errors=True)

    # --- nodes

    async def _spawn(self) -> None:
        bootstrap = Bootstrap(
            self.plan.run_id,
            self._listener.addresses if self._listener else (),
            self._identity.fingerprint.hex(),
            self._secret.hex(),
            self._agent.sha256,
            self.plan.timing.join_timeout_s,
            self._holding.give_back_argv(),
        )
        await self._holding.spawn(bootstrap, self._agent.path)

    def _is_late(self) -> bool:
        """Whether what becomes of the allocation is no news any more."""
        return self.engine.phase in OVER

    # --- content

    async def _ship(self, instruction: ins.Ship) -> None:
        try:
            path = await asyncio.to_thread(self._content.file, instruction)
        except UNMADE as error:
            for node in instruction.nodes:
                fetched = ev.BlobFetched(
                    node, instruction.purpose, "", 0, str(error), instruction.request, instruction.case
                )
                self.record(fetched)
            return
        await self.intake.shipping.ship(
            instruction.purpose, path, instruction.nodes, instruction.request, instruction.case
        )

    # --- cases

    def _keep_exchange(self, event: ev.Event) -> None:
        """Ranks that are over or lost leave the barriers of their case."""
        if isinstance(event, ev.CaseStarted):
            self._case_began[event.case] = time.monotonic()
            per_node = event.ranks // max(1, len(event.nodes))
            node_of = {rank: event.nodes[rank // per_node] for rank in range(event.ranks)}
            self.intake.exchanges[event.case] = CaseExchange(event.case, node_of)
        elif isinstance(event, ev.RankExited) and event.rank >= 0 and not event.step.startswith("exec-"):
            words = event.detail or f"exit status {event.status}"
            self.intake.ranks_gone(event.case, [event.rank], f"{words} on {event.node}")
        elif isinstance(event, ev.AgentLost):
            self.intake.node_gone(event.node)
        elif isinstance(event, ev.CaseFinished):
            self.intake.exchanges.pop(event.case, None)

    async def _judge(self, instruction: ins.JudgeCase) -> None:
        case, outcome = instruction.case, instruction.outcome
        missing = await self._missing_logs(case)
        self._judged.add(case)  # its rows are written, whatever becomes of us meanwhile
        self.record(await asyncio.to_thread(self._verdict, case, outcome, missing))

    def _verdict(self, case: str, outcome: ins.CaseEnd, missing: Missing = ()) -> ev.CaseFinished:
        """The verdict of a case; its rows are written. Blocks."""
        began, engine = self._case_began.get(case, time.monotonic()), self.engine
        image_id = engine.cases.images.id_of(self.plan, case)
        facts = {name: one.facts for name, one in engine.roster.nodes.items() if one.facts is not None}
        seconds = time.monotonic() - began
        known = Circumstances(engine.job_id, image_id, seconds, facts, missing, self._file_mode)
        try:
            with self._writing_rows:  # the locks of the files are the process's, and keep no thread off
                return judge(self.plan, case, self.run_dir, outcome, self._evidence[case], known)
        except Exception as error:  # a workload's strange results must not cost the run its end
            log.exception("cannot judge case %s", case)
            why = f"cannot judge its results: {type(error).__name__}: {error}"
            return ev.CaseFinished(case, "FAILURE", why, (), why)

    def _rows_of_the_rest(self, end: Ending) -> list[ev.CaseFinished]:
        """Every case that has no verdict gets its row, also when the controller cannot go on. Blocks."""
        nodes = self.engine.nodes
        rest = [case.name for case in self.plan.cases if case.name not in self._judged]
        outcome = ins.CaseEnd(nodes, 0, False, end.reason, end.cancelled, 0.0)
        return [self._verdict(case, outcome) for case in rest]

    async def _missing_logs(self, case: str) -> Missing:
        """Logs that did not come. Waits for them, not for ever; while the disk is full, until a cancel."""
        deadline = time.monotonic() + LOGS_WITHIN_S
        while time.monotonic() < deadline:
            here = self.engine.roster.of(Member.JOINED)
            if not self.store.incomplete(case, here):
                break
            if self._pausing.active and not self.engine.cancel_level:
                deadline = time.monotonic() + LOGS_WITHIN_S
            await asyncio.sleep(LOOK_S)
        return tuple(self.store.incomplete(case, self.engine.nodes))

    # --- logs

    def _ack(self, name: Any, offset: int, credit: int) -> None:
        self.intake.ack(name, offset, credit)

    def _notice(self, node: str, words: str) -> None:
        self.record(ev.AgentNotice(node, words))

    def _resume(self, node: str, reason: str) -> None:
        self.hub.again(node, reason)

    def _disk_is_full(self) -> None:
        """The event log needed the room kept for it: logs must not take what is left."""
        self.store.pause_all(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _log_ended(self, stream: StoredStream) -> None:
        receiver = stream.receiver
        if self._tasks is not None:
            self.record(ev.LogEnded(stream.name.node, stream.path, receiver.final or 0, receiver.missing))

    # --- for the control socket

    def cancel(self, level: int, by: str) -> None:
        """Someone asks to stop."""
        self.record(ev.CancelRequested(level, by))

    def bring(self, reference: str, archive: str, nodes: tuple[str, ...], case: str = "") -> int:
        """Someone asks for an image, or a case; the number of the request. How it goes the events tell."""
        request = next(self._requests)
        self.record(ev.ImageRequested(request, reference, archive, nodes, case))
        return request

    def call_off(self, request: int) -> None:
        """Whoever asked for an image has left before it was there."""
        self.record(ev.ImageCalledOff(request))


class _Over(Exception):
    """The run is over: ends the group's remaining tasks."""
