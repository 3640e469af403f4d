"""Mounts and devices of a container: parsed, in normal form, one for each place in it.

Those that would hand the node over are parsed like any other: ``allowances`` refuses them.
"""

from __future__ import annotations

import posixpath
import re

from phalanx.protocol.messages import WORKSPACE, Device, Mount, Tmpfs

from ..workflow.errors import InputError, did_you_mean

#: Folders of the container that the engine and phalanx own.
OWNED_TARGETS = ("/", "/proc", "/run/phalanx", "/run/phalanx.sock", WORKSPACE)
_READ_ONLY = {"ro": True, "rw": False, "": False}
#: Mount options of docker that change nothing for a bind mount here.
_IGNORED_OPTIONS = {"z", "Z", "rprivate", "private"}
_PERMISSIONS = re.compile(r"r?w?m?")
#: Of --mount: spellings of its keys (docs.docker.com, "docker run").
_KEYS = {
    "type": "type", "source": "source", "src": "source", "target": "target", "dst": "target",
    "destination": "target", "readonly": "ro", "ro": "ro", "tmpfs-size": "size", "tmpfs-mode": "mode",
    "bind-propagation": "bind-propagation", "consistency": "consistency",
}  # fmt: skip
#: Options of a tmpfs that only say how large it is and who may do what there (tmpfs(5), mount(8)).
_TMPFS_OPTION = re.compile(
    r"rw|ro|(no)?(exec|suid|dev|atime|diratime)|size=\d+[kmgKMG%]?|mode=[0-7]{3,4}|(uid|gid|nr_inodes)=\d+[kmgKMG]?"
)


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


def mount_words(text: str, name: str) -> Mount | Tmpfs:
    """``type=bind,source=/data,target=/data,readonly`` of ``--mount``. Raises InputError."""
    said: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        plain = _KEYS.get(key)
        if plain is None:
            raise InputError(f"cannot use {name} {text!r}: unknown key {key!r}{did_you_mean(key, _KEYS)}")
        if plain in said:
            raise InputError(f"cannot use {name} {text!r}: {key} is there twice")
        said[plain] = value if equals else "true"
    kind = said.get("type", "volume")
    if kind == "tmpfs":
        options = ",".join(f"{key}={said[key]}" for key in ("size", "mode") if key in said)
        return _tmpfs(said.get("target", ""), options, f"{name} {text!r}")
    if kind != "bind":
        raise InputError(
            f"cannot use {name} {text!r}: type={kind}: expected bind or tmpfs (volumes outlive a run)"
        )
    if said.get("ro", "true") not in ("true", "false", "1", "0"):
        raise InputError(f"cannot use {name} {text!r}: expected readonly, or readonly=false")
    if said.get("bind-propagation", "rprivate") not in ("private", "rprivate"):
        raise InputError(f"cannot use {name} {text!r}: mounts of a container stay in it (bind-propagation)")
    if "source" not in said or "target" not in said:
        raise InputError(f"cannot use {name} {text!r}: expected type=bind,source=PATH,target=PATH[,readonly]")
    read_only = said.get("ro", "false") in ("true", "1")
    return checked(Mount(said["source"], said["target"], read_only), f"{name} {text!r}")


def tmpfs_option(text: str, name: str) -> Tmpfs:
    """``/tmp:size=64m,mode=1777`` of ``--tmpfs``. Raises InputError."""
    target, _, options = text.partition(":")
    return _tmpfs(target, options, f"{name} {text!r}")


def _tmpfs(target: str, options: str, name: str) -> Tmpfs:
    for word in options.split(",") if options else []:
        if not _TMPFS_OPTION.fullmatch(word):
            raise InputError(
                f"cannot use {name}: unknown option {word!r}; expected /PATH[:size=64m,mode=1777]"
            )
    return Tmpfs(_free(_absolute(target, name), name), options)


def checked(mount: Mount, name: str) -> Mount:
    """The mount with both paths in normal form. Raises InputError for one that is never made."""
    source, target = _absolute(mount.source, name), _free(_absolute(mount.target, name), name)
    return Mount(source, target, mount.read_only)


def _free(target: str, name: str) -> str:
    if target in OWNED_TARGETS or target.startswith("/run/phalanx/"):
        raise InputError(f"cannot use {name}: {target} of the container is taken; choose another target")
    return target


def distinct(mounts: list[tuple[Mount, str]]) -> tuple[tuple[Mount, ...], list[str]]:
    """The mounts, a later one over an earlier one at the same target, and a warning for each that goes.

    Origins are in the second place. The same mount twice is one. Raises InputError when one origin gives a
    target twice and differently: nobody could say which was meant.
    """
    by_target: dict[str, tuple[Mount, str]] = {}
    warnings = []
    for mount, origin in mounts:
        earlier, earlier_origin = by_target.get(mount.target, (mount, origin))
        if earlier != mount and earlier_origin == origin:
            raise InputError(f"cannot use {origin}: {mount.target} is {_both(earlier, mount)}; leave one out")
        if earlier != mount:
            warnings.append(
                f"{origin}: {mount.source} is mounted at {mount.target}{_mode(mount)}, not "
                f"{earlier.source}{_mode(earlier)} of {earlier_origin}"
            )
        by_target[mount.target] = (mount, origin)
    return tuple(mount for mount, _ in by_target.values()), warnings


def _both(one: Mount, other: Mount) -> str:
    if one.source == other.source:
        return f"to have {one.source} both read-only and writable"
    return f"the target of both {one.source} and {other.source}"


def _mode(mount: Mount) -> str:
    return " (ro)" if mount.read_only else ""


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
    return Device(source, target, permissions)


def _absolute(path: str, name: str) -> str:
    if not path.startswith("/") or "\0" in path or "\n" in path:
        raise InputError(f"cannot use {name}: {path!r} is not an absolute path")
    return "/" + posixpath.normpath(path).lstrip("/")
