"""A card's ``additional_docker_run_options``: words of ``docker run``, turned into typed fields.

An option that is not known here is refused by name, not dropped: half a container is worse than none.
Those that give the host away (``--privileged``, ``--pid=host``, the engine's socket) are always refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from phalanx.protocol.messages import Device, Limits, Mount

from ..workflow.errors import InputError, did_you_mean
from . import quantities
from .mounts import device_option, mount_option


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """What the options say, in the words of ``ContainerSpec``; ``env``: NAME=VALUE texts."""

    user: str = ""
    network: str = ""
    ipc: str = ""
    gpus: str = ""
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


Record = TypeVar("Record", DockerOptions, Limits)
Taken = Callable[[DockerOptions, str, str], DockerOptions]
#: Refused by name, with the reason.
REFUSED = {
    "--privileged": "the container would own the host",
    "--pid": "the container would see and end the host's processes",
    "--uts": "the container could rename the host",
    "--userns": "the engine's separation of users would be off",
    "--cgroupns": "the container would see the host's control groups",
    "--device-cgroup-rule": "devices are named one by one with --device",
    "--volumes-from": "other containers' volumes are not ours",
    "--restart": "phalanx decides what runs again",
    "--name": "phalanx names its containers",
    "--entrypoint": "phalanx starts the container",
    "-d": "phalanx starts the container",
    "--rm": "phalanx removes its containers",
}
_CAPABILITY = re.compile(r"[A-Za-z_]{1,64}")
_WORD = re.compile(r"[A-Za-z0-9_.:=/,-]{1,255}")


def parse_docker_options(text: str, origin: str) -> DockerOptions:
    """Read the options; ``origin`` is where they stand. Raises InputError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"cannot use {origin}: {error}") from error
    options = DockerOptions()
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        if name in REFUSED:
            raise InputError(f"cannot use {origin}: {name} is not allowed: {REFUSED[name]}")
        take = _TAKERS.get(name)
        if take is None:
            raise InputError(f"cannot use {origin}: {name} is not known here{did_you_mean(name, _TAKERS)}")
        if not equals:
            value = next(rest, "")
        if not value:
            raise InputError(f"cannot use {origin}: {name} has no value")
        options = take(options, value, f"{origin}: {name}")
    return options


def _word(value: str, name: str) -> str:
    if not _WORD.fullmatch(value):
        raise InputError(f"cannot use {name}: {value!r}")
    return value


def _capability(options: DockerOptions, value: str, name: str) -> DockerOptions:
    if not _CAPABILITY.fullmatch(value) or value.upper() == "ALL":
        raise InputError(f"cannot use {name} {value!r}: name one capability, such as SYS_PTRACE")
    return replace(options, cap_add=(*options.cap_add, value.upper()))


def _network(options: DockerOptions, value: str, name: str) -> DockerOptions:
    if value.startswith("container:"):
        raise InputError(f"cannot use {name} {value!r}: other containers' networks are not ours")
    return replace(options, network=_word(value, name))


def _ipc(options: DockerOptions, value: str, name: str) -> DockerOptions:
    if value not in ("host", "private", "shareable", "none"):
        raise InputError(f"cannot use {name} {value!r}: expected host, private, shareable or none")
    return replace(options, ipc=value)


def _with(record: Record, field_name: str, value: Any) -> Record:
    """``replace`` for a field whose name is data."""
    changes: dict[str, Any] = {field_name: value}
    return replace(record, **changes)


def _limited(field_name: str, parse: Callable[[str, str], Any]) -> Taken:
    def take(options: DockerOptions, value: str, name: str) -> DockerOptions:
        return replace(options, limits=_with(options.limits, field_name, parse(value, name)))

    return take


def _ulimit(options: DockerOptions, value: str, name: str) -> DockerOptions:
    limits = options.limits
    return replace(options, limits=replace(limits, ulimits=(*limits.ulimits, quantities.ulimit(value, name))))


def _mount(options: DockerOptions, value: str, name: str) -> DockerOptions:
    return replace(options, mounts=(*options.mounts, mount_option(value, name)))


def _device(options: DockerOptions, value: str, name: str) -> DockerOptions:
    return replace(options, devices=(*options.devices, device_option(value, name)))


def _listed(field_name: str) -> Taken:
    def take(options: DockerOptions, value: str, name: str) -> DockerOptions:
        return _with(options, field_name, (*getattr(options, field_name), _word(value, name)))

    return take


def _env(options: DockerOptions, value: str, name: str) -> DockerOptions:
    if "=" not in value:
        raise InputError(f"cannot use {name} {value!r}: expected NAME=VALUE")
    return replace(options, env=(*options.env, value))


def _user(options: DockerOptions, value: str, name: str) -> DockerOptions:
    return replace(options, user=_word(value, name))


def _gpus(options: DockerOptions, value: str, name: str) -> DockerOptions:
    return replace(options, gpus=_word(value, name).removeprefix("device="))


def _pids(value: str, name: str) -> int:
    return quantities.whole_number(value, name, 1, 2**31 - 1)


_TAKERS: dict[str, Taken] = {
    "--shm-size": _limited("shm_bytes", quantities.size),
    "--memory": _limited("memory_bytes", quantities.size),
    "-m": _limited("memory_bytes", quantities.size),
    "--cpus": _limited("cpus", quantities.cpus),
    "--cpuset-cpus": _limited("cpuset", quantities.cpuset),
    "--pids-limit": _limited("pids", _pids),
    "--ulimit": _ulimit,
    "--cap-add": _capability,
    "--security-opt": _listed("security_opt"),
    "--group-add": _listed("group_add"),
    "--device": _device,
    "--volume": _mount,
    "-v": _mount,
    "--env": _env,
    "-e": _env,
    "--network": _network,
    "--net": _network,
    "--ipc": _ipc,
    "--user": _user,
    "-u": _user,
    "--gpus": _gpus,
}
