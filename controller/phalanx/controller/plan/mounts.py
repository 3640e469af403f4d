"""Mounts and devices of a container: parsed, and the ones that would hand over the host refused by name.

A container that can talk to the engine, or that has the root of the host, is no container: whoever can change
the model script would own the node. Such a mount is never made here, whatever asks for it.
"""

from __future__ import annotations

import posixpath
import re

from phalanx.protocol.messages import Device, Mount

from ..workflow.errors import InputError

#: Sockets through which the host's engine can be told to start anything as root.
ENGINE_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock", "buildkitd.sock")
#: Folders of the host that hold such sockets, or are the host.
HOST_FOLDERS = (
    "/", "/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var", "/var/run", "/var/lib",
    "/var/lib/docker", "/run/docker", "/run/containerd", "/run/podman",
)  # fmt: skip
#: Folders of the container that the engine and phalanx own.
OWNED_TARGETS = ("/", "/proc", "/sys", "/dev", "/run/phalanx", "/run/phalanx.sock", "/myworkspace")
_READ_ONLY = {"ro": True, "rw": False, "": False}
#: Mount options of docker that change nothing for a bind mount here.
_IGNORED_OPTIONS = {"z", "Z", "rprivate", "private"}
_PERMISSIONS = re.compile(r"r?w?m?")


def mount_option(text: str, name: str) -> Mount:
    """``/data:/data:ro`` of ``-v``. Raises InputError."""
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    read_only = False
    for word in options.split(",") if options else []:
        if word in _READ_ONLY:
            read_only = _READ_ONLY[word]
        elif word not in _IGNORED_OPTIONS:
            raise InputError(
                f"cannot use {name} {text!r}: unknown option {word!r}; expected SOURCE:TARGET[:ro]"
            )
    if not source or not target:
        raise InputError(f"cannot use {name} {text!r}: expected SOURCE:TARGET[:ro] with absolute paths")
    return checked(Mount(source, target, read_only), f"{name} {text!r}")


def checked(mount: Mount, name: str) -> Mount:
    """The mount with both paths in normal form. Raises InputError for one that is never made."""
    source, target = _absolute(mount.source, name), _absolute(mount.target, name)
    if posixpath.basename(source) in ENGINE_SOCKETS or posixpath.basename(target) in ENGINE_SOCKETS:
        raise InputError(f"cannot use {name}: {source} is the container engine's socket; it is never mounted")
    if source in HOST_FOLDERS:
        raise InputError(
            f"cannot use {name}: {source} of the host is never mounted; mount the folder you need"
        )
    if target in OWNED_TARGETS:
        raise InputError(f"cannot use {name}: {target} of the container is taken; choose another target")
    return Mount(source, target, mount.read_only)


def distinct(mounts: list[tuple[Mount, str]]) -> tuple[Mount, ...]:
    """The mounts, a later one over an earlier one at the same target (origins in the second place).

    Raises InputError when the same origin gives a target twice with different sources.
    """
    by_target: dict[str, tuple[Mount, str]] = {}
    for mount, origin in mounts:
        earlier = by_target.get(mount.target)
        if earlier and earlier[1] == origin and earlier[0] != mount:
            raise InputError(
                f"cannot use {origin}: {mount.target} is the target of both {earlier[0].source} "
                f"and {mount.source}"
            )
        by_target[mount.target] = (mount, origin)
    return tuple(mount for mount, _ in by_target.values())


def device_option(text: str, name: str) -> Device:
    """``/dev/kfd`` or ``/dev/a:/dev/b:rwm`` of ``--device``. Raises InputError."""
    parts = text.split(":")
    source = _absolute(parts[0], f"{name} {text!r}")
    target, permissions = source, "rwm"
    if len(parts) == 2 and not parts[1].startswith("/"):
        permissions = parts[1]
    elif len(parts) >= 2:
        target = _absolute(parts[1], f"{name} {text!r}")
        permissions = parts[2] if len(parts) == 3 else "rwm"
    if len(parts) > 3 or not permissions or not _PERMISSIONS.fullmatch(permissions):
        raise InputError(f"cannot use {name} {text!r}: expected /dev/NAME[:/dev/NAME][:rwm]")
    if not source.startswith("/dev/"):
        raise InputError(f"cannot use {name} {text!r}: {source} is not below /dev")
    if source in ("/dev/mem", "/dev/kmem", "/dev/port"):
        raise InputError(f"cannot use {name} {text!r}: {source} is the host's memory; it is never given away")
    return Device(source, target, permissions)


def _absolute(path: str, name: str) -> str:
    if not path.startswith("/") or "\0" in path or "\n" in path:
        raise InputError(f"cannot use {name}: {path!r} is not an absolute path")
    return "/" + posixpath.normpath(path).lstrip("/")
