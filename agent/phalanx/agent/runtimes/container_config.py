"""From a container's specification to the engine's JSON (Docker Engine API 1.41). Pure.

Nothing of a step's environment is here: what an engine keeps as metadata can be read by all who may ask it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from phalanx.agent.runtimes.base import CasePlaces, Owner
from phalanx.agent.runtimes.janitor import LABEL_EXPIRES, LABEL_LEASE, LABEL_UID
from phalanx.protocol.messages import WORKSPACE, ContainerSpec, Limits

#: Where a case's own directories are in its container.
INSIDE = "/run/phalanx"
INSIDE_SPOOL = f"{INSIDE}/spool"
INSIDE_RESULTS = f"{INSIDE}/results"
INSIDE_SOCKET = "/run/phalanx.sock"

#: The workload is to die of a node's lack of memory before the agent does (proc(5), oom_score_adj).
OOM_SCORE = 500


@dataclass(frozen=True, slots=True)
class Given:
    """What beside the specification goes into a container."""

    case: str
    image_id: str
    places: CasePlaces
    control: str
    lease_file: str
    owner: Owner
    socket: bool
    now_unix: float


def container_name(owner: Owner, case: str) -> str:
    """The name of a case's container; the same case of one incarnation cannot be created twice."""
    parts = ("phx", owner.run_id[-8:], case[:64], str(owner.node_rank), owner.incarnation[:4])
    return "-".join(re.sub(r"[^a-zA-Z0-9_.]+", "_", part).strip("_.") or "x" for part in parts)


def labels(given: Given) -> dict[str, str]:
    """What tells whose a container is and until when it may be there, to anyone who finds it."""
    owner = given.owner
    return {
        "phalanx.run": owner.run_id,
        "phalanx.case": given.case,
        "phalanx.node": owner.node,
        "phalanx.node_rank": str(owner.node_rank),
        "phalanx.incarnation": owner.incarnation,
        LABEL_UID: str(owner.uid),
        LABEL_EXPIRES: str(int(given.now_unix + owner.lease_s)),
        LABEL_LEASE: given.lease_file,
    }


def container_config(spec: ContainerSpec, given: Given) -> dict[str, Any]:
    """The body of POST /containers/create."""
    config: dict[str, Any] = {
        "Image": given.image_id,
        "Entrypoint": ["/bin/sh", f"{INSIDE}/supervise"],
        "Cmd": [],
        "User": spec.user,
        "WorkingDir": f"{WORKSPACE}/{spec.workdir}" if spec.workdir else WORKSPACE,
        "Labels": labels(given),
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, given),
    }
    if spec.hostname:
        config["Hostname"] = spec.hostname
    return config


def _host_config(spec: ContainerSpec, given: Given) -> dict[str, Any]:
    config: dict[str, Any] = {
        "Mounts": _mounts(spec, given),
        "NetworkMode": spec.network or "host",
        "Init": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        "OomScoreAdj": OOM_SCORE,
        **_limits(spec.limits, own_shm=not spec.ipc.startswith("host")),
    }
    for key, value in (
        ("IpcMode", spec.ipc),
        ("PidMode", spec.pid),
        ("UTSMode", spec.uts),
        ("UsernsMode", spec.userns),
        ("Runtime", spec.engine_runtime),
        ("Privileged", spec.privileged),
        ("ReadonlyRootfs", spec.read_only),
        ("Tmpfs", {one.target: one.options for one in spec.tmpfs}),
    ):
        if value:
            config[key] = value
    if spec.devices:
        config["Devices"] = [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target or device.source,
                "CgroupPermissions": device.permissions,
            }
            for device in spec.devices
        ]
    for key, values in (
        ("CapAdd", spec.cap_add),
        ("CapDrop", spec.cap_drop),
        ("ExtraHosts", spec.extra_hosts),
        ("SecurityOpt", spec.security_opt),
        ("GroupAdd", spec.group_add),
    ):
        if values:
            config[key] = list(values)
    if spec.gpus:
        config["DeviceRequests"] = [_gpu_request(spec.gpus)]
    return config


def _mounts(spec: ContainerSpec, given: Given) -> list[dict[str, Any]]:
    places = given.places
    own = [
        (given.control, INSIDE, True),
        (str(places.spool), INSIDE_SPOOL, False),
        (str(places.results), INSIDE_RESULTS, False),
        (str(places.work), WORKSPACE, False),
    ]
    if given.socket:
        own.append((str(places.socket), INSIDE_SOCKET, False))
    asked = [(mount.source, mount.target, mount.read_only) for mount in spec.mounts]
    return [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
        for source, target, read_only in own + asked
    ]


def _limits(limits: Limits, *, own_shm: bool) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if limits.memory_bytes:
        # the same for memory and swap: no swap, the limit is where it is over
        config |= {"Memory": limits.memory_bytes, "MemorySwap": limits.memory_bytes}
    if limits.cpus:
        config["NanoCpus"] = round(limits.cpus * 1e9)
    if limits.cpuset:
        config["CpusetCpus"] = limits.cpuset
    if limits.pids:
        config["PidsLimit"] = limits.pids
    if limits.shm_bytes and own_shm:
        # with the node's own /dev/shm there is nothing to size, and podman refuses it
        config["ShmSize"] = limits.shm_bytes
    if limits.ulimits:
        config["Ulimits"] = [
            {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in limits.ulimits
        ]
    return config


def _gpu_request(gpus: str) -> dict[str, Any]:
    """What ``docker run --gpus`` sends."""
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]]}
    if gpus == "all":
        return {**request, "Count": -1}
    return {**request, "DeviceIDs": [part.strip() for part in gpus.split(",") if part.strip()]}
