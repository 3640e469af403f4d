"""The images of a run's cases: the first comes before all cases, a later one when its case is due. Pure.

Not earlier: the disks of nodes are finite, and a transfer beside a benchmark would falsify what it measures.
Only a run whose cases may run at once has one travel beside others: they share the nodes anyway.
A later image takes the way of one that a person asks for. Those have their turn one after another, so that a
case may have to wait for the end of what a person wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..exits import Exit
from ..plan.model import CasePlan, Plan
from .events import ImageFailed, ImageOnNode, ImageReady, ImageRequested, ImageSource, LayersOnNode
from .image_identity import held_by_source
from .instructions import Instruction, Record, RequestImage


@dataclass(slots=True)
class CaseImages:
    """``ids``: of the images that are on every node, by reference; ``on_nodes``: what each engine calls them;
    ``failed``: why others could not be brought, which is not tried again for the next case; ``asked``: the
    one that a case has asked for, until it is answered: one at a time; ``wanted``: the request for it;
    ``queued``: that it has to wait for its turn.
    """

    ids: dict[str, str] = field(default_factory=dict)
    on_nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    asked: str = ""
    wanted: ImageRequested | None = None
    queued: bool = False
    _told: dict[int, dict[str, str]] = field(default_factory=dict)
    _sources: dict[int, str] = field(default_factory=dict)

    def id_of(self, plan: Plan, case: str) -> str:
        """The id of the image of the case of this name, "" when it is not on every node or there is none."""
        return next((self.ids.get(one.image, "") for one in plan.cases if one.name == case), "")

    def told(self, event: ImageOnNode | ImageSource | LayersOnNode) -> None:
        """A node says what it has, or gives the image, or has got it since it was asked."""
        told = self._told.setdefault(event.request, {})
        if isinstance(event, LayersOnNode):
            if event.present:
                told[event.node] = self._sources.get(event.request, "")
            return
        if isinstance(event, ImageSource):
            self._sources[event.request] = event.image_id
            event = held_by_source(event)
        if event.node and event.image_id:
            told[event.node] = event.image_id

    def ready(self, request: int, reference: str, image_id: str) -> None:
        """The image is on every node, as they have told for this request."""
        self.ids[reference], self.on_nodes[reference] = image_id, self._told.pop(request, {})

    def ids_on(self, nodes: tuple[str, ...], case: CasePlan) -> dict[str, str]:
        """What the engine of each node calls the image of a case; {} when it has none."""
        image = case.container.image
        if not image:
            return {}
        own, common = self.on_nodes.get(image, {}), self.ids.get(image, "")
        return {node: own.get(node) or common for node in nodes}

    def lacked(self, case: CasePlan, nodes: tuple[str, ...]) -> RequestImage | None:
        """What to ask for before a case can run."""
        image = case.image
        return RequestImage(case.name, image, nodes) if image and image not in self.ids else None

    def ask_for(self, case: CasePlan) -> bool:
        """Whether the image of a case may be asked for now, and is from now on."""
        free = not self.asked
        self.asked = self.asked or case.image
        return free

    def answered(self, event: ImageReady | ImageFailed) -> ImageRequested | None:
        """The request of a case that this answers, which is then no longer open; None for any other."""
        wanted = self.wanted
        if wanted is None or event.request != wanted.request:
            return None
        self.wanted, self.asked = None, ""
        if isinstance(event, ImageReady):
            self.ready(event.request, wanted.reference, event.image_id)
        else:
            self.failed[wanted.reference] = event.reason
        return wanted

    def lost(self, node: str) -> list[Instruction]:
        """A node is lost: a case that still waits for its turn waits no longer."""
        wanted = self.wanted
        if wanted is None or not self.queued or node not in wanted.nodes:
            return []
        self.queued = False
        return [Record(ImageFailed(wanted.request, wanted.reference, f"{node} was lost", Exit.RUN))]

    def why_not(self, case: CasePlan) -> str:
        """Why a case cannot run, in the words of its row; "" when its image can still be had."""
        image = case.image
        if image not in self.failed:
            return ""
        return f"not run: the image {image} could not be brought to every node: {self.failed[image]}"
