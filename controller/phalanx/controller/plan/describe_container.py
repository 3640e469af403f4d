"""The container of a case as text for people, each allowance with its origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from phalanx.protocol.allowances import needs
from phalanx.protocol.messages import ContainerSpec, Mount, Runtime


def mount_line(mount: Mount) -> str:
    """A mount on one line."""
    return f"{mount.source} → {mount.target}{' (ro)' if mount.read_only else ''}"


def container_lines(spec: ContainerSpec) -> Iterator[str]:
    """What the container has beside mounts and devices; nothing for a process."""
    if spec.runtime is not Runtime.DOCKER:
        return
    words = [f"network {spec.network}"]
    words += [
        f"{name} {value}"
        for name, value in (
            ("ipc", spec.ipc), ("pid", spec.pid), ("uts", spec.uts), ("userns", spec.userns),
            ("user", spec.user), ("gpus", spec.gpus), ("hostname", spec.hostname),
            ("engine's runtime", spec.engine_runtime),
        )
        if value
    ]  # fmt: skip
    words += [name for name, said in (("privileged", spec.privileged), ("read-only", spec.read_only)) if said]
    words += [f"cap {name}" for name in spec.cap_add] + [f"no cap {name}" for name in spec.cap_drop]
    words += [f"security {name}" for name in spec.security_opt]
    words += [f"group {name}" for name in spec.group_add]
    words += [f"host {name}" for name in spec.extra_hosts]
    words += [f"tmpfs {one.target}{f' ({one.options})' if one.options else ''}" for one in spec.tmpfs]
    yield ", ".join(words + list(_limits(spec)))


def allowed_lines(case: str, spec: ContainerSpec, origins: Mapping[str, str]) -> Iterator[str]:
    """Each allowance, with its origin and what makes use of it."""
    users = needs(spec)
    for one in spec.allow:
        origin = origins.get(f"cases.{case}.container.allow.{one.value}", "")
        used = ", ".join(need.what for need in users if need.allowance is one) or "nothing"
        yield f"{one.value}, used by {used}{f'   ({origin})' if origin else ''}"


def _limits(spec: ContainerSpec) -> Iterator[str]:
    limits = spec.limits
    for name, value in (
        ("memory", limits.memory_bytes), ("cpus", limits.cpus), ("cpuset", limits.cpuset),
        ("pids", limits.pids), ("shm", limits.shm_bytes),
    ):  # fmt: skip
        if value:
            yield f"{name} {value}"
    yield from (f"ulimit {limit.name}={limit.soft}:{limit.hard}" for limit in limits.ulimits)
