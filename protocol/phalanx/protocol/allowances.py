"""What makes a container as mighty as the node's root, and the word that allows it. Pure.

The plan asks before anything is touched, the agent again before an engine is asked, and both this one
function: they cannot differ. Words come from the user of the run alone, never from a card or a manifest.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from phalanx.protocol.messages import Allowance, ContainerSpec, Device, Mount

#: What each word gives away, for the one line that warns of it.
GIVES_AWAY = {
    Allowance.PRIVILEGED: "it has every device and capability of the node, and can leave its container",
    Allowance.HOST_PID: "it sees all processes of the node, and its root can end them and read their memory",
    Allowance.HOST_UTS: "it can rename the node",
    Allowance.HOST_USERNS: "its root is the node's root, whatever users the engine separates",
    Allowance.CAPABILITIES: "it has power over the node's kernel that no container needs to compute",
    Allowance.ENGINE_SOCKET: "it can start anything on the node as root",
    Allowance.SYSTEM_PATHS: "it sees, and where writable changes, the node's own files",
    Allowance.DEVICES: "it can read and write the node's memory or disks past all permissions",
}

#: Sockets through which a node's engine can be told to start anything as root.
ENGINE_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock")

#: Mounting one of these whole hands the node over; what is below them may be asked for.
_ROOTS = frozenset(
    "/" + name
    for name in ("", "bin", "boot", "dev", "etc", "lib", "lib64", "root", "run", "sbin", "sys", "usr", "var")
) | {
    *("/var/run", "/var/lib", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers"),
    *("/run/docker", "/run/containerd", "/run/podman"),
}

#: capabilities(7) that reach past the container: into the kernel, its clock, or any file of a mounted disk.
_MIGHTY = frozenset(
    {"ALL", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "SYS_TIME", "MAC_ADMIN", "MAC_OVERRIDE", "DAC_READ_SEARCH"}
)

_MEMORY = frozenset({"/dev/mem", "/dev/kmem", "/dev/port"})
#: Block devices by the names that Linux gives them (admin-guide/devices.txt), and the raw ways to them.
_DISKS = re.compile(
    r"/dev/((sd|hd|vd|xvd)[a-z]+\d*|(nvme|mmcblk)\d.*|(dm-|md|loop|nbd|sg|zd)\d.*|(mapper|disk|block|bsg)(/.*)?)"
)


@dataclass(frozen=True, slots=True)
class Need:
    """A part of a specification that needs a word: the part as a person knows it, and why."""

    allowance: Allowance
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


def needs(spec: ContainerSpec) -> list[Need]:
    """Every part of the specification that needs an allowance, whether it has it or not.

    Paths are taken as they are written: whoever can follow links asks again for where they lead.
    """
    found = list(_namespaces(spec))
    for mount in spec.mounts:
        found += _of_mount(mount)
    for name in spec.cap_add:
        if name.upper().removeprefix("CAP_") in _MIGHTY:
            found.append(Need(Allowance.CAPABILITIES, f"capability {name}", "it reaches over the whole node"))
    for device in spec.devices:
        found += _of_device(device)
    return found


def _namespaces(spec: ContainerSpec) -> Iterator[Need]:
    if spec.privileged:
        yield Need(Allowance.PRIVILEGED, "--privileged", "the container would own the node")
    if spec.pid == "host":
        why = "the container would see and end the node's processes"
        yield Need(Allowance.HOST_PID, "--pid=host", why)
    if spec.uts == "host":
        yield Need(Allowance.HOST_UTS, "--uts=host", "the container could rename the node")
    if spec.userns == "host":
        why = "the engine's separation of users would be off"
        yield Need(Allowance.HOST_USERNS, "--userns=host", why)


def _of_mount(mount: Mount) -> Iterator[Need]:
    source, target = plain(mount.source), plain(mount.target)
    if posixpath.basename(source) in ENGINE_SOCKETS or posixpath.basename(target) in ENGINE_SOCKETS:
        why = "it is a container engine's socket, and who has that is root on the node"
        yield Need(Allowance.ENGINE_SOCKET, f"mount {mount.source}:{mount.target}", why)
    if _is_system(source, read_only=mount.read_only):
        why = "it is the node's own, not data; mount what is needed of it"
        yield Need(Allowance.SYSTEM_PATHS, f"mount {mount.source}", why)
    elif target in ("/dev", "/sys"):
        why = f"{target} of a container shows it no more than it may have"
        yield Need(Allowance.SYSTEM_PATHS, f"mount {mount.source}:{mount.target}", why)


def _is_system(source: str, *, read_only: bool) -> bool:
    if source in _ROOTS or source == "/proc" or source.startswith("/proc/"):
        return True
    return source.startswith("/sys/") and not read_only


def _of_device(device: Device) -> Iterator[Need]:
    source, what = plain(device.source), f"device {device.source}"
    if not source.startswith("/dev/"):
        yield Need(Allowance.DEVICES, what, "it is not below /dev")
    elif source in _MEMORY:
        yield Need(Allowance.DEVICES, what, "it is the node's memory")
    elif _DISKS.fullmatch(source):
        yield Need(Allowance.DEVICES, what, "it is a disk of the node, with the files of all users")


def plain(path: str) -> str:
    """A path in normal form. normpath keeps a double slash at the start; here it means nothing."""
    return "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else posixpath.normpath(path)
