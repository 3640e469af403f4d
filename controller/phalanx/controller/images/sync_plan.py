"""The words of the image planner: what is known of nodes and links, and what they are told to do.

Values only. ``planner`` makes them; the controller sends them, a simulator plays them, a dry run prints them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The controller's own store, as a root or a parent.
CONTROLLER = ""

Shape = Literal["chain", "two-tree", "k-ary", "none"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that needs the image.

    ``first``: the first layer that its engine lacks; an engine knows layers by their chain, so the rest
    lacks too. ``cached``: layers that lie whole in its blob cache: from ``first`` on they need not travel,
    and it gives them to others. ``slow``: known to be slow: a leaf, fed beside the others. ``rack``: "" when
    not known.
    """

    name: str
    first: int
    cached: frozenset[int] = frozenset()
    slow: bool = False
    rack: str = ""


@dataclass(frozen=True, slots=True)
class Links:
    """Estimates, in bytes per second: what a node can send, what it can take in and verify, what its engine
    loads; ``hop_s``: seconds from a parent's having a chunk to its child's receiving the first byte of it.
    """

    uplink: float = 125e6
    ingest: float = 750e6
    hop_s: float = 0.001
    load: float = 110e6

    @property
    def rate(self) -> float:
        """What a node gets at best."""
        return min(self.uplink, self.ingest)


@dataclass(frozen=True, slots=True)
class Route:
    """One node's share of the plan.

    ``missing``: layers that travel to it, in order, ``bytes`` in all. ``parents``: per stripe, its
    ancestors in that stripe's tree, nearest first and the root last; empty when nothing travels.
    ``children``: readers that it has, counted once per stripe: with any it needs a relay, also when nothing
    travels to it. ``finish_s``: when it has its last byte; a ``pendant`` is taken to be half as fast as the
    others.
    """

    node: str
    missing: tuple[int, ...]
    bytes: int
    parents: tuple[tuple[str, ...], ...]
    children: int
    finish_s: float
    pendant: bool


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Who reads from whom. Times count from the start of the transfer.

    ``fanout``: readers (per stripe) that a node feeds at full speed. ``order``: the nodes that may be
    parents, as they were laid out; a later plan keeps to it. ``predicted_s``: the last byte on the last
    node. ``loaded_s``: the last engine has the last layer. ``source_bytes``: what the root sends.
    ``saved_bytes``: what need not travel, beside sending every layer to every node.
    """

    root: str
    shape: Shape
    chunk_bytes: int
    routes: dict[str, Route]
    predicted_s: float
    source_bytes: int
    saved_bytes: int
    loaded_s: float
    fanout: int
    order: tuple[str, ...]

    @property
    def stripes(self) -> int:
        """Stripes that the chunks of a blob are dealt to."""
        return 2 if self.shape == "two-tree" else 1
