"""Addresses under which other nodes may reach this one, the likeliest first, and a port that is free.

from phalanx.protocol.messages import MOST_AT_ONCE

The standard library knows no getifaddrs(3); SIOCGIFADDR (netdevice(7)) gives an interface's first IPv4
address and /proc/net/if_inet6 (proc(5)) all of IPv6. That is enough: rendezvous needs one that works, not
all.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from phalanx.protocol.messages import MOST_AT_ONCE

#: netdevice(7), linux/sockios.h
_SIOCGIFFLAGS = 0x8913
_SIOCGIFADDR = 0x8915
_IFF_UP = 0x1

#: Interfaces that lead to containers and guests of this machine, not to other nodes.
_INWARD = ("docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "podman", "lxc", "vnet", "kube")

_MOST_ADDRESSES = 64

#: MASTER_PORT as torchrun, Slurm scripts and their documentation have it, then its neighbours: all below the
#: ports that the kernel gives to outgoing connections, which could take one before the workload does.
WELL_KNOWN_PORT = 29500
_PORTS = range(WELL_KNOWN_PORT, WELL_KNOWN_PORT + 100)


@dataclass(frozen=True, slots=True)
class Bound:
    """An address of an interface."""

    interface: str
    address: str


def by_likelihood(bound: Iterable[Bound], default_interfaces: frozenset[str]) -> tuple[str, ...]:
    """The addresses that another node may use: of the default route's interface first, of bridges last."""

    def order(item: Bound) -> tuple[bool, bool, bool]:
        inward = item.interface.startswith(_INWARD)
        return inward, item.interface not in default_interfaces, ":" in item.address

    useful = [item for item in bound if _reaches_out(item.address)]
    return tuple(dict.fromkeys(item.address for item in sorted(useful, key=order)))[:_MOST_ADDRESSES]


def _reaches_out(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast)


def default_interfaces(route: str) -> frozenset[str]:
    """Interfaces with a default route in the text of /proc/net/route."""
    rows = [line.split() for line in route.splitlines()[1:]]
    return frozenset(row[0] for row in rows if len(row) > 7 and row[1] == "00000000" and row[7] == "00000000")


def ipv6_addresses(if_inet6: str) -> list[Bound]:
    """Addresses in the text of /proc/net/if_inet6: hex, index, prefix length, scope, flags, name."""
    found = []
    for line in if_inet6.splitlines():
        fields = line.split()
        try:
            address = ipaddress.IPv6Address(bytes.fromhex(fields[0]))
        except (ValueError, IndexError):
            continue
        if len(fields) == 6:
            found.append(Bound(fields[5], str(address)))
    return found


def ipv4_addresses() -> list[Bound]:
    """The first IPv4 address of each interface that is up."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("16s24x", name.encode()[:15])
            try:
                flags = struct.unpack_from("H", fcntl.ioctl(asking, _SIOCGIFFLAGS, request), 16)[0]
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, request)
            except OSError:  # EADDRNOTAVAIL: it has none
                continue
            if flags & _IFF_UP:
                found.append(Bound(name, socket.inet_ntoa(answer[20:24])))
    return found


def own_addresses() -> tuple[str, ...]:
    """The addresses of this machine, the likeliest to be reached first."""
    bound = ipv4_addresses() + ipv6_addresses(_text("/proc/net/if_inet6"))
    return by_likelihood(bound, default_interfaces(_text("/proc/net/route")))


def free_ports() -> tuple[int, ...]:
    """TCP ports that nothing listens on, the first for who needs one: of 29500 and the next 99, or else the
    kernel's choice; () if there is none."""
    found = tuple(islice(filter(None, map(_listened, _PORTS)), MOST_AT_ONCE))
    return found or tuple(filter(None, [_listened(0)]))


def _listened(port: int) -> int:
    """The port when it can be listened on for all addresses (0: whichever the kernel picks), else 0."""
    both = socket.has_dualstack_ipv6()
    try:
        with socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        ) as server:
            return int(server.getsockname()[1])
    except OSError:
        return 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
