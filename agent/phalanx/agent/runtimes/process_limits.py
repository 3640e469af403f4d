"""What of a container's specification plain processes can hold. Pure: specification in, refusals out."""

from __future__ import annotations

import os
import resource

from phalanx.protocol.messages import ContainerSpec, Limits

_DOCKER = "use the docker runtime or leave it out"


def refusals(spec: ContainerSpec) -> list[str]:
    """Why this specification cannot be had without a container; empty when it can."""
    asked = {
        "mounts": spec.mounts,
        "devices": spec.devices,
        "cap_add": spec.cap_add,
        "security_opt": spec.security_opt,
        "group_add": spec.group_add,
        "user": spec.user,
        # every GPU of the node is there anyway, a choice of them is not
        "gpus": spec.gpus if spec.gpus != "all" else "",
        "network": spec.network if spec.network != "host" else "",
        "ipc": spec.ipc if spec.ipc != "host" else "",
        "image": spec.image,
        "privileged": spec.privileged,
        "pid": spec.pid if spec.pid != "host" else "",
        "uts": spec.uts if spec.uts != "host" else "",
        "userns": spec.userns if spec.userns != "host" else "",
        "cap_drop": spec.cap_drop,
        "hostname": spec.hostname,
        "extra_hosts": spec.extra_hosts,
        "tmpfs": spec.tmpfs,
        "read_only": spec.read_only,
        "engine_runtime": spec.engine_runtime,
    }
    words = [f"{name} needs a container; {_DOCKER}" for name, value in asked.items() if value]
    return words + _limit_refusals(spec.limits)


def _limit_refusals(limits: Limits) -> list[str]:
    asked = {
        "limits.memory_bytes": limits.memory_bytes,
        "limits.cpus": limits.cpus,
        "limits.pids": limits.pids,
        "limits.shm_bytes": limits.shm_bytes,
    }
    words = [
        f"{name} cannot be held without a container; {_DOCKER}" for name, value in asked.items() if value
    ]
    for limit in limits.ulimits:
        words.extend(_ulimit_refusals(limit.name, limit.soft, limit.hard))
    try:
        missing = cpus(limits.cpuset) - os.sched_getaffinity(0)
    except ValueError:
        return [*words, f"limits.cpuset {limits.cpuset!r} is no list of CPUs such as 0-3,8"]
    if missing:
        words.append(f"limits.cpuset: CPUs {sorted(missing)} are not available to the agent on this node")
    return words


def _ulimit_refusals(name: str, soft: int, hard: int) -> list[str]:
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if number is None:
        return [f"limits.ulimits: no limit is named {name!r}"]
    here = resource.getrlimit(number)[1]
    if hard != -1 and (soft == -1 or soft > hard):
        return [f"limits.ulimits: {name} has a soft limit above its hard one"]
    if here != resource.RLIM_INFINITY and (hard == -1 or hard > here) and not _may_raise():
        return [f"limits.ulimits: {name} {limit_words(hard)} is above this node's hard limit of {here}"]
    return []


def limit_words(value: int) -> str:
    """A limit for people."""
    return "unlimited" if value == -1 else str(value)


def _may_raise() -> bool:
    """True when this process could raise that hard limit (CAP_SYS_RESOURCE): found by a look, not a try."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123 - one line of it is wanted
            line = next((row for row in status if row.startswith("CapEff:")), "CapEff: 0")
    except OSError:
        return False
    return bool(int(line.split()[1], 16) & (1 << 24))


def cpus(text: str) -> set[int]:
    """The CPUs of a list such as "0-3,8" (cpuset(7)); raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        first, last = int(low), int(high or low)
        if not 0 <= first <= last < 65536:
            raise ValueError(f"{part!r} is no range of CPUs")
        found.update(range(first, last + 1))
    return found
