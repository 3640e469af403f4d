"""Which GPUs of the nodes a case has while others run beside it. Pure.

All cases of a run are on the same nodes, and a case has GPUs of the same indexes on each of them. Of two that
run at once none has a GPU of the other's; where nobody knows how many there are, one with GPUs runs beside
none that has any.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from phalanx.protocol.messages import ContainerSpec

from ..plan.gpus import ALL
from ..plan.model import CasePlan
from .hardware import Hardware

#: Device nodes through which a container that has them by its own options reaches GPUs.
_GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a case needs of every node. ``count``: GPUs, ALL or 0. ``pool``: those that it may be given, None
    where nobody knows which there are. ``alone``: beside no other case."""

    count: int = 0
    pool: tuple[int, ...] | None = ()
    alone: bool = False

    @property
    def vain(self) -> bool:
        """Whether it can never be granted, however empty the nodes are."""
        return self.pool is not None and self.count > len(self.pool)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a case holds while it runs. ``indexes``: its GPUs, as far as they are known. ``whole``: no other
    has GPUs meanwhile. ``alone``: no other runs meanwhile."""

    indexes: tuple[int, ...] = ()
    whole: bool = False
    alone: bool = False

    @property
    def has_gpus(self) -> bool:
        """Whether GPUs are held at all."""
        return self.whole or bool(self.indexes)


def granted(wish: Wish, held: Collection[Grant]) -> Grant | None:
    """What a wish gets beside what others hold, the lowest free GPUs first; None: it has to wait."""
    if any(one.alone for one in held) or (wish.alone and held):
        return None
    if not wish.count:
        return Grant(alone=wish.alone)
    if wish.count == ALL or wish.pool is None:
        busy = any(one.has_gpus for one in held)
        return None if busy else Grant(wish.pool or (), whole=True, alone=wish.alone)
    taken = {index for one in held for index in one.indexes}
    free = sorted(set(wish.pool) - taken)
    if any(one.whole for one in held) or len(free) < wish.count:
        return None
    return Grant(tuple(free[: wish.count]), alone=wish.alone)


def wants_gpus(case: CasePlan) -> bool:
    """Whether a case may count on GPUs: by its card or a context, or by options of its container."""
    return case.gpu_count != 0 or _brings_gpus(case.container)


def short_of(case: CasePlan, has: Hardware) -> str:
    """Words for a node that has GPUs, and fewer than a case counts on; "" for any other."""
    if not has.count or case.gpu_count <= has.count:
        return ""
    return f"case {case.name} counts on {case.gpu_count} GPUs of every node, and this one has {has.count}"


def wish_of(case: CasePlan, have: Sequence[Hardware | None]) -> Wish:
    """What a case needs; ``have``: the GPUs of each node, None for one that has not told.

    On nodes that are known to have none, GPUs that a card counts on are not given to it and keep nobody off.
    """
    gpus = case.gpus
    if case.driven:
        return Wish(alone=True)
    if _brings_gpus(case.container):
        return Wish(ALL, None)
    if gpus is None or not gpus.count:
        return Wish()
    if gpus.named:
        return Wish(gpus.count, gpus.named)
    known = [one for one in have if one is not None]
    none_here = not any(one.count for one in known)
    if len(known) < len(have) or (none_here and gpus.vendor):
        return Wish(gpus.count, None)
    if none_here:
        return Wish()
    return Wish(gpus.count, tuple(sorted(set.intersection(*(set(one.indexes) for one in known)))))


def why_never(case: CasePlan, wish: Wish, nodes: Sequence[str], have: Sequence[Hardware | None]) -> str:
    """Why a case can never run on these nodes, in the words of its row; "" when it can."""
    if not wish.vain:
        return ""
    found = min((one.count if one is not None else 0, node) for node, one in zip(nodes, have, strict=True))
    origin = f" ({case.gpus.origin})" if case.gpus is not None else ""
    return f"not run: it needs {wish.count} GPUs on every node{origin}, and {found[1]} has {found[0]}"


def _brings_gpus(spec: ContainerSpec) -> bool:
    by_device = any(device.source.startswith(_GPU_DEVICES) for device in spec.devices)
    return spec.privileged or bool(spec.gpus) or by_device
