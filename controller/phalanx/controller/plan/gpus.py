"""GPUs of a case on one node: how many, and what a container needs to see them.

Nothing is detected here: the login node need not have what the nodes have. GPUs are given to a container when
something asks for them and it is known whose they are: from the context or the image, or else from the node.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import TypeVar

from phalanx.protocol.messages import ContainerSpec, Device, Runtime

from ..workflow.card import ModelCard
from ..workflow.context import Context
from ..workflow.errors import InputError
from .quantities import whole_number

ALL = -1
#: GPUs that one node may have; larger numbers are mistyped ones.
MOST_GPUS = 1024


@dataclass(frozen=True, slots=True)
class Gpus:
    """``count``: GPUs per node, ``ALL``, or 0 for none; ``indexes``: which, when the context says.

    ``named``: all that the context names, of which cases that run at once have shares.
    """

    vendor: str
    count: int
    origin: str
    indexes: tuple[int, ...] = ()
    render_numbers: tuple[int, ...] = ()
    named: tuple[int, ...] = ()

    @property
    def known(self) -> int | None:
        """How many, None for all of a number that only the node knows."""
        return self.count if self.count != ALL else len(self.indexes) or None

    def devices(self) -> tuple[Device, ...]:
        """Device nodes for AMD: /dev/kfd and the render nodes, all of /dev/dri when numbers are not known."""
        if self.vendor != "AMD" or not self.count:
            return ()
        paths = ["/dev/kfd"]
        if self.render_numbers:
            wanted = self.indexes or tuple(range(len(self.render_numbers)))
            paths += [f"/dev/dri/renderD{self.render_numbers[index]}" for index in wanted]
        else:
            paths.append("/dev/dri")
        return tuple(Device(path, path) for path in paths)

    def request(self) -> str:
        """What NVIDIA's runtime is asked for: "all", or indexes; "" for nothing."""
        if self.vendor != "NVIDIA" or not self.count:
            return ""
        if self.count == ALL and not self.indexes:
            return "all"
        return ",".join(str(index) for index in self.indexes or range(self.count))


def with_gpus(spec: ContainerSpec, gpus: Gpus) -> ContainerSpec:
    """A container that has these GPUs, and what their drivers ask for beside the devices."""
    if spec.runtime is not Runtime.DOCKER or not gpus.vendor or not gpus.count:
        return spec
    amd = gpus.vendor == "AMD"
    return replace(
        spec,
        ipc=spec.ipc or "host",
        devices=_merged(gpus.devices(), spec.devices),
        cap_add=_merged(("SYS_PTRACE",) if amd else (), spec.cap_add),
        security_opt=_merged(("seccomp=unconfined",) if amd else (), spec.security_opt),
        group_add=_merged(("video",) if amd else (), spec.group_add),
        gpus=gpus.request() or spec.gpus,
    )


def when_given(gpus: Gpus, container: bool, at_once: int) -> tuple[Gpus, Gpus | None]:
    """GPUs that a container has by the plan, and those that a case is given on the nodes, None for the same.

    On the nodes when others may run beside it, or when only a node knows whose GPUs it has.
    """
    if not gpus.count:
        return gpus, None
    if at_once > 1:
        return replace(gpus, count=0), gpus
    return gpus, gpus if container and not gpus.vendor else None


def on_node(gpus: Gpus, vendor: str, indexes: tuple[int, ...], numbers: tuple[int, ...]) -> Gpus:
    """GPUs of a case on one node, whose ``vendor`` and render ``numbers`` it tells.

    ``indexes``: those that it is given, () for as many as it wants of all.
    """
    known = gpus.render_numbers or (numbers if indexes else ())
    return replace(gpus, vendor=gpus.vendor or vendor, indexes=indexes or gpus.indexes, render_numbers=known)


#: The variables by which workloads are told which GPUs are theirs.
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def visible_devices(spec: ContainerSpec, gpus: Gpus, said: Container[str]) -> dict[str, str]:
    """Variables for a workload that could reach more GPUs than it is given: a process, or a container that
    has all of AMD's render nodes because nobody knows their numbers.

    ``said``: variables that the user sets; one of these leaves the choice to the user. HIP reads its own
    variable before CUDA's; both, or ROCR's as well, would count twice (and Ray does not start with both).
    """
    by_devices = spec.runtime is Runtime.DOCKER and (gpus.vendor != "AMD" or gpus.render_numbers)
    if by_devices or not gpus.indexes or any(name in said for name in VISIBLE):
        return {}
    words = ",".join(map(str, gpus.indexes))
    if gpus.vendor == "AMD":
        return {"HIP_VISIBLE_DEVICES": words, "RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES": ""}
    return {"CUDA_VISIBLE_DEVICES": words}


_T = TypeVar("_T")


def _merged(base: tuple[_T, ...], more: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys((*base, *more)))


def gpus_of(context: Context, card: ModelCard | None, asked: str, image_vendor: str = "") -> Gpus:
    """GPUs per node: ``asked`` on the command line, then what context and its slurm block say, then the card.

    Whose they are the context says, else the image that was built for them. Raises InputError.
    """
    count, origin = _count(context, card, asked)
    indexes = _indexes(context)
    if indexes and count > len(indexes):
        raise InputError(
            f"cannot give {count} GPUs ({origin}): {context.origin('docker_gpus')} names {len(indexes)}"
        )
    chosen = indexes if count == ALL else indexes[:count]
    numbers = context.render_numbers
    if numbers and chosen and max(chosen) >= len(numbers):
        raise InputError(
            f"cannot use {context.origin('gpu_renderDs')}: it has {len(numbers)} numbers, "
            f"and GPU {max(chosen)} is asked for"
        )
    if numbers and not chosen and count > 0:
        chosen = tuple(range(min(count, len(numbers))))
    named = indexes or tuple(range(len(numbers)))
    return Gpus(context.gpu_vendor or image_vendor, count, origin, chosen, numbers, named)


def _count(context: Context, card: ModelCard | None, asked: str) -> tuple[int, str]:
    alias = "" if context.gpu_count is None else str(context.gpu_count)
    block = context.slurm.gpus_per_node if context.slurm else ""
    for text, origin in (
        (asked, "--gpus-per-node"),
        (alias, context.origin(context.gpu_count_key)),
        (block, context.origin("slurm.gpus_per_node")),
        (_of_card(card), f"{card.where}: slurm.gpus_per_node" if card else ""),
        (card.n_gpus if card else "", f"{card.where}: n_gpus" if card else ""),
    ):
        if text:
            return whole_number(text.rpartition(":")[2], origin, ALL, MOST_GPUS), origin
    return 0, "default"


def _of_card(card: ModelCard | None) -> str:
    value = card.slurm.get("gpus_per_node") if card else None
    return "" if value is None else str(value)


def _indexes(context: Context) -> tuple[int, ...]:
    """``0,2-4,7`` as numbers, sorted, each once."""
    found: set[int] = set()
    origin = context.origin("docker_gpus")
    for part in context.docker_gpus.split(",") if context.docker_gpus else ():
        first, dash, last = part.partition("-")
        low = whole_number(first, origin, 0, MOST_GPUS)
        high = whole_number(last, origin, 0, MOST_GPUS) if dash else low
        if high < low:
            raise InputError(f"cannot use {origin}: {part!r} counts down")
        found.update(range(low, high + 1))
    return tuple(sorted(found))
