"""One case on its nodes, from workspace to verdict. Pure: events in, instructions out.

A case ends the same way whatever happens: what runs is stopped, what can be had is collected, containers
are closed, and a verdict with rows is written. The first rank that fails decides; the others are stopped
and reported as stopped. A node that is lost counts for its ranks, and is waited for no longer.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from phalanx.protocol.messages import (
    NODE_LEVEL,
    CaseClose,
    CaseOpen,
    Cause,
    Collect,
    Diagnose,
    StepStart,
    StepStop,
)

from ..exits import RankEnd
from ..plan.gpus import on_node, visible_devices, with_gpus
from ..plan.model import CasePlan, StepPlan, Timing
from .events import (
    AgentLost,
    BlobFetched,
    CaseClosedOn,
    CaseCollectedOn,
    CaseDiagnosedOn,
    CaseFinished,
    CaseOpenedOn,
    CaseStarted,
    Event,
    RankExited,
    StepBegun,
)
from .instructions import LIBRARY, CaseEnd, DropTimer, Instruction, JudgeCase, Record, SetTimer, Ship, Tell
from .meeting import Meeting
from .states import CASE_PHASES, CasePhase, advance

#: What a node may take beyond a step's grace to say that the step is over, in seconds.
STOP_SLACK_S = 15.0
#: How much later than the first rank others may meet the deadline of their step before they are stopped, in
#: seconds: they began a little later, and whoever meets it says first what hangs.
DEADLINE_SPREAD_S = 10.0
#: Longest wait for diagnostics, in seconds: they help, they must not hold up the end.
DIAGNOSE_S = 10.0
#: How long the results of a script that ended well may take to show on a file server, in seconds: madengine's
#: six looks, five seconds apart.
RESULTS_S = 25.0
#: Longest wait for containers to be made or removed on a node, in seconds.
OPEN_S = 300.0
CLOSE_S = 60.0

#: Nothing of the case runs yet: there is nothing to end and nothing to collect.
_BEFORE_STEPS = (CasePhase.SHIPPING, CasePhase.OPENING)


@dataclass(frozen=True, slots=True)
class Failure:
    """The first thing that went wrong: where and what, in words."""

    words: str
    node: str = ""
    rank: int = NODE_LEVEL
    status: int = 1
    cause: str = ""


@dataclass(slots=True)
class CaseFlow:
    """The flow of one case on ``nodes`` (in node rank order).

    ``image_ids``: what the engine of each node calls its image.
    ``run_env``: environment that all ranks of the run share. ``meeting``: where they meet.
    ``secret_of``: the secret values by name. ``gpus``: indexes of those that it has on each node, () where no
    other case runs beside it. ``ends``: where it notes how its ranks end.
    """

    plan: CasePlan
    timing: Timing
    nodes: tuple[str, ...]
    image_ids: Mapping[str, str]
    run_env: dict[str, str]
    meeting: Meeting
    secret_of: Callable[[str], str]
    began: float
    gpus: tuple[int, ...] = ()
    ends: list[RankEnd] = field(default_factory=list)
    phase: CasePhase = CasePhase.SHIPPING
    failure: Failure | None = None
    cancelled: bool = False
    #: its containers were left as they are
    kept: bool = False
    _position: dict[str, int] = field(default_factory=dict)
    #: blobs that nodes were sent, by purpose, and who has to have which before the case is opened
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _unshipped: set[tuple[str, str]] = field(default_factory=set)
    _step: int = -1
    _waiting: set[str] = field(default_factory=set)
    _running: dict[str, set[int]] = field(default_factory=dict)
    _left: int = 0
    _lost: set[str] = field(default_factory=set)
    _opened: set[str] = field(default_factory=set)
    _stopping: bool = False
    _spreading: bool = False
    _hurry: bool = False
    _grace: float = 0.0

    def __post_init__(self) -> None:
        self._position = {node: position for position, node in enumerate(self.nodes)}

    # --- shape

    def ranks_of(self, node: str) -> tuple[int, ...]:
        """Global ranks of a node."""
        first = self._position[node] * self.plan.ranks_per_node
        return tuple(range(first, first + self.plan.ranks_per_node))

    @property
    def world_size(self) -> int:
        """Ranks of the case on all nodes."""
        return len(self.nodes) * self.plan.ranks_per_node

    @property
    def here(self) -> tuple[str, ...]:
        """Nodes that are not lost."""
        return tuple(node for node in self.nodes if node not in self._lost)

    @property
    def finished(self) -> bool:
        """Whether the verdict is written."""
        return self.phase is CasePhase.FINISHED

    @property
    def _phase_timer(self) -> str:
        return f"case.phase:{self.plan.name}"

    @property
    def _stop_timer(self) -> str:
        return f"case.stop:{self.plan.name}"

    @property
    def _spread_timer(self) -> str:
        return f"case.deadline:{self.plan.name}"

    def _drop_step_timers(self) -> list[Instruction]:
        return [DropTimer(self._stop_timer), DropTimer(self._spread_timer)]

    # --- entry points

    def begin(self) -> list[Instruction]:
        """Start the case."""
        started = Record(CaseStarted(self.plan.name, self.nodes, self.world_size, self.gpus))
        name = self.plan.name
        ships = [Ship("workspace", self.plan.workspace, self.nodes, case=name)] if self.plan.workspace else []
        if self._library:
            ships.append(Ship(self._library, (), self.nodes, case=name))
        self._unshipped = {(ship.purpose, node) for ship in ships for node in self.nodes}
        return [started, *ships] if ships else [started, *self._open()]

    def on(self, event: Event) -> list[Instruction]:
        """Take an event; what to do next."""
        if isinstance(event, AgentLost):
            return self._on_lost(event)
        if getattr(event, "case", None) != self.plan.name:
            return []
        handler = _HANDLERS.get(type(event))
        return handler(self, event) if handler else []

    def on_timer(self, name: str) -> list[Instruction]:
        """A timer of this case fired: what is still waited for is given up, by name."""
        if name == self._stop_timer and self.phase is CasePhase.STEPPING:
            late = sorted(node for node, ranks in self._running.items() if ranks)
            return [Record(AgentLost(node, "it did not end its step when told to")) for node in late]
        if name == self._spread_timer and self.phase is CasePhase.STEPPING:
            return self._stop_ranks(self.timing.stop_grace_s)
        if name != self._phase_timer:
            return []
        late = sorted(self._waiting)
        if self.phase is CasePhase.OPENING:
            return [
                Record(CaseOpenedOn(self.plan.name, node, "", f"no answer within {OPEN_S:g} s"))
                for node in late
            ]
        if self.phase is CasePhase.DIAGNOSING:
            return [Record(CaseDiagnosedOn(self.plan.name, node, "no answer in time")) for node in late]
        if self.phase is CasePhase.COLLECTING:
            words = (f"no answer within {self.timing.collect_timeout_s:g} s",)
            return [Record(CaseCollectedOn(self.plan.name, node, 0, words, answered=False)) for node in late]
        if self.phase is CasePhase.CLOSING:
            return [
                Record(CaseClosedOn(self.plan.name, node, f"no answer within {CLOSE_S:g} s")) for node in late
            ]
        return []

    def stop(self, reason: str, grace_s: float, *, cancelled: bool, collect: bool) -> list[Instruction]:
        """End the case early: stop its ranks, and go on to collection (or straight to closing)."""
        self.cancelled = self.cancelled or cancelled
        self._hurry = self._hurry or not collect
        self._fail(Failure(reason))
        if self.phase in _BEFORE_STEPS:
            return self._close("abort")
        if self.phase is CasePhase.STEPPING:
            return self._stop_ranks(grace_s)
        if self.phase in (CasePhase.DIAGNOSING, CasePhase.COLLECTING) and self._hurry:
            return self._close("abort")
        return []

    # --- shipping and opening

    def _on_shipped(self, event: BlobFetched) -> list[Instruction]:
        which = (event.purpose, event.node)
        if self.phase is not CasePhase.SHIPPING or which not in self._unshipped:
            return []
        self._unshipped.discard(which)
        if event.error:
            self._fail(Failure(f"cannot send the {event.purpose} to {event.node}: {event.error}", event.node))
            return self._close("abort")
        self._blobs[event.purpose] = bytes.fromhex(event.blob)
        return [] if self._unshipped else self._open()

    def _open(self) -> list[Instruction]:
        self.phase = advance(CASE_PHASES, self.phase, "shipped")
        self._waiting = set(self.here)
        opens = [Tell((node,), self._open_message(node)) for node in self.here]
        return [*opens, SetTimer(self._phase_timer, OPEN_S)]

    def _open_message(self, node: str) -> CaseOpen:
        case, position = self.plan, self._position[node]
        spec = replace(case.container, image_id=self.image_ids.get(node, ""))
        env = {"PHALANX_NNODES": str(len(self.nodes)), "NNODES": str(len(self.nodes)), **self.run_env}
        if case.gpus is not None:
            has = self.meeting.hardware_at(position)
            gpus = on_node(case.gpus, has.vendor, self.gpus, has.render_numbers)
            spec = with_gpus(spec, gpus)
            env |= visible_devices(spec, gpus, case.env) if self.gpus else {}
        if not case.driven:  # srun would hand the first node's rank on to every node
            env |= {"PHALANX_NODE_RANK": str(position), "NODE_RANK": str(position)}
        places = case.result.places if position == 0 else ()
        ranks, world = self.ranks_of(node), self.world_size
        workspace, library = (self._blobs.get(purpose) for purpose in ("workspace", self._library))
        return CaseOpen(1, case.name, spec, ranks, world, workspace, env, case.driven, places, library)

    @property
    def _library(self) -> str:
        """As what the case's library is sent, "" without one."""
        return f"{LIBRARY} {self.plan.library}" if self.plan.library else ""

    def _on_opened(self, event: CaseOpenedOn) -> list[Instruction]:
        if self.phase is not CasePhase.OPENING:
            return []
        if event.error:
            self._fail(Failure(f"cannot start the case on {event.node}: {event.error}", event.node))
            return self._close("abort")
        self._opened.add(event.node)
        self._waiting.discard(event.node)
        return [] if self._waiting else self._all_open()

    def _all_open(self) -> list[Instruction]:
        self.phase = advance(CASE_PHASES, self.phase, "opened")
        return [DropTimer(self._phase_timer), *self._next_step()]

    # --- steps

    def _next_step(self) -> list[Instruction]:
        """Start the next step that is due: all in order, after a failure only those that always run."""
        while self._step + 1 < len(self.plan.steps):
            self._step += 1
            step = self.plan.steps[self._step]
            if (self.failure is None and not self.cancelled) or (step.always and not self._hurry):
                return self._start(step)
        return self._steps_over()

    def _start(self, step: StepPlan) -> list[Instruction]:
        self._stopping = self._spreading = False
        per_rank = step.per == "rank"
        on = self.here if step.per != "first" else tuple(node for node in self.nodes[:1] if node in self.here)
        self._running = {node: set(self.ranks_of(node)) if per_rank else {NODE_LEVEL} for node in on}
        self._left = sum(len(ranks) for ranks in self._running.values())
        if not self._running:
            self._fail(Failure(f"no node is left for step {step.name}"))
            return self._next_step()
        env = step.env if step.where == "host" else {**self.plan.env, **step.env}
        secrets = {name: self.secret_of(name) for name, value in env.items() if value.secret}
        starts = [
            Tell(
                (node,),
                StepStart(
                    self.plan.name,
                    step.name,
                    step.argv,
                    self.meeting.rendered(env, self._position[node]),
                    secrets,
                    self.ranks_of(node) if per_rank else (),
                    step.deadline_s,
                    self.timing.stop_grace_s,
                    step.where,
                ),
            )
            for node in on
        ]
        return [Record(StepBegun(self.plan.name, step.name, step.argv)), *starts]

    @property
    def step_name(self) -> str:
        """The step that runs or ran last, "" before the first."""
        return self.plan.steps[self._step].name if self._step >= 0 else ""

    def _on_exited(self, event: RankExited) -> list[Instruction]:
        if self.phase is not CasePhase.STEPPING or event.step != self.step_name:
            return []
        left = self._running.get(event.node, set())
        if event.rank not in left or (event.node in self._lost and event.cause != Cause.LOST.value):
            return []  # of a node that is given up nothing more is believed
        left.discard(event.rank)
        self._left -= 1
        out: list[Instruction] = []
        ours = self._stopping and event.cause == Cause.STOPPED.value
        if self.failure is None or not self.plan.steps[self._step].always:  # else it is an echo
            self.ends.append(RankEnd(event.status, Cause.STOPPED if ours else Cause(event.cause)))
        if (event.status or event.cause != Cause.EXITED.value) and not ours:
            out += self._on_failed_rank(event)
        if not self._left:
            out += [*self._drop_step_timers(), *self._next_step()]
        return out

    def _on_failed_rank(self, event: RankExited) -> list[Instruction]:
        where = event.node if event.rank == NODE_LEVEL else f"rank {event.rank} on {event.node}"
        words = event.detail or f"exit status {event.status}"
        if event.cause == Cause.LOST.value:
            words = f"lost with its node: {words}"
        self._fail(
            Failure(f"{where}, step {event.step}: {words}", event.node, event.rank, event.status, event.cause)
        )
        if event.cause == Cause.DEADLINE.value and not self._stopping:
            begun, self._spreading = self._spreading, True
            return [] if begun else [SetTimer(self._spread_timer, DEADLINE_SPREAD_S)]
        return self._stop_ranks(self.timing.stop_grace_s)

    def _stop_ranks(self, grace_s: float) -> list[Instruction]:
        if self._stopping and grace_s >= self._grace:
            return []
        self._stopping, self._grace = True, grace_s
        running = tuple(node for node, ranks in self._running.items() if ranks and node not in self._lost)
        if not running:
            return []
        return [
            Tell(running, StepStop(self.plan.name, self.step_name, grace_s)),
            SetTimer(self._stop_timer, grace_s + STOP_SLACK_S),
        ]

    def _steps_over(self) -> list[Instruction]:
        failed_here = self.failure is not None and self.failure.node in self.here
        if self.failure is not None and failed_here and not self._hurry and not self.cancelled:
            self.phase = advance(CASE_PHASES, self.phase, "failed")
            self._waiting = {self.failure.node}
            return [
                Tell((self.failure.node,), Diagnose(1, self.plan.name)),
                SetTimer(self._phase_timer, DIAGNOSE_S),
            ]
        return self._close("abort") if self._hurry else self._collect("stepped")

    def _on_diagnosed(self, event: CaseDiagnosedOn) -> list[Instruction]:
        if self.phase is not CasePhase.DIAGNOSING:
            return []
        self._waiting.discard(event.node)
        return [] if self._waiting else self._collect("diagnosed")

    # --- collection and closing

    def _collect(self, trigger: str) -> list[Instruction]:
        self.phase = advance(CASE_PHASES, self.phase, trigger)
        self._waiting = set(self.here) & self._opened
        if not self._waiting:
            return self._collected()
        left = self.plan.result.places and self.failure is None and not self.plan.skip
        wait_s = RESULTS_S if left else 0.0
        return [
            Tell(tuple(sorted(self._waiting)), self._collect_message(wait_s)),
            SetTimer(self._phase_timer, self.timing.collect_timeout_s + wait_s),
        ]

    def _collect_message(self, wait_s: float) -> Collect:
        """What was in the model's folder before its script ran is no result of it."""
        fresh = self.plan.result.multiple_results
        return Collect(1, self.plan.name, self.plan.collect, wait_s, glob.escape(fresh.rsplit("/", 1)[-1]))

    def _on_collected(self, event: CaseCollectedOn) -> list[Instruction]:
        if self.phase is not CasePhase.COLLECTING:
            return []
        self._waiting.discard(event.node)
        return [] if self._waiting else self._collected()

    def _collected(self) -> list[Instruction]:
        """All that can be had has come back: the containers go, or stay for whoever wants to look at them."""
        if self.plan.keep_alive and not self.cancelled:
            self.kept = True
            return [*self._drop_step_timers(), *self._judge("kept")]
        return self._close("collected")

    def _close(self, trigger: str) -> list[Instruction]:
        self.phase = advance(CASE_PHASES, self.phase, trigger)
        self._waiting = set(self.here)
        if not self._waiting:
            return self._judge()
        grace = 0.0 if self._hurry else self.timing.stop_grace_s
        return [
            *self._drop_step_timers(),
            Tell(self.here, CaseClose(1, self.plan.name, grace)),
            SetTimer(self._phase_timer, CLOSE_S + grace),
        ]

    def _on_closed(self, event: CaseClosedOn) -> list[Instruction]:
        if self.phase is not CasePhase.CLOSING:
            return []
        self._waiting.discard(event.node)
        return [] if self._waiting else self._judge()

    def _judge(self, trigger: str = "closed") -> list[Instruction]:
        self.phase = advance(CASE_PHASES, self.phase, trigger)
        return [DropTimer(self._phase_timer), JudgeCase(self.plan.name, self._end())]

    def _end(self) -> CaseEnd:
        failure = self.failure
        return CaseEnd(
            nodes=self.nodes,
            ranks=self.world_size,
            completed=failure is None and not self.cancelled,
            failure=failure.words if failure else "",
            cancelled=self.cancelled,
            seconds=0.0,
            failed_node=failure.node if failure else "",
            failed_rank=failure.rank if failure else NODE_LEVEL,
            skipped=self.plan.skip,
        )

    def _on_finished(self, event: CaseFinished) -> list[Instruction]:
        if self.phase is CasePhase.JUDGING:
            self.phase = advance(CASE_PHASES, self.phase, "judged")
        return []

    # --- nodes that go

    def _on_lost(self, event: AgentLost) -> list[Instruction]:
        if event.node not in self._position or event.node in self._lost:
            return []
        self._lost.add(event.node)
        self._waiting.discard(event.node)
        running = sorted(self._running.get(event.node, ()))
        if self.phase is CasePhase.STEPPING and running:
            name, step, why = self.plan.name, self.step_name, (255, Cause.LOST.value, 0.0, event.detail)
            return [Record(RankExited(name, step, event.node, rank, *why)) for rank in running]
        if self.phase not in (CasePhase.CLOSING, CasePhase.JUDGING, CasePhase.FINISHED):
            self._fail(Failure(f"{event.node} was lost: {event.detail}", event.node, cause="lost"))
        if self.phase is CasePhase.STEPPING:  # its part of this step was done
            return self._stop_ranks(self.timing.stop_grace_s)
        return self._close("abort") if self.phase in _BEFORE_STEPS else self._waited_enough()

    def _waited_enough(self) -> list[Instruction]:
        if self._waiting:
            return []
        if self.phase is CasePhase.DIAGNOSING:
            return self._collect("diagnosed")
        if self.phase is CasePhase.COLLECTING:
            return self._collected()
        return self._judge() if self.phase is CasePhase.CLOSING else []

    def _fail(self, failure: Failure) -> None:
        if self.failure is None:
            self.failure = failure


_HANDLERS: dict[type[Event], Callable[[CaseFlow, Any], list[Instruction]]] = {
    BlobFetched: CaseFlow._on_shipped,
    CaseOpenedOn: CaseFlow._on_opened,
    RankExited: CaseFlow._on_exited,
    CaseDiagnosedOn: CaseFlow._on_diagnosed,
    CaseCollectedOn: CaseFlow._on_collected,
    CaseClosedOn: CaseFlow._on_closed,
    CaseFinished: CaseFlow._on_finished,
}
