"""From a joined fleet to nodes that all hold the same image: facts, runtime, image, in that order. Pure.

The image counts as there only when every node shows the same image id. Where it comes from: the archive
that the plan names, else the login node's engine, else a node whose engine has it. A tag is only a name:
two nodes with different images under it are an error unless the source decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from phalanx.protocol.messages import ImageLoad, ImageQuery, Runtime, RuntimeOpen

from ..exits import Exit
from ..plan.model import Plan
from .events import AgentFacts, BlobFetched, Event, ImageOnNode, ImageReady, ImageSource, RuntimeOnNode
from .instructions import Instruction, PrepareImage, Record, Ship, Tell


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the run cannot go on, and the exit code that says so."""

    reason: str
    exit_code: int


@dataclass(slots=True)
class Preparation:
    """Preparation of ``nodes``: ``done`` when every one is ready, ``trouble`` when one cannot be."""

    plan: Plan
    nodes: tuple[str, ...]
    done: bool = False
    trouble: Trouble | None = None
    facts: set[str] = field(default_factory=set)
    runtime: set[str] = field(default_factory=set)
    library: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    source: ImageSource | None = None
    blob: str = ""
    _runtime_asked: bool = False
    _loading: set[str] = field(default_factory=set)

    @property
    def kind(self) -> Runtime:
        """The runtime of the run's cases; a plan has one."""
        return self.plan.cases[0].container.runtime if self.plan.cases else Runtime.PROCESS

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
        if len(self.runtime) < len(self.nodes):
            late, what, code = set(self.nodes) - self.runtime, "no answer from its runtime", Exit.LAUNCH
        else:
            wanted = self.image_id
            late = {node for node in self.nodes if not wanted or self.images.get(node) != wanted}
            what, code = "the image is not there", Exit.IMAGE
        self._fail(f"{', '.join(sorted(late))}: {what} after {seconds:g} s", code)

    def on(self, event: Event) -> list[Instruction]:
        """Take an event; what to do next."""
        if self.done or self.trouble or getattr(event, "node", self.nodes[0]) not in self.nodes:
            return []
        if isinstance(event, AgentFacts):
            self.facts.add(event.node)
            return self._after_facts()
        if isinstance(event, RuntimeOnNode):
            return self._on_runtime(event)
        if isinstance(event, BlobFetched):
            return self._on_blob(event)
        if isinstance(event, ImageOnNode):
            return self._on_image(event)
        if isinstance(event, ImageSource):
            return self._on_source(event)
        return []

    def _after_facts(self) -> list[Instruction]:
        if self._runtime_asked or len(self.facts) < len(self.nodes):
            return []
        self._runtime_asked = True
        return [Tell(self.nodes, RuntimeOpen(1, self.kind, None))]

    # --- runtime

    def _on_runtime(self, event: RuntimeOnNode) -> list[Instruction]:
        if event.error:
            return self._fail(f"{event.node}: {event.error}", Exit.LAUNCH)
        if event.needs_library:
            if event.node in self.library:
                return self._fail(f"{event.node}: the engine's client cannot be imported", Exit.LAUNCH)
            self.library[event.node] = b""
            return [Ship("library", "", (event.node,))]
        self.runtime.add(event.node)
        if len(self.runtime) < len(self.nodes):
            return []
        if self.plan.image is None or self.kind is Runtime.PROCESS:
            self.done = True
            return []
        return [Tell(self.nodes, ImageQuery(1, self.plan.image.reference))]

    def _on_blob(self, event: BlobFetched) -> list[Instruction]:
        if event.error:
            code = Exit.IMAGE if event.purpose == "image" else Exit.LAUNCH
            return self._fail(f"{event.node}: cannot get the {event.purpose}: {event.error}", code)
        if event.purpose == "library":
            return [Tell((event.node,), RuntimeOpen(1, self.kind, bytes.fromhex(event.blob)))]
        if event.purpose == "image" and self.source is not None:
            self._loading.add(event.node)
            load = ImageLoad(1, self.source.reference, self.source.image_id, bytes.fromhex(event.blob))
            return [Tell((event.node,), load)]
        return []

    # --- image

    def _on_image(self, event: ImageOnNode) -> list[Instruction]:
        if event.error:
            return self._fail(f"{event.node}: {event.error}", Exit.IMAGE)
        self.images[event.node] = event.image_id
        if self.source is None:
            return self._choose_source() if len(self.images) == len(self.nodes) else []
        if event.node in self._loading and event.image_id != self.source.image_id:
            return self._fail(
                f"{event.node}: {event.reference} is {event.image_id or 'absent'} after loading, "
                f"{self.source.image_id} was sent",
                Exit.IMAGE,
            )
        return self._ready()

    def _choose_source(self) -> list[Instruction]:
        image = self.plan.image
        if image is None:
            return []
        holders = [node for node in self.nodes if self.images[node]]
        same = len(set(self.images.values())) == 1 and len(holders) == len(self.nodes)
        if same and not image.archive:
            self.source = ImageSource("every node has it", image.reference, self.images[holders[0]], 0)
            return self._ready()
        return [PrepareImage(image.reference, image.archive, holders[0] if holders else "")]

    def _on_source(self, event: ImageSource) -> list[Instruction]:
        if event.error:
            return self._fail(event.error, Exit.IMAGE)
        ids = {self.images[node] for node in self.nodes if self.images[node]}
        if event.where.startswith("engine of node") and len(ids) > 1:
            table = ", ".join(f"{node} has {self.images[node][:19]}" for node in self.nodes)
            return self._fail(
                f"{event.reference} is not the same image on every node ({table}); "
                "name the one you mean with --image-archive or by its id",
                Exit.IMAGE,
            )
        self.source = event
        lacking = tuple(node for node in self.nodes if self.images[node] != event.image_id)
        return self._ready() or [Ship("image", "", lacking)]

    def _ready(self) -> list[Instruction]:
        if self.source is None or any(self.images[node] != self.source.image_id for node in self.nodes):
            return []
        if self.done:
            return []
        self.done = True
        return [Record(ImageReady(self.source.reference, self.source.image_id, len(self.nodes), 0.0))]

    def _fail(self, reason: str, exit_code: int) -> list[Instruction]:
        self.trouble = Trouble(reason, exit_code)
        return []

    @property
    def image_id(self) -> str:
        """The image id that every node shows, "" when the run needs none."""
        return self.source.image_id if self.source else ""
