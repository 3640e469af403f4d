"""The cases of a run: which run, which wait and for what, and what became of the others. Pure.

They run one after another, or as many at a time as the plan allows (``Plan.parallel``). A case starts once
there is a place for it, its image is on every node and its GPUs are free. Where several may run at all,
others may go before one that waits: as every case ends, each has its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..exits import RankEnd
from ..plan.model import CasePlan, Plan
from .case_images import CaseImages
from .caseflow import CaseFlow, Failure
from .events import AgentNotice, CaseFinished, Event
from .hardware import Hardware, unfit
from .instructions import CaseEnd, Instruction, JudgeCase, Record
from .meeting import meeting_of
from .roster import Roster
from .slots import Grant, granted, short_of, wants_gpus, why_never, wish_of


@dataclass(slots=True)
class Cases:
    """All cases of ``plan``. ``flows``: those that run, by name, in the order in which they began.

    ``nodes``: where they run, by node rank. ``ends``: how ranks ended, in the order of time. ``failed``:
    names of cases. ``first_failure``: what went wrong first on a node, of all cases. ``cancelled``: someone
    has stopped the run. ``kept``: names of cases that are over and whose containers still stand.
    """

    plan: Plan
    roster: Roster
    secret_of: Callable[[str], str]
    nodes: tuple[str, ...] = ()
    flows: dict[str, CaseFlow] = field(default_factory=dict)
    images: CaseImages = field(default_factory=CaseImages)
    ends: list[RankEnd] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    first_failure: Failure | None = None
    cancelled: bool = False
    kept: list[str] = field(default_factory=list)
    waiting: list[CasePlan] = field(init=False)
    _grants: dict[str, Grant] = field(default_factory=dict)
    _unjudged: set[str] = field(default_factory=set)
    _told_of: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.waiting = list(self.plan.cases)

    @property
    def judging(self) -> bool:
        """Whether a case that never ran has no row yet."""
        return bool(self._unjudged)

    @property
    def over(self) -> bool:
        """Whether every case has its verdict."""
        return not (self.waiting or self.flows or self._unjudged)

    # --- what happens to those that run

    def on(self, event: Event) -> list[Instruction]:
        """Take an event; what to do next."""
        out = [one for flow in self.flows.values() for one in flow.on(event)]
        self._look_for_failures()
        return out

    def on_timer(self, name: str) -> list[Instruction]:
        """A timer of a case fired."""
        return [one for flow in self.flows.values() for one in flow.on_timer(name)]

    def stop(self, reason: str, grace_s: float, *, cancelled: bool, collect: bool) -> list[Instruction]:
        """End all that run early."""
        out: list[Instruction] = []
        for flow in self.flows.values():
            out += flow.stop(reason, grace_s, cancelled=cancelled, collect=collect)
        self._look_for_failures()
        return out

    def finished(self, event: CaseFinished) -> None:
        """A case has its verdict."""
        self._unjudged.discard(event.case)
        if event.status not in ("SUCCESS", "SKIPPED"):
            self.failed.append(event.case)
        flow = self.flows.get(event.case)
        if flow is not None:
            flow.on(event)
        if flow is not None and flow.finished:
            self.kept += [event.case] * flow.kept
            del self.flows[event.case], self._grants[event.case]

    def _look_for_failures(self) -> None:
        if self.first_failure is None:
            found = (flow.failure for flow in self.flows.values())
            self.first_failure = next((one for one in found if one is not None), None)

    # --- whose turn it is

    def due(self, now: float, why: str) -> list[Instruction]:
        """Start what can be started; ``why``: why nothing is any more, then the next has its row."""
        out: list[Instruction] = []
        have: list[Hardware | None] | None = None
        for case in tuple(self.waiting):
            if len(self.flows) + len(self._unjudged) >= self.plan.parallel:
                break
            if have is None:
                have = self._hardware()
            out += self._turn(case, have, now, why)
            if case in self.waiting and self.plan.parallel == 1:
                break
        return out

    def _hardware(self) -> list[Hardware | None]:
        """What each node has, None for one that has not told."""
        return [self.roster.nodes[node].hardware for node in self.nodes]

    def _turn(
        self, case: CasePlan, have: Sequence[Hardware | None], now: float, why: str
    ) -> list[Instruction]:
        """Start a case, or say why it is not run; nothing when it has to wait."""
        if why := why or self.images.why_not(case):
            return [self._not_run(case, why)]
        known = [(node, one or Hardware()) for node, one in zip(self.nodes, have, strict=True)]
        if why := unfit(case.runs_on, known):
            return [self._not_run(case, "", why)]
        grant: Grant | None = Grant()
        if self.plan.parallel > 1:
            wish = wish_of(case, have)
            if why := why_never(case, wish, self.nodes, have):
                return [self._not_run(case, why)]
            grant = granted(wish, self._grants.values())
        if (lacked := self.images.lacked(case, self.nodes)) is not None:
            return [lacked] if self.images.ask_for(case) else []
        return [] if grant is None else [*self._words_on_gpus(case, have), *self._start(case, grant, now)]

    def _start(self, case: CasePlan, grant: Grant, now: float) -> list[Instruction]:
        self.waiting.remove(case)
        self._grants[case.name] = grant
        meeting = meeting_of(case, self.roster, self.nodes, self._ports())
        env = {"PHALANX_RUN_ID": self.plan.run_id, **meeting.environment()}
        flow = self.flows[case.name] = CaseFlow(
            case,
            self.plan.timing,
            self.nodes,
            self.images.ids_on(self.nodes, case),
            env,
            meeting,
            self.secret_of,
            now,
            grant.indexes,
            self.ends,
        )
        return flow.begin()

    def _words_on_gpus(self, case: CasePlan, have: Sequence[Hardware | None]) -> list[Instruction]:
        """What is to be expected of nodes, each said once: GPUs that no driver gives, fewer than wanted."""
        if not wants_gpus(case):
            return []
        out: list[Instruction] = []
        for node, has in zip(self.nodes, have, strict=True):
            if has is None:
                continue
            if has.unusable and (node, 0) not in self._told_of:
                self._told_of.add((node, 0))
                out.append(Record(AgentNotice(node, has.unusable)))
            if (words := short_of(case, has)) and (node, case.gpu_count) not in self._told_of:
                self._told_of.add((node, case.gpu_count))
                out.append(Record(AgentNotice(node, words)))
        return out

    def _ports(self) -> set[int]:
        """Ports on the first node that a case must not be given: of those that run, and what others state."""
        stated = {case.master_port for case in self.plan.cases} if self.plan.parallel > 1 else set()
        return stated | {flow.meeting.port for flow in self.flows.values()}

    def _not_run(self, case: CasePlan, why: str, skipped: str = "") -> Instruction:
        """One that never starts still gets its row: a failure, or skipped, with the reason."""
        self.waiting.remove(case)
        self._unjudged.add(case.name)
        return JudgeCase(case.name, CaseEnd(self.nodes, 0, False, why, self.cancelled, 0.0, skipped=skipped))

    def rest(self, why: str) -> list[Instruction]:
        """The run is over: rows for all that never started."""
        return [self._not_run(case, why) for case in tuple(self.waiting)]
