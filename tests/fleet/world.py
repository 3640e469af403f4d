"""A world in fake time for the engine: it performs instructions, agents answer or fail, nothing is real.

Everything that happens comes from one seeded random number generator and one heap of moments, so a failing
seed replays exactly. Nodes can die silently, hang, answer with errors, come back; the scheduler can take the
allocation away; people can cancel. Whatever happens, a run must reach its last event.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet import instructions as ins
from phalanx.controller.fleet.engine import Engine
from phalanx.controller.plan.gpus import Gpus
from phalanx.controller.plan.model import CasePlan, ImagePlan, Plan, StepPlan, TargetPlan, Timing
from phalanx.protocol import messages as m
from phalanx.protocol.membership import Member

IMAGE_ID = "sha256:" + "ab" * 32
#: The first request of a case: people ask with lower numbers.
FIRST_OF_CASES = 10


def image_id(reference: str) -> str:
    """The id of an image of this world."""
    return IMAGE_ID if reference == "image:1" else f"sha256:{hashlib.sha256(reference.encode()).hexdigest()}"


def make_plan(
    nodes: int = 3,
    cases: int = 1,
    *,
    docker: bool = False,
    ranks_per_node: int = 1,
    min_nodes: int = 0,
    exit_policy: str = "workflow",
    steps: tuple[StepPlan, ...] = (StepPlan("main", ("work",)),),
    keep: bool = False,
    images: int = 1,
    parallel: int = 1,
    gpus: tuple[int, ...] = (),
) -> Plan:
    """A plan of a few cases; in containers, they take turns at the images, and at the counts of ``gpus``."""
    spec = partial(m.ContainerSpec, m.Runtime.DOCKER if docker else m.Runtime.PROCESS)
    references = [f"image:{number}" for number in range(1, min(images, cases) + 1)] if docker else []
    return Plan(
        1,
        "run",
        "run",
        ("phalanx",),
        "/",
        TargetPlan("local", nodes, min_nodes),
        tuple(map(ImagePlan, references)),
        tuple(
            CasePlan(
                f"case{number}",
                steps,
                spec(image=references[number % len(references)] if docker else ""),
                ranks_per_node=ranks_per_node,
                gpus=Gpus("", gpus[number % len(gpus)], f"case{number}: n_gpus") if gpus else None,
            )
            for number in range(cases)
        ),
        timing=Timing(
            join_timeout_s=60, lease_s=30, stop_grace_s=10, image_timeout_s=600, collect_timeout_s=60
        ),
        exit_policy=exit_policy,  # type: ignore[arg-type]
        keep=keep,
        parallel=parallel,
    )


@dataclass
class Odds:
    """How likely things go wrong; all zero for a calm world."""

    refused: float = 0.0
    no_join: float = 0.0
    dies: float = 0.0
    error: float = 0.0
    rank_fails: float = 0.0
    hangs: float = 0.0
    blinks: float = 0.0
    cancel: float = 0.0
    taken: float = 0.0
    spawner_dies: float = 0.0
    later_images: float = 0.0
    containerd: float = 0.0
    holds: float = 0.0


@dataclass
class World:
    """One run in fake time."""

    plan: Plan
    seed: int = 0
    odds: Odds = field(default_factory=Odds)
    rank_status: Callable[[str, int], int] = lambda case, rank: 0
    now: float = 0.0

    def __post_init__(self) -> None:
        self.engine = Engine(self.plan)
        self.dice = random.Random(self.seed)
        self.log: list[ev.Event] = []
        self.told: list[tuple[str, m.Message]] = []
        self.dead: set[str] = set()
        self.left: set[str] = set()
        self.timers: dict[str, int] = {}
        self.running: set[tuple[str, str, str, int]] = set()
        self.judged: list[str] = []
        self.syncing: tuple[str, ...] = ()
        self.spawned = self.spawn_over = False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._requests = itertools.count(FIRST_OF_CASES)
        #: images that nobody has, and how long one takes at most to get to a node, in seconds
        self.nowhere: set[str] = set()
        self.transfer_s = 1.0
        self._then: tuple[type[ev.Event], Callable[[Any], bool], ev.Event] | None = None
        #: nodes whose engines call images by their manifests
        stores = random.Random(self.seed)
        count = self.plan.target.nodes
        self.containerd = {f"n{n}" for n in range(count) if stores.random() < self.odds.containerd}
        #: the GPUs that the agent of a node tells of
        self.gpus: dict[str, list[dict[str, str]]] = {}
        #: nodes whose agents never tell what they are
        self.secretive: set[str] = set()
        #: those that every node says are free
        self.ports: tuple[int, ...] = (29500,)
        #: ranks that hang, and after how many seconds each meets the deadline of a step
        self.deadlines: dict[int, float] = {}
        self.fired: list[str] = []
        self._coming: dict[int, str] = {}

    # --- time

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do something after ``delay`` seconds."""
        heapq.heappush(self._heap, (self.now + delay, next(self._order), action))

    def happen(self, event: ev.Event, delay: float = 0.0) -> None:
        """An event is recorded after ``delay`` seconds."""
        self.at(delay, lambda: self.record(event))

    def record(self, event: ev.Event) -> None:
        """The event is in the log; the engine hears of it."""
        self.log.append(event)
        for instruction in self.engine.handle(event, self.now):
            self.perform(instruction)
        if self._then is not None and isinstance(event, self._then[0]) and self._then[1](event):
            then, self._then = self._then[2], None
            self.record(then)

    def record_when(self, kind: type[ev.Event], such: Callable[[Any], bool], then: ev.Event) -> None:
        """Right after the first event of a kind that is such a one, another is recorded."""
        self._then = (kind, such, then)

    def run(self, limit_s: float = 100_000.0) -> ev.RunFinished:
        """Run to the last event. Raises AssertionError when time is up or nothing is left to happen."""
        self.happen(ev.RunStarted("run", "local", self.plan.target.nodes, ("case0",)))
        if self.chance(self.odds.cancel):
            moment = self.dice.uniform(0, 120)
            self.happen(ev.CancelRequested(1, "test"), moment)
            if self.chance(0.5):
                self.happen(ev.CancelRequested(2, "test"), moment + self.dice.uniform(0, 10))
        for request in (2, 3, 4):
            if self.chance(self.odds.later_images):
                self.ask_for_image(request, self.dice.uniform(0, 40))
        if self.chance(self.odds.taken):
            self.at(self.dice.uniform(0, 120), self._take_allocation)
        while self._heap:
            moment, _, action = heapq.heappop(self._heap)
            assert moment < limit_s, f"no end after {moment} s in {self.engine.phase}"
            self.now = moment
            action()
            if isinstance(self.log[-1], ev.RunFinished):
                return self.log[-1]
        raise AssertionError(f"nothing left to happen in {self.engine.phase}: {self.log[-8:]}")

    def settle(self) -> None:
        """Until nothing is left to happen."""
        while self._heap:
            self.now, _, action = heapq.heappop(self._heap)
            action()

    def chance(self, odds: float) -> bool:
        """Whether something of these odds happens."""
        return self.dice.random() < odds

    def ask_for_image(self, request: int, delay: float) -> None:
        """Someone asks for one more image, and may leave before it is there."""
        self.at(delay, lambda: self.record(self._request(request)))
        if self.chance(0.3):
            self.happen(ev.ImageCalledOff(request), delay + self.dice.uniform(0, 5))

    def _request(self, request: int) -> ev.ImageRequested:
        return ev.ImageRequested(request, f"image:{request}", "", self.engine.roster.of(Member.JOINED))

    def soon(self) -> float:
        """A short delay."""
        return self.dice.uniform(0.001, 1.0)

    # --- instructions

    def perform(self, instruction: ins.Instruction) -> None:
        """What the shell would do."""
        match instruction:
            case ins.Record():
                self.happen(instruction.event)
            case ins.Tell():
                for node in instruction.nodes:
                    self.told.append((node, instruction.message))
                    self._tell(node, instruction.message)
            case ins.SetTimer():
                self._set_timer(instruction.name, instruction.seconds)
            case ins.DropTimer():
                self.timers.pop(instruction.name, None)
            case ins.AllocateNodes():
                self._allocate()
            case ins.StopAllocating():
                self.happen(ev.AllocationRefused("cancelled"), self.soon())
            case ins.SpawnAgents():
                self._spawn(instruction.nodes)
            case ins.ExplainMissing():
                missing = dict.fromkeys(instruction.nodes, "unknown")
                self.happen(ev.JoinTimeout(instruction.joined, instruction.expected, missing), self.soon())
            case ins.RequestImage():
                request, wanted = next(self._requests), instruction
                self.happen(ev.ImageRequested(request, wanted.reference, "", wanted.nodes, wanted.case))
            case ins.FindImage() | ins.SeedOn() | ins.AskLayers() | ins.OpenRelays() | ins.SyncImage():
                self._image(instruction)
            case ins.ChangeParents():
                assert set(instruction.parents) <= set(self.syncing), "parents for a node that reads nothing"
            case ins.Ship():
                for node in instruction.nodes:
                    self._answer(
                        node,
                        ev.BlobFetched(
                            node,
                            instruction.purpose,
                            "00" * 32,
                            1,
                            request=instruction.request,
                            case=instruction.case,
                        ),
                        "error",
                    )
            case ins.JudgeCase():
                self._judge(instruction)
            case ins.AskScheduler():
                pass
            case ins.EndAgents():
                self._end_spawner(self.soon())
            case ins.ReleaseAllocation():
                self.happen(ev.AllocationReleased(self.engine.job_id), self.soon())
            case _:
                raise AssertionError(f"unknown instruction {instruction}")

    def id_on(self, node: str, reference: str) -> str:
        """What the engine of a node calls an image."""
        return image_id(f"{reference} as a manifest" if node in self.containerd else reference)

    def held(self, node: str, reference: str, request: int) -> ev.ImageOnNode:
        """What a node says that has the image."""
        return ev.ImageOnNode(
            node,
            reference,
            self.id_on(node, reference),
            request=request,
            likeness=reference,
            by_manifest=node in self.containerd,
        )

    def _source(self, node: str, reference: str, request: int) -> ev.ImageSource:
        """An image of two layers, seeded by a node or in an archive of the login node."""
        where = f"engine of node {node}" if node else "archive x"
        own = self.id_on(node, reference) if node else ""
        return ev.ImageSource(
            where,
            reference,
            image_id(reference),
            30,
            node=node,
            layers=(10, 20),
            request=request,
            likeness=reference,
            engine_id=own,
        )

    def _image(self, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.FindImage():
                reference, request = instruction.reference, instruction.request
                source = self._source(instruction.node, reference, request)
                error = ev.ImageSource("", reference, "", 0, f"nobody has {reference}", request=request)
                missing = reference in self.nowhere or self.chance(self.odds.error)
                self._coming[request] = reference
                self.happen(error if missing else source, self.soon())
            case ins.SeedOn():
                request = instruction.request
                source = self._source(instruction.node, self._coming[request], request)
                self._answer(instruction.node, source, "error")
            case ins.AskLayers():
                for node in instruction.nodes:
                    have = self.dice.choice((0, 1, 2))
                    present = self.chance(0.1) and node not in self.containerd
                    held = ev.LayersOnNode(
                        node, present, have, (), True, 2**40, 2**40, request=instruction.request
                    )
                    self._answer(node, held, "error")
            case ins.OpenRelays():
                for node in instruction.nodes:
                    self._answer(node, ev.RelayOnNode(node, 4711, request=instruction.request), "error")
            case ins.SyncImage():
                self.syncing = tuple(instruction.first)
                if self.chance(self.odds.blinks):
                    self.happen(ev.SlowNodes(self.syncing[:1], instruction.request), self.soon())
                for node in instruction.first:
                    there = self.held(node, self._coming[instruction.request], instruction.request)
                    self._answer(node, there, "error", self.transfer_s)

    def _judge(self, instruction: ins.JudgeCase) -> None:
        self.judged.append(instruction.case)
        end = instruction.outcome
        status = "SUCCESS" if end.completed else "SKIPPED" if end.skipped else "FAILURE"
        status, reason = "CANCELLED" if end.cancelled else status, end.failure or end.skipped
        self.happen(ev.CaseFinished(instruction.case, status, reason, ({"status": status},)), self.soon())

    def _set_timer(self, name: str, seconds: float) -> None:
        mark = self.timers[name] = next(self._order)

        def fire() -> None:
            if self.timers.get(name) == mark:
                del self.timers[name]
                self.fired.append(name)
                for instruction in self.engine.on_timer(name, self.now):
                    self.perform(instruction)

        self.at(seconds, fire)

    # --- nodes

    def _allocate(self) -> None:
        if self.chance(self.odds.refused):
            self.happen(ev.AllocationRefused("no such partition"), self.soon())
            return
        names = tuple(f"n{i}" for i in range(self.plan.target.nodes))
        self.happen(ev.AllocationGranted("7", names, True), self.soon())

    def _spawn(self, nodes: tuple[str, ...]) -> None:
        self.spawned = True
        if self.chance(self.odds.spawner_dies):
            self.at(self.dice.uniform(0, 200), self._spawner_dies)
        for rank, node in enumerate(nodes):
            if self.chance(self.odds.no_join):
                self.dead.add(node)
                if self.chance(0.5):
                    self.happen(ev.SpawnSaid(node, "Exited with exit code 127", True), self.soon())
                continue
            self.at(self.soon(), lambda node=node, rank=rank: self._join(node, rank))
            if self.chance(self.odds.dies):
                self.at(self.dice.uniform(0, 200), lambda node=node: self.die(node))
            if self.chance(self.odds.blinks):
                self.at(self.dice.uniform(1, 100), lambda node=node, rank=rank: self._blink(node, rank))

    def _join(self, node: str, rank: int) -> None:
        if node not in self.dead:
            self.happen(ev.AgentJoined(node, rank, "one", f"10.0.0.{rank + 1}"))
            first, *more = self.ports or (0,)
            facts = {"free_port": first, "more_ports": more, "gpus": self.gpus.get(node, [])}
            if node not in self.secretive:
                self.happen(ev.AgentFacts(node, facts), self.soon())

    def die(self, node: str, detail: str = "connection broke") -> None:
        """The node falls silent and stays so."""
        if node not in self.dead | self.left:
            self.dead.add(node)
            self.happen(ev.AgentSilent(node, detail), self.dice.uniform(0, 10))

    def _blink(self, node: str, rank: int) -> None:
        if node in self.dead | self.left:
            return
        self.happen(ev.AgentSilent(node, "link cut"))
        self.at(
            self.dice.uniform(0.1, 20),
            lambda: (
                node in self.dead | self.left
                or self.record(ev.AgentJoined(node, rank, "one", f"10.0.0.{rank + 1}", resumed=True))
            ),
        )

    def _spawner_dies(self) -> None:
        if not self.spawn_over:
            for node in self.engine.roster.nodes:
                self.die(node, "killed")
            self._end_spawner(0.1, -9)

    def _end_spawner(self, delay: float, status: int = 0) -> None:
        if not self.spawn_over:
            self.spawn_over = True
            for node in self.engine.roster.nodes:
                self.die(node, "ended with the spawner")
            self.happen(ev.SpawnEnded(status), delay)

    def _take_allocation(self) -> None:
        for node in self.engine.roster.present:
            self.happen(ev.AgentDraining(node, "SIGTERM"), self.soon())
        self.happen(ev.AllocationEnded("CANCELLED", "by someone"), self.soon())
        self.at(5.0, lambda: self._end_spawner(0.1))

    # --- what agents do

    def _answer(self, node: str, event: ev.Event, error_field: str = "", within_s: float = 1.0) -> None:
        if node in self.dead or self.chance(self.odds.hangs):
            return
        if error_field and self.chance(self.odds.error):
            event = type(event)(**{**{n: getattr(event, n) for n in event.__slots__}, error_field: "broken"})
        self.at(self.soon() * within_s, lambda: node in self.dead or self.record(event))

    def _tell(self, node: str, message: m.Message) -> None:
        if node in self.dead:
            return
        match message:
            case m.RuntimeOpen():
                opened = ev.RuntimeOnNode(node, message.runtime.value, request=message.request)
                self._answer(node, opened, "error")
            case m.ImageQuery():
                has = ev.ImageOnNode(node, message.reference, "", request=message.request)
                if self.chance(self.odds.holds):
                    has = self.held(node, message.reference, message.request)
                self._answer(node, has, "error")
            case m.CaseOpen():
                self._answer(node, ev.CaseOpenedOn(message.case, node, "c"), "error")
            case m.StepStart():
                self._start(node, message)
            case m.StepStop():
                self._stop(node, message)
            case m.Diagnose():
                self._answer(node, ev.CaseDiagnosedOn(message.case, node))
            case m.Collect():
                self._answer(node, ev.CaseCollectedOn(message.case, node, 0))
            case m.CaseClose():
                self._answer(node, ev.CaseClosedOn(message.case, node))
            case m.Leave():
                self._leave(node)

    def _leave(self, node: str) -> None:
        if not self.chance(self.odds.hangs):
            self.left.add(node)
            self.happen(ev.AgentLeft(node), self.soon())

    def _start(self, node: str, message: m.StepStart) -> None:
        for rank in message.ranks or (m.NODE_LEVEL,):
            key = (node, message.case, message.step, rank)
            self.running.add(key)
            self.happen(ev.RankStarted(message.case, message.step, node, rank), 0.001)
            failed = self.chance(self.odds.rank_fails)
            status = 7 if failed else self.rank_status(message.case, rank)
            if rank in self.deadlines:
                self.at(self.deadlines[rank], lambda key=key: self._exit(key, 143, "deadline"))
            elif self.chance(self.odds.hangs):
                # A workload that hangs has no deadline here: someone loses patience.
                self.happen(ev.CancelRequested(1, "someone impatient"), 300.0)
                self.happen(ev.CancelRequested(2, "someone impatient"), 400.0)
            else:
                self.at(
                    self.dice.uniform(0.01, 60),
                    lambda key=key, status=status: self._exit(key, status, "exited"),
                )

    def _exit(self, key: tuple[str, str, str, int], status: int, cause: str) -> None:
        node, case, step, rank = key
        running = key in self.running
        self.running.discard(key)
        if running and node not in self.dead:
            self.record(ev.RankExited(case, step, node, rank, status, cause, 1.0))

    def _stop(self, node: str, message: m.StepStop) -> None:
        for key in sorted(key for key in self.running if key[:3] == (node, message.case, message.step)):
            if not self.chance(self.odds.hangs):
                delay = self.dice.uniform(0.01, message.grace_s + 0.1)
                self.at(delay, lambda key=key: self._exit(key, 143, "stopped"))

    # --- reading the log

    def of(self, kind: type[ev.Event]) -> list[ev.Event]:
        """All events of a kind."""
        return [event for event in self.log if isinstance(event, kind)]

    def told_to(self, kind: type[m.Message]) -> list[tuple[str, m.Message]]:
        """All messages of a kind, with the node each went to."""
        return [(node, message) for node, message in self.told if isinstance(message, kind)]
