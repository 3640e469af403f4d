"""What a container may not ask of a node, whoever wrote its specification. Pure.

A policy comes from the node's side (the user's own configuration), never from the job; by default everything
that would make the container as mighty as the node's root is refused, by name, before an engine is asked.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from phalanx.protocol.messages import ContainerSpec, Mount

_ENGINE_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock")

#: Mounting one of these whole hands the node over; what is below them may be asked for.
_ROOTS = frozenset(
    "/" + name
    for name in ("", "bin", "boot", "dev", "etc", "lib", "lib64", "root", "run", "sbin", "sys", "usr", "var")
) | {"/var/run", "/var/lib", "/var/lib/docker", "/var/lib/containerd", "/run/docker", "/run/containerd"}

_OWN_TARGETS = ("/run/phalanx", "/run/phalanx.sock", "/myworkspace")
_MIGHTY_CAPABILITIES = frozenset({"ALL", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "MAC_ADMIN"})
_MEMORY_DEVICES = frozenset({"/dev/mem", "/dev/kmem", "/dev/port"})


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed beyond the default, each by its own name."""

    engine_socket: bool = False
    system_paths: bool = False
    capabilities: frozenset[str] = frozenset()
    devices: bool = False
    shared_namespaces: bool = False


DEFAULT = Policy()


def refusals(spec: ContainerSpec, policy: Policy = DEFAULT) -> list[str]:
    """Why this container is not made; empty when it may be. Paths are taken as they are written."""
    words = [word for mount in spec.mounts for word in _mount(mount, policy)]
    words += _namespaces(spec, policy)
    for name in spec.cap_add:
        plain = name.upper().removeprefix("CAP_")
        if plain in _MIGHTY_CAPABILITIES - policy.capabilities:
            words.append(f"cap_add {name}: it gives the container power over the whole node")
    for device in spec.devices:
        source = posixpath.normpath(device.source)
        if not policy.devices and (not source.startswith("/dev/") or source in _MEMORY_DEVICES):
            words.append(
                f"devices {device.source}: only devices below /dev, and none that is the node's memory"
            )
    return words


def _mount(mount: Mount, policy: Policy) -> list[str]:
    source, target = posixpath.normpath(mount.source), posixpath.normpath(mount.target)
    words = []
    if not mount.source.startswith("/") or not mount.target.startswith("/"):
        words.append(f"mount {mount.source}:{mount.target}: both paths must be absolute")
    if not policy.engine_socket and posixpath.basename(source) in _ENGINE_SOCKETS:
        words.append(f"mount {mount.source}: who has an engine's socket is root on this node")
    if not policy.system_paths and _is_system(source, mount.read_only):
        words.append(f"mount {mount.source}: it is the node's own, not data; mount what is needed of it")
    if target == "/" or any(target == own or target.startswith(f"{own}/") for own in _OWN_TARGETS[:2]):
        words.append(f"mount {mount.source}:{mount.target}: that place in the container is taken")
    return words


def _is_system(source: str, read_only: bool) -> bool:
    # normpath keeps a double slash at the start (POSIX lets it mean something); here it means nothing
    path = "/" + source.lstrip("/")
    if path in _ROOTS or path == "/proc" or path.startswith("/proc/"):
        return True
    return path.startswith("/sys/") and not read_only


def _namespaces(spec: ContainerSpec, policy: Policy) -> list[str]:
    if policy.shared_namespaces:
        return []
    asked = (("network", spec.network), ("ipc", spec.ipc))
    return [
        f"{name} {value}: a container of phalanx joins no other container"
        for name, value in asked
        if value.startswith(("container:", "ns:"))
    ]
