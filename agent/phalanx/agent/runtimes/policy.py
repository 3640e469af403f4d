"""What a container may not ask of a node, whoever wrote its specification. Pure.

What would make it as mighty as the node's root takes the word of the user of the run
(``protocol/allowances``); the node may forbid even that, and some things are never had. All are refused by
name, before an engine is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

from phalanx.protocol.allowances import needs, plain
from phalanx.protocol.messages import Allowance, ContainerSpec, Mount

_OWN_TARGETS = ("/run/phalanx", "/run/phalanx.sock")


def refusals(spec: ContainerSpec, forbidden: Mapping[Allowance, str] | None = None) -> list[str]:
    """Why this container is not made; empty when it may be. Paths are taken as they are written.

    ``forbidden``: what this node gives nobody, each with where that is said.
    """
    words = [word for mount in spec.mounts for word in _mount(mount)]
    words += _namespaces(spec)
    for need in needs(spec):
        word = need.allowance.value
        if need.allowance not in spec.allow:
            words.append(f"{need}; the run does not allow {word}")
        elif forbidden and need.allowance in forbidden:
            words.append(f"{need}; the run allows {word}, this node does not: {forbidden[need.allowance]}")
    return words


def _mount(mount: Mount) -> list[str]:
    words = []
    if not mount.source.startswith("/") or not mount.target.startswith("/"):
        words.append(f"mount {mount.source}:{mount.target}: both paths must be absolute")
    if _is_taken(mount.target):
        words.append(f"mount {mount.source}:{mount.target}: that place in the container is taken")
    return words


def _is_taken(path: str) -> bool:
    target = plain(path)
    return target == "/" or any(target == own or target.startswith(f"{own}/") for own in _OWN_TARGETS)


def _namespaces(spec: ContainerSpec) -> list[str]:
    words = [
        f"{name} {value}: a container of phalanx joins no other container"
        for name, value in (("network", spec.network), ("ipc", spec.ipc))
        if value.startswith(("container:", "ns:"))
    ]
    words += [
        f'{name} {value}: expected "host" or nothing'
        for name, value in (("pid", spec.pid), ("uts", spec.uts), ("userns", spec.userns))
        if value not in ("", "host")
    ]
    words += [
        f"tmpfs {one.target}: that place in the container is taken, or no absolute path"
        for one in spec.tmpfs
        if not one.target.startswith("/") or _is_taken(one.target)
    ]
    return words
