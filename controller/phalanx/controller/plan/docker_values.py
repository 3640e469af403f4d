"""Values of single options of ``docker run``. Each function raises InputError; ``name`` is for its words."""

from __future__ import annotations

import ipaddress
import re

from ..workflow.errors import InputError

_CAPABILITY = re.compile(r"[A-Za-z_]{1,64}")
_WORD = re.compile(r"[A-Za-z0-9_.:=/,-]{1,255}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_IPC = ("host", "private", "shareable", "none")


def word(value: str, name: str) -> str:
    """One word without quotes or spaces."""
    if not _WORD.fullmatch(value):
        raise InputError(f"cannot use {name}: {value!r}")
    return value


def capability(value: str, name: str) -> str:
    """A capability by the name that capabilities(7) has, or ALL."""
    if not _CAPABILITY.fullmatch(value):
        raise InputError(f"cannot use {name} {value!r}: name one capability, such as SYS_PTRACE")
    return value.upper()


def network(value: str, name: str) -> str:
    """The engine's name of a network."""
    if value.startswith("container:"):
        raise InputError(f"cannot use {name} {value!r}: other containers' networks are not ours")
    return word(value, name)


def ipc(value: str, name: str) -> str:
    """Whose shared memory the container has."""
    if value not in _IPC:
        raise InputError(f"cannot use {name} {value!r}: expected {', '.join(_IPC[:-1])} or {_IPC[-1]}")
    return value


def host_only(value: str, name: str) -> str:
    """A namespace that is the container's own unless it is the node's."""
    if value not in ("host", "private"):
        raise InputError(f"cannot use {name} {value!r}: expected host, or leave it out")
    return "host" if value == "host" else ""


def hostname(value: str, name: str) -> str:
    """A host name (hostname(7)), at most 64 characters as uname(2) has it."""
    if not _HOSTNAME.fullmatch(value):
        raise InputError(f"cannot use {name} {value!r}: expected a host name of letters, digits, '-' and '.'")
    return value


def extra_host(value: str, name: str) -> str:
    """``HOST:ADDRESS`` or ``HOST=ADDRESS``, the address one of IPv4 or IPv6, or ``host-gateway``."""
    host, sign, address = value.partition("=") if "=" in value else value.partition(":")
    plain = address.removeprefix("[").removesuffix("]")
    try:
        usable = plain == "host-gateway" or bool(ipaddress.ip_address(plain))
    except ValueError:
        usable = False
    if not sign or not usable or not _HOSTNAME.fullmatch(host):
        raise InputError(f"cannot use {name} {value!r}: expected HOST:ADDRESS, such as db:10.0.0.7")
    return f"{host}:{plain}"


def variable(value: str, name: str) -> str:
    """``NAME=VALUE``."""
    if "=" not in value:
        raise InputError(f"cannot use {name} {value!r}: expected NAME=VALUE")
    return value


def gpus(value: str, name: str) -> str:
    """``all``, a count or ``device=0,1``."""
    return word(value, name).removeprefix("device=")
