"""From a joined fleet to nodes on which cases can run: facts, runtime, image, in that order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from phalanx.protocol.messages import Runtime, RuntimeOpen

from ..exits import Exit
from ..plan.model import Plan
from .events import AgentFacts, AgentLost, BlobFetched, Event, RuntimeOnNode
from .imaging import Imaging
from .instructions import Instruction, Ship, Tell
from .trouble import Trouble


@dataclass(slots=True)
class Preparation:
    """Preparation of ``nodes``: ``done`` when every one is ready, ``trouble`` when one cannot be."""

    plan: Plan
    nodes: tuple[str, ...]
    done: bool = False
    trouble: Trouble | None = None
    facts: set[str] = field(default_factory=set)
    runtime: set[str] = field(default_factory=set)
    library: set[str] = field(default_factory=set)
    imaging: Imaging | None = None
    _runtime_asked: bool = False

    @property
    def kind(self) -> Runtime:
        """The runtime of the run's cases; a plan has one. A plan without cases is there for its image."""
        if self.plan.cases:
            return self.plan.cases[0].container.runtime
        return Runtime.DOCKER if self.plan.image else Runtime.PROCESS

    def begin(self, known_facts: set[str]) -> list[Instruction]:
        """Start; some facts may be known already."""
        self.facts = known_facts & set(self.nodes)
        return self._after_facts()

    def go_without_facts(self) -> list[Instruction]:
        """The facts did not come in time: they are for people, the run goes on."""
        self.facts = set(self.nodes)
        return self._after_facts()

    def give_up(self, seconds: float) -> None:
        """Too much time has passed: name who is not ready, and with what."""
        if self.imaging is None:
            late, what, code = set(self.nodes) - self.runtime, "no answer from its runtime", Exit.LAUNCH
        else:
            late, what, code = set(self.imaging.late()), "the image is not there", Exit.IMAGE
        self._fail(f"{', '.join(sorted(late))}: {what} after {seconds:g} s", code)

    def on(self, event: Event) -> list[Instruction]:
        """Take an event; what to do next."""
        if self.done or self.trouble or getattr(event, "node", "") not in (*self.nodes, ""):
            return []
        if isinstance(event, AgentLost) and self.imaging is None:
            return self._fail(f"{event.node} was lost: {event.detail}", Exit.RUN)
        if isinstance(event, AgentFacts):
            self.facts.add(event.node)
            return self._after_facts()
        if isinstance(event, RuntimeOnNode):
            return self._on_runtime(event)
        if isinstance(event, BlobFetched):
            return self._on_blob(event)
        return self._image(self.imaging.on(event)) if self.imaging is not None else []

    def _after_facts(self) -> list[Instruction]:
        if self._runtime_asked or len(self.facts) < len(self.nodes):
            return []
        self._runtime_asked = True
        return [Tell(self.nodes, RuntimeOpen(1, self.kind, None))]

    def _on_runtime(self, event: RuntimeOnNode) -> list[Instruction]:
        if event.error:
            return self._fail(f"{event.node}: {event.error}", Exit.LAUNCH)
        if event.needs_library:
            if event.node in self.library:
                return self._fail(f"{event.node}: the engine's client cannot be imported", Exit.LAUNCH)
            self.library.add(event.node)
            return [Ship("library", "", (event.node,))]
        self.runtime.add(event.node)
        if len(self.runtime) < len(self.nodes):
            return []
        if self.plan.image is None or self.kind is Runtime.PROCESS:
            self.done = True
            return []
        self.imaging = Imaging(self.plan.image, self.nodes)
        return self._image(self.imaging.begin())

    def _on_blob(self, event: BlobFetched) -> list[Instruction]:
        if event.error:
            return self._fail(f"{event.node}: cannot get the {event.purpose}: {event.error}", Exit.LAUNCH)
        if event.purpose == "library":
            return [Tell((event.node,), RuntimeOpen(1, self.kind, bytes.fromhex(event.blob)))]
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
