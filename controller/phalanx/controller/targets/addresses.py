"""Which addresses of this machine the controller listens on.

A login node has several networks, and it cannot know which of them the compute nodes reach: it listens on
all, and agents try all. Bridges of container engines are left out: every node has the same ones, so that an
agent that dials such an address reaches its own machine. ``--advertise`` narrows the choice by address,
network or interface.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence

import psutil

from .base import AllocationError

LOOPBACK = "127.0.0.1"
#: Interfaces that container engines, virtual machines and cluster networks make on every machine alike.
BRIDGES = re.compile(r"(docker|podman|cni|flannel|cali|virbr|veth|lxcbr|lxdbr|tunl|kube)|br-[0-9a-f]{12}$")

#: Interface to its addresses, in the system's order.
Interfaces = Mapping[str, Sequence[str]]


class AddressError(AllocationError):
    """No address of this machine can be dialled by nodes as asked."""


def machine_interfaces() -> dict[str, list[str]]:
    """Interfaces of this machine that are up, with their IPv4 and IPv6 addresses."""
    stats = psutil.net_if_stats()
    return {
        name: [one.address for one in addresses if one.family in (socket.AF_INET, socket.AF_INET6)]
        for name, addresses in psutil.net_if_addrs().items()
        if name in stats and stats[name].isup
    }


def listen_addresses(interfaces: Interfaces, advertise: Sequence[str] = ()) -> tuple[str, ...]:
    """The addresses to listen on, IPv4 first. Raises AddressError when a wish names none, or none is left."""
    if advertise:
        return tuple(dict.fromkeys(address for wish in advertise for address in _wished(interfaces, wish)))
    usable = {name: [one for one in found if _dialable(one)] for name, found in interfaces.items()}
    real = [one for name, found in usable.items() if not BRIDGES.match(name) for one in found]
    chosen = real or [one for found in usable.values() for one in found]
    if not chosen:
        raise AddressError(
            "cannot listen for agents: no interface of this machine has an address beside loopback; "
            f"name one with --advertise ({_inventory(interfaces)})"
        )
    return tuple(dict.fromkeys(sorted(chosen, key=lambda one: ":" in one)))


def _wished(interfaces: Interfaces, wish: str) -> list[str]:
    if wish in interfaces:
        found = [one for one in interfaces[wish] if not _link_local(one)]
    else:
        try:
            network = ipaddress.ip_network(wish, strict=False)
        except ValueError:
            found = []
        else:
            every = (one for addresses in interfaces.values() for one in addresses if not _link_local(one))
            found = [one for one in every if ipaddress.ip_address(one) in network]
    if not found:
        raise AddressError(
            f"cannot listen on {wish}: it is no interface, address or network of this machine; "
            f"give --advertise one of {_inventory(interfaces)}"
        )
    return found


def _dialable(address: str) -> bool:
    return not _link_local(address) and not ipaddress.ip_address(address).is_loopback


def _link_local(address: str) -> bool:
    # A link-local IPv6 address means nothing without the interface of the machine that dials it.
    return "%" in address or ipaddress.ip_address(address).is_link_local


def _inventory(interfaces: Interfaces) -> str:
    words = [f"{name} {one}" for name, found in interfaces.items() for one in found if not _link_local(one)]
    return ", ".join(words) or "none"
