"""One more image for nodes of a run that goes on: brought beside whatever runs, one at a time. Pure.

It goes the way of the run's first image. What becomes of it is the business of who asked for it: of the run
no failure, and no delay. Who asks is a person, or the run itself for a case that is due (``case_images``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from phalanx.protocol.messages import SyncStop

from ..exits import Exit
from ..plan.model import ImagePlan, Plan
from .events import Event, ImageCalledOff, ImageFailed, ImageRequested, RunEnding
from .instructions import DropTimer, Instruction, Record, SetTimer, Tell
from .preparation import Preparation
from .states import OVER, Phase
from .trouble import Trouble


@dataclass(slots=True)
class Bringing:
    """The way of the image that ``wanted`` asks for; ``over`` when it is there or cannot come, and only the
    event that says so is missing."""

    wanted: ImageRequested
    preparation: Preparation
    over: bool = False

    @classmethod
    def of(cls, wanted: ImageRequested, plan: Plan) -> Bringing:
        """``plan``: of the run, whose rules of travel hold for every image."""
        if wanted.case:
            image = plan.image_of_cases(wanted.reference)
        else:
            image = ImagePlan(wanted.reference, wanted.archive)
        only = replace(plan, images=(image,), cases=(), inventory=None)
        return cls(wanted, Preparation(only, wanted.nodes, wanted.request))

    @property
    def timer(self) -> str:
        """The name of the timer that ends it."""
        return f"image:{self.wanted.request}"

    def begin(self) -> list[Instruction]:
        """See to it that the engines can be used, then bring it."""
        preparation = self.preparation
        limit = SetTimer(self.timer, preparation.plan.timing.image_timeout_s)
        return [limit, *preparation.begin(set(self.wanted.nodes))]

    def on(self, event: Event) -> list[Instruction]:
        """Take an event; what to do next."""
        if self.over:
            return []
        if isinstance(event, ImageCalledOff) and event.request == self.wanted.request:
            return self._fail(Trouble("it was called off", Exit.INTERRUPTED))
        if isinstance(event, RunEnding):
            return self._fail(Trouble("the run ends", Exit.RUN))
        return [*self.preparation.on(event), *self._looked_at()]

    def late(self) -> list[Instruction]:
        """Its time is up."""
        if self.over:
            return []
        self.preparation.give_up(self.preparation.plan.timing.image_timeout_s)
        return self._looked_at()

    def _looked_at(self) -> list[Instruction]:
        if self.preparation.trouble is not None:
            return self._fail(self.preparation.trouble)
        if self.preparation.done:
            self.over = True
            return [DropTimer(self.timer)]
        return []

    def _fail(self, trouble: Trouble) -> list[Instruction]:
        self.over = True
        wanted = self.wanted
        failed = ImageFailed(wanted.request, wanted.reference, trouble.reason, trouble.exit_code)
        return [DropTimer(self.timer), Tell(wanted.nodes, SyncStop(wanted.request)), Record(failed)]


def cannot_bring(phase: Phase, going: Bringing | None, here: tuple[str, ...], nodes: tuple[str, ...]) -> str:
    """Why no image can be brought to these nodes now; "" when it can. ``here``: nodes whose agents are there;
    ``going``: one that is on its way."""
    if phase in OVER:
        return "the run is ending"
    if phase not in (Phase.RUNNING, Phase.IDLE):
        return "the run is not ready yet; try again when its nodes are prepared"
    if going is not None:
        return f"{going.wanted.reference} is on its way to its nodes; try again when it is there"
    strangers = [node for node in nodes if node not in here]
    if strangers:
        return f"no agent is on {', '.join(strangers)}; see: phalanx nodes"
    return "" if nodes else "no agent is there"
