"""From a joined fleet to nodes on which cases can run: facts and runtime, then the image. Pure.

Of an inventory, the nodes' answers take the place of the image; one that cannot answer does not keep the
others from it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from phalanx.protocol.messages import ImagesQuery, Runtime, RuntimeOpen

from ..exits import Exit
from ..plan.model import Plan
from .events import OWN, AgentFacts, AgentLost, BlobFetched, Event, ImagesOnNode, RuntimeOnNode
from .imaging import Imaging
from .instructions import Instruction, Ship, Tell
from .trouble import Trouble


def kinds_of(plan: Plan) -> tuple[Runtime, ...]:
    """The runtimes that a run needs, in the order in which a node opens them: the engine comes last.

    A case may run as a process and need an image; a plan without cases is there for images.
    """
    kinds = {case.container.runtime for case in plan.cases}
    if plan.images or plan.inventory:
        kinds.add(Runtime.DOCKER)
    return tuple(sorted(kinds or {Runtime.PROCESS}, key=lambda kind: kind is Runtime.DOCKER))


@dataclass(slots=True)
class Preparation:
    """Preparation of ``nodes``: ``done`` when every one is ready, ``trouble`` when one cannot be.

    ``kinds``: the runtimes that a node opens, in that order.
    """

    plan: Plan
    nodes: tuple[str, ...]
    request: int = OWN
    done: bool = False
    trouble: Trouble | None = None
    facts: set[str] = field(default_factory=set)
    runtime: set[str] = field(default_factory=set)
    opened: Counter[str] = field(default_factory=Counter)
    library: set[str] = field(default_factory=set)
    imaging: Imaging | None = None
    answered: dict[str, Trouble | None] = field(default_factory=dict)
    kinds: tuple[Runtime, ...] = field(init=False)
    _known: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self._known = frozenset((*self.nodes, ""))  # events of no node are for all
        self.kinds = kinds_of(self.plan)

    def _open(self, nodes: tuple[str, ...], library: bytes | None = None) -> Instruction:
        """Open the runtime that is next on these nodes, which are all as far."""
        return Tell(nodes, RuntimeOpen(self.request, self.kinds[self.opened[nodes[0]]], library))

    def begin(self, known_facts: set[str]) -> list[Instruction]:
        """Start; some facts may be known already."""
        self.facts = known_facts & set(self.nodes)
        return [self._open(self.nodes)]

    def go_without_facts(self) -> list[Instruction]:
        """The facts did not come in time: they are for people, the run goes on."""
        self.facts = set(self.nodes)
        return self._go_on()

    def give_up(self, seconds: float) -> None:
        """Too much time has passed: name who is not ready, and with what."""
        if self.imaging is None:
            there = self.runtime if self.plan.inventory is None else self.answered.keys()
            late, what, code = set(self.nodes) - there, "no answer from its runtime", Exit.LAUNCH
        else:
            late, what, code = set(self.imaging.late()), "the image is not there", Exit.IMAGE
        self._fail(f"{', '.join(sorted(late))}: {what} after {seconds:g} s", code)

    def on(self, event: Event) -> list[Instruction]:
        """Take an event; what to do next."""
        if self.done or self.trouble or getattr(event, "node", "") not in self._known:
            return []
        if getattr(event, "request", self.request) != self.request:
            return []
        if isinstance(event, AgentLost) and self.plan.inventory is not None:
            return self._answered(event.node, f"was lost: {event.detail}", Exit.RUN)
        if isinstance(event, AgentLost) and self.imaging is None:
            return self._fail(f"{event.node} was lost: {event.detail}", Exit.RUN)
        if isinstance(event, AgentFacts):
            self.facts.add(event.node)
            return self._go_on()
        if isinstance(event, RuntimeOnNode):
            return self._on_runtime(event)
        if isinstance(event, BlobFetched):
            return self._on_blob(event)
        if isinstance(event, ImagesOnNode):
            return self._answered(event.node, event.error, Exit.IMAGE)
        return self._image(self.imaging.on(event)) if self.imaging is not None else []

    def _on_runtime(self, event: RuntimeOnNode) -> list[Instruction]:
        if self.imaging is not None or event.node in self.runtime:
            return []  # said twice
        if event.error:
            return self._unable(event.node, event.error)
        if event.needs_library:
            if event.node in self.library:
                return self._unable(event.node, "the engine's client cannot be imported")
            self.library.add(event.node)
            return [Ship("library", (), (event.node,), self.request)]
        self.opened[event.node] += 1
        if self.opened[event.node] < len(self.kinds):
            return [self._open((event.node,))]
        self.runtime.add(event.node)
        if (wanted := self.plan.inventory) is not None:
            return [Tell((event.node,), ImagesQuery(1, wanted.reference, wanted.prune))]
        return self._go_on()

    def _go_on(self) -> list[Instruction]:
        """Go on to the image once every node is known and its runtime open."""
        waits = len(self.facts) < len(self.nodes) or len(self.runtime) < len(self.nodes)
        if waits or self.imaging is not None or self.plan.inventory is not None:
            return []
        if not self.plan.images:
            self.done = True
            return []
        self.imaging = Imaging(self.plan.images[0], self.nodes, self.request)
        return self._image(self.imaging.begin())

    def _on_blob(self, event: BlobFetched) -> list[Instruction]:
        if event.purpose != "library":
            return []
        if event.error:
            return self._unable(event.node, f"cannot get the {event.purpose}: {event.error}")
        return [self._open((event.node,), bytes.fromhex(event.blob))]

    def _unable(self, node: str, why: str) -> list[Instruction]:
        """The node's runtime cannot be used."""
        if self.plan.inventory is not None:
            return self._answered(node, why, Exit.LAUNCH)
        return self._fail(f"{node}: {why}", Exit.LAUNCH)

    def _answered(self, node: str, error: str, exit_code: int) -> list[Instruction]:
        """One answer more to an inventory, the first of a node; done with the last."""
        self.answered.setdefault(node, Trouble(f"{node}: {error}", exit_code) if error else None)
        if len(self.answered) == len(self.nodes):
            troubles = [trouble for trouble in self.answered.values() if trouble is not None]
            if troubles:
                self._fail("; ".join(trouble.reason for trouble in troubles), troubles[0].exit_code)
            self.done = not troubles
        return []

    def _image(self, out: list[Instruction]) -> list[Instruction]:
        if self.imaging is not None:
            self.done, self.trouble = self.imaging.done, self.imaging.trouble
        return out

    def _fail(self, reason: str, exit_code: int) -> list[Instruction]:
        self.trouble = Trouble(reason, exit_code)
        return []

    @property
    def image_id(self) -> str:
        """The image id that every node shows, "" when the run needs none."""
        return self.imaging.image_id if self.imaging else ""
