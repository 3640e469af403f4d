"""What of an image would move where, and how long that should take: the planner's answer for a dry run.

No node is asked, so every node is taken to lack all of it, and links to be as the planner takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..plan.model import ImagePlan, Plan
from .archive import layer_sizes
from .planner import CONTROLLER, Candidate, Links, make_plan


def transfer_lines(plan: Plan) -> Iterator[str]:
    """Lines about the transfer of the plan's images; none of one of which nothing is known."""
    for image in plan.images:
        if sizes := _layer_sizes(image):
            yield from _way(sizes, plan.target.nodes)
            if plan.travel.rate_bytes_s:
                yield f"each node, and this machine, gives at most {plan.travel.rate_bytes_s / 1e6:g} MB/s"


def _way(sizes: tuple[int, ...], nodes: int) -> Iterator[str]:
    links = Links()
    names = [f"node {number}" for number in range(1, nodes + 1)]
    made = make_plan(sizes, [Candidate(name, 0) for name in names], CONTROLLER, links)
    total = sum(sizes)
    yield (
        f"{len(sizes)} layers, {total / 1e6:.1f} MB, in chunks of {made.chunk_bytes // 1024} KiB; "
        f"nodes read from one another ({made.shape}), this machine sends {made.source_bytes / 1e6:.1f} MB"
    )
    yield (
        f"{made.predicted_s:.1f} s to the last byte over links of {links.uplink * 8 / 1e9:g} Gbit/s when no "
        f"node has any of it (one registry: {len(names) * total / links.uplink:.1f} s)"
    )


def _layer_sizes(image: ImagePlan) -> tuple[int, ...]:
    """Bytes of each layer, () when no archive is named or it cannot be read: the run would say why."""
    return layer_sizes(Path(image.archive), image.reference) if image.archive else ()
