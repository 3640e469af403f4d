"""A card's ``additional_docker_run_options``: words of ``docker run``, turned into typed fields.

An option that is not known here is refused by name, not dropped (``docker_refused`` has reasons). What gives
the node away is a field like any other: whether it may be had, ``allowances`` says.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from phalanx.protocol.messages import Device, Limits, Mount, Tmpfs

from ..workflow.errors import InputError, did_you_mean
from . import docker_values, quantities
from .docker_refused import REFUSED
from .mounts import device_option, mount_option, mount_words, tmpfs_option


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
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    privileged: bool = False
    pid: str = ""
    uts: str = ""
    userns: str = ""
    hostname: str = ""
    extra_hosts: tuple[str, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    read_only: bool = False
    engine_runtime: str = ""


Record = TypeVar("Record", DockerOptions, Limits)
Parse = Callable[[str, str], Any]
Taken = Callable[[DockerOptions, str, str], DockerOptions]


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
        if name in _FLAGS:
            options = _flagged(options, name, value if equals else "true", origin)
            continue
        take = _TAKERS.get(name)
        if take is None:
            raise InputError(
                f"cannot use {origin}: {name} is not known here{did_you_mean(name, (*_TAKERS, *_FLAGS))}"
            )
        if not equals:
            value = next(rest, "")
        if not value:
            raise InputError(f"cannot use {origin}: {name} has no value")
        options = take(options, value, f"{origin}: {name}")
    if options.hostname and options.uts:
        raise InputError(f"cannot use {origin}: --hostname would rename the node, with --uts=host")
    return options


def _flagged(options: DockerOptions, name: str, value: str, origin: str) -> DockerOptions:
    if value not in ("true", "false"):
        raise InputError(f"cannot use {origin}: {name} {value!r}: expected true, false or no value")
    field_name = _FLAGS[name]
    return _with(options, field_name, value == "true") if field_name else options


def _with(record: Record, field_name: str, value: Any) -> Record:
    """``replace`` for a field whose name is data."""
    changes: dict[str, Any] = {field_name: value}
    return replace(record, **changes)


def _one(field_name: str, parse: Parse) -> Taken:
    """An option that is said once; the last one counts, as in docker."""

    def take(options: DockerOptions, value: str, name: str) -> DockerOptions:
        return _with(options, field_name, parse(value, name))

    return take


def _listed(field_name: str, parse: Parse) -> Taken:
    def take(options: DockerOptions, value: str, name: str) -> DockerOptions:
        return _with(options, field_name, (*getattr(options, field_name), parse(value, name)))

    return take


def _limited(field_name: str, parse: Parse) -> Taken:
    def take(options: DockerOptions, value: str, name: str) -> DockerOptions:
        return replace(options, limits=_with(options.limits, field_name, parse(value, name)))

    return take


def _ulimit(options: DockerOptions, value: str, name: str) -> DockerOptions:
    limits = options.limits
    return replace(options, limits=replace(limits, ulimits=(*limits.ulimits, quantities.ulimit(value, name))))


def _mount(options: DockerOptions, value: str, name: str) -> DockerOptions:
    found = mount_words(value, name)
    if isinstance(found, Tmpfs):
        return replace(options, tmpfs=(*options.tmpfs, found))
    return replace(options, mounts=(*options.mounts, found))


def _pids(value: str, name: str) -> int:
    return quantities.whole_number(value, name, 1, 2**31 - 1)


#: Options without a value, with their fields. Of ``--init`` there is nothing to keep: PID 1 of a container is
#: phalanx's own, which reaps orphans.
_FLAGS = {"--privileged": "privileged", "--read-only": "read_only", "--init": ""}

_TAKERS: dict[str, Taken] = {
    "--shm-size": _limited("shm_bytes", quantities.size),
    "--memory": _limited("memory_bytes", quantities.size),
    "-m": _limited("memory_bytes", quantities.size),
    "--cpus": _limited("cpus", quantities.cpus),
    "--cpuset-cpus": _limited("cpuset", quantities.cpuset),
    "--pids-limit": _limited("pids", _pids),
    "--ulimit": _ulimit,
    "--cap-add": _listed("cap_add", docker_values.capability),
    "--cap-drop": _listed("cap_drop", docker_values.capability),
    "--security-opt": _listed("security_opt", docker_values.word),
    "--group-add": _listed("group_add", docker_values.word),
    "--device": _listed("devices", device_option),
    "--volume": _listed("mounts", mount_option),
    "-v": _listed("mounts", mount_option),
    "--mount": _mount,
    "--tmpfs": _listed("tmpfs", tmpfs_option),
    "--env": _listed("env", docker_values.variable),
    "-e": _listed("env", docker_values.variable),
    "--network": _one("network", docker_values.network),
    "--net": _one("network", docker_values.network),
    "--ipc": _one("ipc", docker_values.ipc),
    "--pid": _one("pid", docker_values.host_only),
    "--uts": _one("uts", docker_values.host_only),
    "--userns": _one("userns", docker_values.host_only),
    "--user": _one("user", docker_values.word),
    "-u": _one("user", docker_values.word),
    "--hostname": _one("hostname", docker_values.hostname),
    "-h": _one("hostname", docker_values.hostname),
    "--add-host": _listed("extra_hosts", docker_values.extra_host),
    "--gpus": _one("gpus", docker_values.gpus),
    "--runtime": _one("engine_runtime", docker_values.word),
}
