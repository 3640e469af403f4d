"""Whether an image fits on a node, judged before anything travels."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..fleet.events import LayersOnNode
from .needs import each_once

#: What an engine needs beyond a layer's own bytes, for its books and for blocks that are not full.
DISK_FACTOR = 1.1
#: Bytes that are left free on a disk.
RESERVE_BYTES = 64 * 1024 * 1024


def too_little(sizes: Sequence[int], held: LayersOnNode, repeated: Collection[int] = ()) -> str:
    """Why the layers that a node lacks do not fit there, "" when they do or that is not known.

    On its way a layer lies in the node's cache, and stays there while the engine loads; while it is loaded
    the engine has it twice, once as it came. Where both lie on one disk that must hold all of it.
    ``repeated``: layers that come again above; these travel once, and the engine keeps each by itself.
    """
    wanted = range(held.first, len(sizes))
    once = each_once(sizes, repeated)
    travels = sum(once[index] for index in wanted if index not in held.in_cache)
    if travels + RESERVE_BYTES > held.free_bytes:
        return (
            f"not enough room for the image: {travels} bytes and {RESERVE_BYTES} in reserve are needed in "
            f"its cache, {held.free_bytes} are free; set PHALANX_CACHE_DIR to a larger disk of the node"
        )
    loads = int(sum(sizes[index] for index in wanted) * DISK_FACTOR) + max(
        (sizes[index] for index in wanted), default=0
    )
    if loads > held.engine_free_bytes:
        return (
            f"not enough room for the image: its engine needs {loads} bytes, {held.engine_free_bytes} are "
            "free; remove unused images (docker image prune) or use another node"
        )
    if held.one_disk and travels + loads + RESERVE_BYTES > held.free_bytes:
        return (
            f"not enough room for the image: {travels} bytes in its cache, {loads} for its engine and "
            f"{RESERVE_BYTES} in reserve are needed on one disk, {held.free_bytes} are free; remove unused "
            "images (docker image prune), set PHALANX_CACHE_DIR to another disk of the node, or use another "
            "node"
        )
    return ""
