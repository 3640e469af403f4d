"""The brain of a run: ``handle(event, now) -> instructions``. Pure and deterministic.

It believes only events that are in the event log. What the world does (an agent joins, a rank exits, a
timer fires) becomes an event first; what the engine decides becomes an instruction for the shell, or an
event to record. Replaying a log through it gives the same state again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from phalanx.protocol.membership import Member
from phalanx.protocol.messages import Leave
from phalanx.protocol.schema import as_words

from ..exits import Exit
from ..plan.model import Plan
from .bringing import Bringing, cannot_bring
from .cases import Cases
from .events import (
    OWN,
    AgentDraining,
    AgentFacts,
    AgentJoined,
    AgentLeft,
    AgentLost,
    AgentSilent,
    AllocationEnded,
    AllocationGranted,
    AllocationRefused,
    AllocationReleased,
    CancelRequested,
    CaseFinished,
    Event,
    FleetJoined,
    ImageFailed,
    ImageOnNode,
    ImageReady,
    ImageRequested,
    ImageSource,
    JoinTimeout,
    LayersOnNode,
    RunEnding,
    RunFinished,
    RunStarted,
    SpawnEnded,
    SpawnSaid,
)
from .instructions import (
    AllocateNodes,
    AskScheduler,
    DropTimer,
    EndAgents,
    ExplainMissing,
    Instruction,
    Record,
    ReleaseAllocation,
    SetTimer,
    SpawnAgents,
    StopAllocating,
    Tell,
)
from .preparation import Preparation
from .roster import Roster
from .states import OVER, PHASES, Phase, advance
from .trouble import Trouble
from .verdict import why_not_run, workload_verdict

_STATES: dict[int, str] = {Exit.OK: "succeeded", Exit.INTERRUPTED: "cancelled"}

#: How long facts may take before the run goes on without them, in seconds.
FACTS_S = 15.0
#: What agents may take beyond the grace to say goodbye, in seconds.
LEAVE_SLACK_S = 10.0
#: The same for a spawner of which an agent is lost: those that left have ended within this.
LOST_SLACK_S = 2.0
#: A silent agent whose spawner is over is given this long to come back, in seconds.
ORPHAN_S = 3.0
#: Grace when the scheduler is taking the nodes: its own KillWait is running (5-30 s).
DRAIN_GRACE_S = 2.0


@dataclass(slots=True)
class Engine:
    """The state of one run. ``secret_of`` gives the values of secrets by name; they are not in the plan."""

    plan: Plan
    secret_of: Callable[[str], str] = lambda name: ""
    phase: Phase = Phase.PLANNED
    roster: Roster = field(default_factory=Roster)
    job_id: str = ""
    owned: bool = False
    joined_at: float = 0.0
    preparation: Preparation | None = None
    cases: Cases = field(init=False)
    bringing: Bringing | None = None
    verdict: Trouble | None = None
    cancel_level: int = 0
    spawner_gone: str = ""
    said: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    _spawned_at: float = 0.0
    _leaving: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.cases = Cases(self.plan, self.roster, self.secret_of)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes of the run by rank, once they have joined."""
        return self.cases.nodes

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take an event that is in the log; what to do. ``now``: monotonic seconds."""
        handler = _HANDLERS.get(type(event))
        out = handler(self, event, now) if handler else []
        if self.preparation is not None and self.phase is Phase.PREPARING:
            out += self.preparation.on(event)
            out += self._prepared(now)
        out += self.cases.on(event)
        if self.bringing is not None:
            out += self.bringing.on(event)
        return out

    def on_timer(self, name: str, now: float) -> list[Instruction]:
        """A timer that an instruction set has fired."""
        if name == "join" and self.phase is Phase.JOINING:
            return [self._explain()]
        if name == "facts" and self.preparation is not None and self.phase is Phase.PREPARING:
            return [*self.preparation.go_without_facts(), *self._prepared(now)]
        if name == "prepare" and self.preparation is not None and self.phase is Phase.PREPARING:
            self.preparation.give_up(self.plan.timing.image_timeout_s)
            return self._prepared(now)
        if name == "leave" and self.phase is Phase.ENDING:
            return [EndAgents(0.0)]
        if name.startswith("lost:"):
            return self._give_up(name.removeprefix("lost:"))
        if self.bringing is not None and name == self.bringing.timer:
            return self.bringing.late()
        return self.cases.on_timer(name)

    # --- start, allocation, join

    def _on_started(self, event: RunStarted, now: float) -> list[Instruction]:
        self._advance("start")
        if self.cancel_level:
            return self._give_back_unused()
        return [AllocateNodes()]

    def _on_granted(self, event: AllocationGranted, now: float) -> list[Instruction]:
        self.job_id, self.owned = event.job_id, event.owned
        if self.cancel_level and self.phase is Phase.ALLOCATING:
            return self._give_back_unused()  # the grant and the cancel crossed
        if self.phase is not Phase.ALLOCATING:
            return [ReleaseAllocation()]
        self._advance("granted")
        self.roster.expect(event.nodes)
        self._spawned_at = now
        return [
            SpawnAgents(event.job_id, event.nodes, event.owned),
            SetTimer("join", self.plan.timing.join_timeout_s),
        ]

    def _give_back_unused(self) -> list[Instruction]:
        """Cancelled before any agent was started."""
        self._advance("end")
        return [Record(RunEnding("cancelled before the nodes were used")), ReleaseAllocation()]

    def _on_refused(self, event: AllocationRefused, now: float) -> list[Instruction]:
        if self.phase is not Phase.ALLOCATING:
            return []
        code = Exit.INTERRUPTED if self.cancel_level else Exit.SCHEDULER
        self._decide(Trouble(event.reason, code))
        self._advance("end")
        return [Record(RunEnding(event.reason)), ReleaseAllocation()]

    def _on_agent(self, event: AgentJoined | AgentFacts, now: float) -> list[Instruction]:
        self.roster.apply(event)
        out: list[Instruction] = []
        if isinstance(event, AgentJoined):
            out.append(DropTimer(f"lost:{event.node}"))
            out += self._show_out(event.node)
            if self.phase is Phase.JOINING and not self.roster.any(Member.EXPECTED):
                lost = self.roster.any(Member.LOST)
                out.append(self._explain() if lost else Record(self._fleet(now)))
        return out

    def _fleet(self, now: float) -> FleetJoined:
        return FleetJoined(len(self.roster.present), len(self.roster.nodes), now - self._spawned_at)

    def _on_fleet(self, event: FleetJoined, now: float) -> list[Instruction]:
        if self.phase is not Phase.JOINING:
            return []
        self._advance("joined")
        self.cases.nodes = self.roster.present
        known = {name for name in self.nodes if self.roster.nodes[name].facts is not None}
        self.preparation = Preparation(self.plan, self.nodes)
        limit = SetTimer("prepare", self.plan.timing.image_timeout_s)
        return [DropTimer("join"), SetTimer("facts", FACTS_S), limit, *self.preparation.begin(known)]

    def _on_join_timeout(self, event: JoinTimeout, now: float) -> list[Instruction]:
        if self.phase is not Phase.JOINING:
            return []
        wanted = self.plan.target.min_nodes or len(self.roster.nodes)
        if len(self.roster.present) >= wanted:
            return [Record(self._fleet(now))]
        missing = ", ".join(f"{node} ({reason})" for node, reason in event.missing.items())
        return self._end(
            Trouble(f"{event.joined} of {event.expected} agents joined; missing: {missing}", Exit.JOIN)
        )

    def _explain(self) -> Instruction:
        missing = self.roster.of(Member.EXPECTED, Member.LOST)
        return ExplainMissing(missing, len(self.roster.present), len(self.roster.nodes))

    # --- nodes that fall silent, drain, leave

    def _on_silent(self, event: AgentSilent, now: float) -> list[Instruction]:
        if not self.roster.apply(event):
            return []
        patience = ORPHAN_S if self.spawner_gone else self.plan.timing.lease_s
        return [SetTimer(f"lost:{event.node}", patience)]

    def _give_up(self, node: str) -> list[Instruction]:
        record = self.roster.nodes.get(node)
        if record is None or record.state is not Member.SILENT:
            return []
        parts = (record.detail, self.said.get(node, ""), self.spawner_gone)
        return [Record(AgentLost(node, "; ".join(part for part in parts if part)))]

    def _on_said(self, event: SpawnSaid, now: float) -> list[Instruction]:
        """The spawner's last word about a node that had joined may tell why it goes.

        One whose agent has ended before it joined is waited for no longer.
        """
        record = self.roster.nodes.get(event.node)
        if record is None:
            return []
        if record.state is not Member.EXPECTED:
            self.said[event.node] = event.text
        elif event.gone and self.phase is Phase.JOINING:
            return [Record(AgentLost(event.node, event.text))]
        return []

    def _on_lost(self, event: AgentLost, now: float) -> list[Instruction]:
        self.roster.apply(event)
        if self.phase is Phase.JOINING and not self.roster.any(Member.EXPECTED):
            return [self._explain()]
        if self.phase is Phase.IDLE:
            return self._end(Trouble(f"{event.node} was lost: {event.detail}", Exit.RUN))
        return [*self.cases.images.lost(event.node), *self._fleet_gone()]

    def _on_left(self, event: AgentLeft, now: float) -> list[Instruction]:
        self.roster.apply(event)
        self.leftovers += [f"{event.node}: {words}" for words in event.leftovers]
        return self._fleet_gone()

    def _on_draining(self, event: AgentDraining, now: float) -> list[Instruction]:
        if self.verdict is not None or self.cancel_level:
            return []
        return [AskScheduler(), *self._taken(f"{event.node}: {event.reason}")]

    def _on_allocation_ended(self, event: AllocationEnded, now: float) -> list[Instruction]:
        words = f"the scheduler ended the allocation: {event.state} {event.reason}".rstrip()
        if self.verdict is not None and self.verdict.exit_code == Exit.SCHEDULER:
            self.verdict = Trouble(words, Exit.SCHEDULER)
            return []
        return self._taken(words)

    def _taken(self, words: str) -> list[Instruction]:
        if self.verdict is not None or self.phase in OVER:
            return []
        trouble = Trouble(words, Exit.SCHEDULER)
        if not self.cases.flows:
            return self._end(trouble)
        self._decide(trouble)
        return self.cases.stop(words, DRAIN_GRACE_S, cancelled=False, collect=True)

    def _on_spawn_ended(self, event: SpawnEnded, now: float) -> list[Instruction]:
        self.spawner_gone = f"the spawner ended with status {event.status}" + (
            f" ({event.text})" if event.text else ""
        )
        if self.phase is Phase.ENDING:
            return self._gone()
        out: list[Instruction] = [
            SetTimer(f"lost:{node}", ORPHAN_S) for node in self.roster.of(Member.SILENT)
        ]
        if self.phase is Phase.JOINING:
            out.append(self._explain())
        return out

    # --- one more image

    def cannot_bring(self, nodes: tuple[str, ...]) -> str:
        """Why an image that someone asks for cannot be brought to these nodes now; "" when it can."""
        return cannot_bring(self.phase, self.bringing, self.roster.of(Member.JOINED), nodes)

    def _on_image_requested(self, event: ImageRequested, now: float) -> list[Instruction]:
        words = self.cannot_bring(event.nodes)
        if event.case:
            self.cases.images.wanted, self.cases.images.queued = event, self.bringing is not None
            if self.cases.images.queued:
                return []
            # A case waits for nodes that are silent just now, as its steps would.
            words = cannot_bring(self.phase, None, self.roster.present, event.nodes)
        if words:
            return [Record(ImageFailed(event.request, event.reference, words, Exit.FAILURE))]
        self.bringing = Bringing.of(event, self.plan)
        return self.bringing.begin()

    def _on_image_told(
        self, event: ImageOnNode | ImageSource | LayersOnNode, now: float
    ) -> list[Instruction]:
        self.cases.images.told(event)
        return []

    def _on_image_answered(self, event: ImageReady | ImageFailed, now: float) -> list[Instruction]:
        """The way is free for the image of a case that waits; or a case has its image, or cannot have it."""
        if self.bringing is not None and self.bringing.wanted.request == event.request:
            self.bringing = None
            if self.cases.images.queued and self.cases.images.wanted is not None:
                return self._on_image_requested(self.cases.images.wanted, now)
        wanted = self.cases.images.answered(event)
        if wanted is None or self.phase is not Phase.RUNNING:
            return []
        return self._next_cases(now)

    # --- preparation and cases

    def _prepared(self, now: float) -> list[Instruction]:
        preparation = self.preparation
        if preparation is None or self.phase is not Phase.PREPARING:
            return []
        trouble = preparation.trouble
        if trouble is not None and (trouble.exit_code != Exit.IMAGE or len(self.plan.images) < 2):
            return self._end(trouble)
        if trouble is not None:  # of several images the first: the cases of the others run
            self.cases.images.failed[self.plan.images[0].reference] = trouble.reason
        elif not preparation.done:
            return []
        elif preparation.image_id:
            self.cases.images.ready(OWN, self.plan.images[0].reference, preparation.image_id)
        self._advance("prepared")
        return [DropTimer("facts"), DropTimer("prepare"), *self._next_cases(now)]

    def _next_cases(self, now: float) -> list[Instruction]:
        gone = tuple(node for node in self.nodes if node not in self.roster.present)
        halted = self.verdict is not None or self.cancel_level or gone
        why = why_not_run(bool(self.cancel_level), self.verdict, gone) if halted else ""
        out = self.cases.due(now, why)
        return [*out, *self._all_cases_over()] if self.cases.over else out

    def _on_case_finished(self, event: CaseFinished, now: float) -> list[Instruction]:
        self.cases.finished(event)
        if self.phase is Phase.RUNNING:
            return self._next_cases(now)
        return self._finish() if self.phase is Phase.RELEASED and not self.cases.judging else []

    def _all_cases_over(self) -> list[Instruction]:
        if self.plan.keep and self.verdict is None and not self.cancel_level:
            self._advance("idle")
            return []
        return self._end(self.verdict or self._of_cases())

    def _of_cases(self) -> Trouble:
        cases = self.cases
        return workload_verdict(self.plan, cases.ends, cases.failed, cases.first_failure)

    # --- cancel and end

    def _on_cancel(self, event: CancelRequested, now: float) -> list[Instruction]:
        if event.level <= self.cancel_level or self.phase in OVER - {Phase.ENDING}:
            return []
        self.cancel_level, self.cases.cancelled = event.level, True
        trouble = Trouble(f"cancelled by {event.by}", Exit.INTERRUPTED)
        if self.phase in (Phase.PLANNED, Phase.ALLOCATING):
            self._decide(trouble)
            return [StopAllocating()] if self.phase is Phase.ALLOCATING else []
        if self.phase is Phase.ENDING:
            return [EndAgents(0.0)] if event.level > 1 else []
        # Models that are over have a verdict, which is not that someone has seen enough.
        if self.phase is Phase.IDLE and self.plan.exit_policy == "workflow":
            return self._end(self._of_cases())
        if not self.cases.flows:
            return self._end(trouble)
        self._decide(trouble)
        grace = self.plan.timing.stop_grace_s if event.level == 1 else 0.0
        return self.cases.stop(trouble.reason, grace, cancelled=True, collect=event.level == 1)

    @property
    def _all_done(self) -> str:
        if self.plan.cases:
            return "all cases are over"
        return "every node has answered" if self.plan.inventory else "every node has the image"

    def _decide(self, trouble: Trouble) -> None:
        if self.verdict is None:
            self.verdict = trouble

    def _end(self, trouble: Trouble) -> list[Instruction]:
        if self.phase in OVER:
            return []
        self._decide(trouble)
        self._advance("end")
        out: list[Instruction] = [
            DropTimer("join"),
            DropTimer("facts"),
            DropTimer("prepare"),
            Record(RunEnding(self._why_over)),
            self._dismiss(self.roster.of(Member.JOINED)),
            SetTimer("leave", self._grace_s + LEAVE_SLACK_S),
        ]
        return out + self._fleet_gone()

    @property
    def _why_over(self) -> str:
        return self.verdict.reason if self.verdict and self.verdict.reason else self._all_done

    def _show_out(self, node: str) -> list[Instruction]:
        """Who joins or comes back while the run ends is told to leave like everyone else."""
        if self.phase is not Phase.ENDING or node in self._leaving:
            return []
        return [self._dismiss((node,))]

    def _dismiss(self, nodes: tuple[str, ...]) -> Instruction:
        self._leaving.update(nodes)
        return Tell(nodes, Leave(as_words(self._why_over), self._grace_s))

    @property
    def _grace_s(self) -> float:
        """How long what runs may take to end, in seconds: nothing after a second cancel."""
        return self.plan.timing.stop_grace_s if self.cancel_level < 2 else 0.0

    def _fleet_gone(self) -> list[Instruction]:
        """Once every agent that had joined is gone, the spawner has nothing left to live for."""
        if self.phase is not Phase.ENDING or self.roster.any(Member.JOINED):
            return []
        if self.spawner_gone:
            return self._gone()
        # A spawner may wait for a lost node for as long as it likes.
        slack = LOST_SLACK_S if self.roster.any(Member.LOST) else LEAVE_SLACK_S
        return [DropTimer("leave"), EndAgents(slack)]

    def _gone(self) -> list[Instruction]:
        self._advance("gone")
        return [DropTimer("leave"), ReleaseAllocation()]

    def _on_released(self, event: AllocationReleased, now: float) -> list[Instruction]:
        if self.phase is not Phase.RELEASING:
            return []
        self._advance("released")
        if event.error:
            self.leftovers.append(f"allocation {event.job_id}: {event.error}")
        out = self.cases.rest(why_not_run(bool(self.cancel_level), self.verdict, ()))
        return out if self.cases.judging else self._finish()

    def _finish(self) -> list[Instruction]:
        self._advance("finished")
        verdict = self.verdict or Trouble("", Exit.OK)
        state = _STATES.get(verdict.exit_code, "failed")
        code, reason = int(verdict.exit_code), verdict.reason
        return [Record(RunFinished(state, code, reason, tuple(self.leftovers)))]

    def _advance(self, trigger: str) -> None:
        self.phase = advance(PHASES, self.phase, trigger)


_HANDLERS: Mapping[type[Event], Callable[[Engine, Any, float], list[Instruction]]] = {
    RunStarted: Engine._on_started,
    AllocationGranted: Engine._on_granted,
    AllocationRefused: Engine._on_refused,
    AllocationEnded: Engine._on_allocation_ended,
    AllocationReleased: Engine._on_released,
    SpawnEnded: Engine._on_spawn_ended,
    SpawnSaid: Engine._on_said,
    AgentJoined: Engine._on_agent,
    AgentFacts: Engine._on_agent,
    AgentSilent: Engine._on_silent,
    AgentLost: Engine._on_lost,
    AgentLeft: Engine._on_left,
    AgentDraining: Engine._on_draining,
    JoinTimeout: Engine._on_join_timeout,
    FleetJoined: Engine._on_fleet,
    CancelRequested: Engine._on_cancel,
    CaseFinished: Engine._on_case_finished,
    ImageOnNode: Engine._on_image_told,
    ImageSource: Engine._on_image_told,
    LayersOnNode: Engine._on_image_told,
    ImageRequested: Engine._on_image_requested,
    ImageReady: Engine._on_image_answered,
    ImageFailed: Engine._on_image_answered,
}
