"""One image on every node: what each holds, who reads from whom, what to do when that changes. Pure.

The image counts as there only when every node has verified it. Where it comes from: the archive that the
plan names, else the login node's engine, else a node whose engine has it, else a registry from which one node
pulls it. A tag is only a name: two nodes with different images under it are an error unless the source
decides.

A node that cannot get it is named and left behind: the others finish, and what they have got is theirs the
next time. Nodes that would hold up those behind them are fed last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from phalanx.protocol.image import ImageFormatError, check_tagged
from phalanx.protocol.messages import ImageQuery, SeedLayers, SyncStop

from ..exits import Exit
from ..images.needs import each_once
from ..images.planner import CONTROLLER, Candidate, SyncPlan, make_plan
from ..images.room import too_little
from ..nodesets import fold
from ..plan.model import ImagePlan
from .events import (
    OWN,
    AgentLost,
    Event,
    ImageArrived,
    ImageOnNode,
    ImagePlanned,
    ImageReady,
    ImageSource,
    LayersOnNode,
    RelayOnNode,
    SlowNodes,
)
from .image_identity import all_same, common_id, held_by_source, is_image
from .instructions import (
    AskLayers,
    ChangeParents,
    FindImage,
    Instruction,
    OpenRelays,
    Parents,
    Record,
    SeedOn,
    SyncImage,
    Tell,
)
from .trouble import Trouble


@dataclass(slots=True)
class Imaging:
    """The way of one image to ``nodes``: ``done`` when all have it, ``trouble`` when one cannot."""

    image: ImagePlan
    nodes: tuple[str, ...]
    request: int = OWN
    done: bool = False
    trouble: Trouble | None = None
    has: dict[str, ImageOnNode] = field(default_factory=dict)
    source: ImageSource | None = None
    held: dict[str, LayersOnNode] = field(default_factory=dict)
    relays: set[str] = field(default_factory=set)
    plan: SyncPlan | None = None
    ready: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    parents: Parents = field(default_factory=dict)
    arrived: set[str] = field(default_factory=set)
    _root: str = CONTROLLER
    _heir: str = ""
    _asked: set[str] = field(default_factory=set)
    _relays_asked: set[str] = field(default_factory=set)

    def begin(self) -> list[Instruction]:
        """Ask who has it."""
        return [Tell(self.nodes, ImageQuery(self.request, self.image.reference))]

    def on(self, event: Event) -> list[Instruction]:
        """Take an event; what to do next."""
        if self.done or self.trouble:
            return []
        handler = _HANDLERS.get(type(event))
        return handler(self, event) if handler else []

    def late(self) -> list[str]:
        """Who has not got it yet."""
        return [node for node in self.nodes if node not in self.ready]

    @property
    def image_id(self) -> str:
        """The image that every node has, "" while it is not known."""
        if self.source is None:
            return ""
        return common_id([self.has[node] for node in self.ready], self.source.image_id)

    # --- who has it, and where it comes from

    def _on_status(self, event: ImageOnNode) -> list[Instruction]:
        if event.node not in self.nodes:
            return []
        if self.source is not None:
            return self._on_synced(event)
        if event.error:
            return self._fail(f"{event.node}: {event.error}")
        self.has[event.node] = event
        return self._choose_source() if len(self.has) == len(self.nodes) else []

    def _choose_source(self) -> list[Instruction]:
        image, wanted = self.image, self.image.image_id
        had = [self.has[node] for node in self.nodes if self.has[node].image_id]
        holders = [one for one in had if not wanted or one.image_id == wanted]
        same = all_same(self.has.values())
        if same and holders and not image.archive:
            image_id = common_id(had, holders[0].image_id)
            self.source = ImageSource("every node has it", image.reference, image_id, 0, request=self.request)
            self.ready = set(self.nodes)
            return self._finished()
        giver = (holders[0].node if holders else self.nodes[0]) if not image.archive else ""
        lacking = [node for node in self.nodes if node != giver and not self.has[node].image_id]
        if words := self._unmovable(lacking):
            return self._fail(words)
        return [
            FindImage(
                image.reference,
                image.archive,
                holders[0].node if holders else "",
                self.nodes,
                self.request,
                wanted,
                had[0].likeness if same and all(one.by_manifest for one in had) else "",
            )
        ]

    def _unmovable(self, lacking: Collection[str]) -> str:
        """Why nodes that lack it cannot be given it, "" when they can: nothing is pulled or read in vain."""
        try:
            check_tagged(self.image.reference)
        except ImageFormatError as error:
            return f"cannot bring {self.image.reference} to {fold(lacking)}: {error}" if lacking else ""
        return ""

    def _on_source(self, event: ImageSource) -> list[Instruction]:
        if event.error:
            return self._fail(event.error)
        if self.source is not None:
            return self._on_heir(self.source, event)
        wanted = self.image.image_id
        if wanted and wanted not in (event.image_id, event.engine_id):
            return self._fail(
                f"{event.reference} is {_short(event.image_id)} ({event.where}), and {_short(wanted)} is "
                "what was built under that name; build it again, or say --image to run what is there"
            )
        had = [one for one in self.has.values() if one.image_id]
        if event.node and had and not all_same(had) and not wanted:
            table = ", ".join(
                f"{node} has {_short(self.has[node].image_id) or 'none'}" for node in self.nodes
            )
            return self._fail(
                f"{event.reference} is not the same image on every node ({table}); "
                "name the one you mean with --image-archive or by its id"
            )
        self.source, self._root = event, event.node
        if event.node:
            self.has[event.node] = held_by_source(event)
        self.ready = {node for node in self.nodes if is_image(self.has[node], event)}
        lacking = tuple(self.late())
        if not lacking:
            return self._nothing_moves()
        if words := self._unmovable(lacking):
            return self._fail(words)
        self._asked = set(lacking)
        out: list[Instruction] = [AskLayers(lacking, self.request)]
        if event.node or len(lacking) > 1:
            serving = (*((event.node,) if event.node else ()), *lacking)
            self._relays_asked = set(serving)
            out.append(OpenRelays(serving, self.request))
        return out

    # --- what nodes hold, and the plan

    def _on_layers(self, event: LayersOnNode) -> list[Instruction]:
        if event.node not in self._asked or self.source is None:
            return []
        self.held[event.node] = event
        refused: list[Instruction] = []
        if event.present:  # by the digest of the configuration, and since it was asked for the name
            self.has[event.node] = held_by_source(replace(self.source, node=event.node, engine_id=""))
            self.ready.add(event.node)
        elif words := event.error or self._untrue(event) or self._too_little(event):
            refused = self._refuse(event.node, words)
        return [*refused, *self._planned()]

    def _untrue(self, event: LayersOnNode) -> str:
        """What cannot be of an answer, "" for one that can."""
        layers = len(self.source.layers) if self.source else 0
        return f"it says that it has {event.in_engine} of {layers} layers" if event.in_engine > layers else ""

    def _too_little(self, event: LayersOnNode) -> str:
        source = self.source
        return too_little(source.layers, event, source.repeated) if source else ""

    def _on_relay(self, event: RelayOnNode) -> list[Instruction]:
        if event.node == self._heir and event.node not in self.relays:
            self.relays.add(event.node)
            return self._fail(f"{event.node}: {event.error}") if event.error else self._prepare_heir()
        if event.node not in self._relays_asked:
            return []
        self.relays.add(event.node)
        refused = self._refuse(event.node, event.error) if event.error else []
        return [*refused, *self._planned()]

    def _refuse(self, node: str, why: str) -> list[Instruction]:
        """A node cannot get it: the others go on."""
        self.failed[node] = why
        return [Record(ImageOnNode(node, self.image.reference, "", why, self.request))]

    def _planned(self) -> list[Instruction]:
        """The plan, once all have answered whom it is about."""
        alive = (self._asked | self._relays_asked) - set(self.failed)
        known = self._asked & alive <= set(self.held) and self._relays_asked & alive <= self.relays
        if self.plan is not None or self.source is None or self._heir or not known:
            return []
        if self._root in self.failed:
            code = Exit.RUN if self._root in self.lost else Exit.IMAGE
            return self._fail(f"{self._root}: {self.failed[self._root]}", code)
        plan = self.plan = self._make_plan()
        if not plan.routes:
            return self._nothing_moves()
        first = {node: self.held[node].first for node in plan.routes}
        self.parents = self._parents(plan)
        total = sum(route.bytes for route in plan.routes.values())
        told = ImagePlanned(
            plan.shape,
            plan.root,
            len(plan.routes),
            total,
            plan.source_bytes,
            plan.saved_bytes,
            round(plan.predicted_s, 3),
            self.request,
        )
        return [
            Record(told),
            SyncImage(first, dict(self.parents), plan.fanout, self.request),
            *self._finished(),
        ]

    def _make_plan(self) -> SyncPlan:
        """Those that have it already by this sync stay in: others read from them."""
        sizes = each_once(self.source.layers, self.source.repeated) if self.source else ()
        wanting = [
            Candidate(node, held.first, frozenset(held.in_cache), slow=node in self.slow)
            for node, held in sorted(self.held.items())
            if not held.present and node not in self.failed and node != self._root
        ]
        return make_plan(sizes, wanting, self._root, previous=self.plan)

    def _parents(self, plan: SyncPlan) -> Parents:
        """From whom each reads; slow ones wait until the others are through."""
        busy = [node for node, route in plan.routes.items() if not route.pendant and node not in self.ready]
        return {
            node: () if route.pendant and busy else route.parents
            for node, route in plan.routes.items()
            if node not in self.ready
        }

    # --- while it goes on

    def _on_synced(self, event: ImageOnNode) -> list[Instruction]:
        if event.node in self.ready or event.node in self.failed:
            return []
        if event.error or not event.image_id:
            self.failed[event.node] = event.error or "the image is not there after loading"
        else:
            self.has[event.node] = event
            self.ready.add(event.node)
        # One more that has it changes nobody's parents, unless slow ones have waited for it: a plan anew for
        # each node would cost its square.
        again = event.node in self.failed or self._last_of_the_fast()
        return [*(self._replan() if again else []), *self._finished()]

    def _last_of_the_fast(self) -> bool:
        """Whether nodes wait for the end of all others, and that is now."""
        routes = self.plan.routes if self.plan is not None else {}
        waiting = [node for node, route in routes.items() if route.pendant and node not in self.ready]
        busy = any(not route.pendant and node not in self.ready for node, route in routes.items())
        return bool(waiting) and not busy

    def _on_slow(self, event: SlowNodes) -> list[Instruction]:
        self.slow = set(event.nodes)
        return self._replan()

    def _on_lost(self, event: AgentLost) -> list[Instruction]:
        if event.node not in self.nodes:
            return []
        if self.source is None:
            return self._fail(f"{event.node} was lost: {event.detail}", Exit.RUN)
        self.failed.setdefault(event.node, f"it was lost: {event.detail}")
        self.lost.add(event.node)
        self.ready.discard(event.node)
        if event.node in (self._root, self._heir) and self._lacking():
            return self._follow(event)
        return [*self._planned(), *self._replan(), *self._finished()]

    # --- when the node that seeds is lost

    def _on_arrived(self, event: ImageArrived) -> list[Instruction]:
        self.arrived.add(event.node)
        return []

    def _lacking(self) -> list[str]:
        """Who still needs bytes from others, or their digests: not those that only load."""
        layers = len(self.source.layers) if self.source else 0
        waiting = [node for node in self.late() if node not in self.failed and node not in self.arrived]
        return [node for node in waiting if node not in self.held or self.held[node].first < layers]

    def _follow(self, event: AgentLost) -> list[Instruction]:
        """Others read from a node that has got all of it here, else one whose engine has it seeds on."""
        self._heir = ""
        if whole := sorted(node for node in self.ready if self._can_give_all(node)):
            self._root = whole[0]
            return [*self._planned(), *self._replan(), *self._finished()]
        if not self.ready:
            return self._fail(
                f"{event.node}, which had the image, was lost: {event.detail}; no other node has all of it: "
                "bring it again, what nodes have got of it lies in their caches",
                Exit.RUN,
            )
        self._heir = min(self.ready)
        return self._prepare_heir()

    def _prepare_heir(self) -> list[Instruction]:
        """It must serve others before it is worth its while to export."""
        if self._heir in self.relays:
            return [SeedOn(self._heir, self.request)]
        return [OpenRelays((self._heir,), self.request)]

    def _on_heir(self, source: ImageSource, event: ImageSource) -> list[Instruction]:
        """It has exported the image. What nodes have got of it stays, and so do digests that they know."""
        if event.node != self._heir:
            return []
        self._root, self._heir = event.node, ""
        self.source = replace(source, node=event.node, where=event.where)
        if self.plan is None:
            return self._planned()
        if not (lacking := self._lacking()):
            return self._nothing_moves()
        first = min(self.held[node].first for node in lacking)
        return [Tell((self._root,), SeedLayers(self.request, first)), *self._replan()]

    def _can_give_all(self, node: str) -> bool:
        """Whether it has got every layer by this sync: it serves none that its engine had before."""
        held = self.held.get(node)
        return held is not None and not held.present and held.first == 0

    def _replan(self) -> list[Instruction]:
        """Tell those whose parents are others now; nothing that a node has got is asked for again."""
        if self.plan is None or self._heir:
            return []
        self.plan = self._make_plan()
        parents = self._parents(self.plan)
        changed = {node: new for node, new in parents.items() if new != self.parents.get(node)}
        self.parents = parents
        return [ChangeParents(changed, self.request)] if changed else []

    # --- the end

    def _nothing_moves(self) -> list[Instruction]:
        """Nobody lacks anything: a node that has exported the image need not keep that."""
        stop = [Tell((self._root,), SyncStop(self.request))] if self._root != CONTROLLER else []
        return [*stop, *self._finished()]

    def _finished(self) -> list[Instruction]:
        """Over when everyone has it or cannot have it."""
        if self.source is None or set(self.late()) - set(self.failed):
            return []
        if self.failed:
            code = Exit.RUN if set(self.failed) <= self.lost else Exit.IMAGE
            return self._fail("; ".join(f"{node}: {why}" for node, why in sorted(self.failed.items())), code)
        self.done = True
        saved = self.plan.saved_bytes if self.plan else 0
        ready = ImageReady(
            self.source.reference,
            self.image_id,
            len(self.nodes),
            0.0,
            saved_bytes=saved,
            request=self.request,
        )
        stop = [Tell((self._heir,), SyncStop(self.request))] if self._heir else []
        return [*stop, Record(ready)]

    def _fail(self, reason: str, exit_code: int = Exit.IMAGE) -> list[Instruction]:
        self.trouble = Trouble(reason, exit_code)
        return []


_HANDLERS: Mapping[type[Event], Callable[[Imaging, Any], list[Instruction]]] = {
    ImageOnNode: Imaging._on_status,
    ImageSource: Imaging._on_source,
    LayersOnNode: Imaging._on_layers,
    RelayOnNode: Imaging._on_relay,
    SlowNodes: Imaging._on_slow,
    ImageArrived: Imaging._on_arrived,
    AgentLost: Imaging._on_lost,
}


def _short(image_id: str) -> str:
    """An id as people compare them."""
    return image_id[:19]
