"""The switch: one more network namespace with a bridge and the near end of every cable.

The bridge is kept out of the machine's own namespace, where a packet filter of the machine (an engine's
FORWARD policy, with br_netfilter) would apply to frames between nodes.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cgroup
from tests.lab.errors import LabError
from tests.lab.parts import search_path
from tests.lab.process import Process, call, launch, tail, wait_until
from tests.lab.topology import (
    LOGIN,
    Topology,
    cable_lines,
    fabric_lines,
    interface_lines,
    parse_rate,
    shaping_line,
)

NEIGHBOURS = [Path(f"/proc/sys/net/ipv4/neigh/default/gc_thresh{i}") for i in (1, 2, 3)]
# The kernel's limit of 1024 neighbours is one for all namespaces; n nodes that all talk need n * n.
CROWD = 64
# The kernel's token buckets and policers cannot drop one way here; the bridge's filter can (ebtables(8)).
WAYS = {"out": "-i", "in": "-o"}
_WORDS = {"-i": "mute", "-o": "deaf"}


@dataclass(frozen=True, slots=True)
class Link:
    """Bytes through one cable since it was plugged in, as the node sees them, headers included; and the
    cable's state: joined, cut, mute (what the node sends is lost), deaf (what is sent to it is lost)."""

    sent: int
    received: int
    cable: str


def holder(lab: Topology) -> Process | None:
    """The process that keeps the namespace alive."""
    return Process.recorded(lab.state / "fabric")


def pid(lab: Topology) -> int:
    held = holder(lab)
    if held is None or not held.alive():
        raise LabError(
            f"cannot reach the fabric of lab {lab.name!r}: its holder is gone; run down and up again"
        )
    return held.pid


def make(lab: Topology) -> None:
    """Namespace, bridge, and the login's cable with its address."""
    log = lab.log / "fabric.log"
    argv = ["unshare", "--net", "sleep", "infinity"]
    launch(argv, record=lab.state / "fabric", log=log, cgroups=cgroup.make(f"{lab.cgroup}/{LOGIN}"))
    ours = Path("/proc/self/ns/net").readlink()

    def separate() -> bool:
        # A freshly started unshare is for a moment still in our namespace.
        held = holder(lab)
        return held is not None and held.alive() and Path(f"/proc/{held.pid}/ns/net").readlink() != ours

    if not wait_until(separate, 5.0):
        raise LabError(f"cannot make the network namespace of the fabric: {tail(log)}; see {log}")
    _ip(pid(lab), fabric_lines(lab, os.getpid()))
    call(["ip", "-batch", "-"], stdin=_text(interface_lines(lab.login_interface, lab.login_address)))
    if lab.request.rate != "max":
        set_rate(lab, LOGIN, lab.request.rate, None)


def plug(lab: Topology, node: str, init: int) -> None:
    """Give a node (by the pid of its init) its cable, address and rate."""
    _ip(pid(lab), cable_lines(lab, node, init))
    _ip(init, ["link set lo up", *interface_lines("eth0", lab.address(node))])
    if lab.request.rate != "max":
        set_rate(lab, node, lab.request.rate, init)


def cut(lab: Topology, node: str, way: str) -> None:
    """Way "both" pulls the cable at the switch: peers see silence, the node sees its carrier go. Way "out"
    loses what the node sends and way "in" what is sent to it; the carrier stays."""
    port = _port(lab, node)
    if way == "both":
        _ip(pid(lab), [f"link set {port} down"])
    elif way in WAYS:
        if not shutil.which("ebtables", path=search_path()):
            raise LabError("cannot cut one way only: ebtables is missing; install it, or cut both ways")
        _ebtables(lab, "-A", "FORWARD", WAYS[way], port, "-j", "DROP")
    else:
        raise LabError(f"cannot cut {node} the way {way!r}: a cable has both, out and in; name one of them")


def join(lab: Topology, node: str) -> None:
    """Undo every cut of the cable."""
    port = _port(lab, node)
    _let_pass(lab, port)
    _ip(pid(lab), [f"link set {port} up"])


def _port(lab: Topology, node: str) -> str:
    if lab.port(node) not in _links(lab):
        raise LabError(f"cannot cut or join {node}: it is off and has no cable; boot it first")
    return lab.port(node)


def _let_pass(lab: Topology, port: str) -> None:
    for rule in _dropped(lab):
        if rule[1] == port:
            _ebtables(lab, "-D", "FORWARD", *rule, "-j", "DROP")


def _dropped(lab: Topology) -> list[tuple[str, str]]:
    """(-i or -o, port) of each rule that loses frames one way."""
    if not shutil.which("ebtables", path=search_path()):
        return []
    lines = [line.split() for line in _ebtables(lab, "-L", "FORWARD").splitlines()]
    return [(words[0], words[1]) for words in lines if words[2:] == ["-j", "DROP"]]


def _ebtables(lab: Topology, *words: str) -> str:
    return call([*_inside(pid(lab)), "ebtables", *words], doing="filter frames at the switch")


def unplug(lab: Topology, node: str) -> None:
    """Silence a node for good, before it is killed: a dying kernel would still send FIN and RST for its
    sockets."""
    _on_port(lab, node, "link set {} down")


def discard(lab: Topology, node: str) -> None:
    """Remove what is left of the cable of a node that is off."""
    _let_pass(lab, lab.port(node))
    _on_port(lab, node, "link del {}")


def _on_port(lab: Topology, node: str, line: str) -> None:
    """Do it to a cable that the kernel may be removing at this moment, with the namespace of a dead node."""
    if lab.port(node) not in _links(lab):
        return
    try:
        _ip(pid(lab), [line.format(lab.port(node))])
    except LabError:
        if lab.port(node) in _links(lab):
            raise


def set_rate(lab: Topology, node: str, rate: str, init: int | None) -> None:
    """Shape both directions of a node's cable; "max" takes the shaping off. init is None for the login."""
    bits = parse_rate(rate)
    device = lab.login_interface if node == LOGIN else "eth0"
    prefix = [] if init is None else _inside(init)
    _shape(_inside(pid(lab)), lab.port(node), bits)
    _shape(prefix, device, bits)


def _shape(prefix: list[str], device: str, bits: int | None) -> None:
    listed = call([*prefix, "tc", "qdisc", "show", "dev", device], timeout=5.0)
    if bits is None and "tbf" not in listed:
        return
    call([*prefix, "tc", "-batch", "-"], stdin=shaping_line(device, bits) + "\n", doing=f"shape {device}")


def links(lab: Topology) -> dict[str, Link]:
    """The cable of every node that has one, and of the login."""
    known = _links(lab)
    dropped = {port: _WORDS[side] for side, port in _dropped(lab)}
    named = {lab.port(node): node for node in [LOGIN, *lab.nodes]}
    return {
        node: Link(
            # What the switch received is what the node sent.
            sent=int(known[port]["stats64"]["rx"]["bytes"]),
            received=int(known[port]["stats64"]["tx"]["bytes"]),
            cable=dropped.get(port, "joined") if "UP" in known[port]["flags"] else "cut",
        )
        for port, node in named.items()
        if port in known
    }


def traffic(lab: Topology) -> dict[str, tuple[int, int]]:
    """Bytes sent and received as in `links`, without starting a process: for many readings a second."""
    # proc(5): the counters of the namespace that the process is in; received bytes first, sent ones ninth.
    text = Path(f"/proc/{pid(lab)}/net/dev").read_text()
    lines = [line.partition(":") for line in text.splitlines()[2:]]
    known = {name.strip(): figures.split() for name, _, figures in lines}
    named = {lab.port(node): node for node in [LOGIN, *lab.nodes]}
    return {node: (int(known[port][0]), int(known[port][8])) for port, node in named.items() if port in known}


def _links(lab: Topology) -> dict[str, dict]:  # type: ignore[type-arg]
    text = call(
        [*_inside(pid(lab)), "ip", "-json", "-statistics", "link", "show", "type", "veth"], timeout=10.0
    )
    return {entry["ifname"]: entry for entry in json.loads(text) if entry}


def remove(lab: Topology) -> None:
    """End the namespace; bridge and cables go with it. Returns when the login's interface is gone."""
    held = holder(lab)
    if held is not None:
        held.end()
    interface = Path("/sys/class/net") / lab.login_interface
    if not wait_until(lambda: not interface.exists(), 5.0):
        call(["ip", "link", "del", lab.login_interface], doing=f"remove {lab.login_interface}")


def raise_neighbours(lab: Topology) -> None:
    """Make room in the neighbour table for a crowd; srun's fan-out fails on random nodes without it."""
    if lab.request.nodes <= CROWD:
        return
    before = [path.read_text().strip() for path in NEIGHBOURS]
    (lab.state / "neighbours").write_text(" ".join(before))
    for path, value in zip(reversed(NEIGHBOURS), (131072, 65536, 32768), strict=True):
        path.write_text(str(value))


def restore_neighbours(lab: Topology) -> None:
    saved = lab.state / "neighbours"
    if saved.exists():
        for path, value in zip(NEIGHBOURS, saved.read_text().split(), strict=False):
            path.write_text(value)


def _inside(init: int) -> list[str]:
    return ["nsenter", "-t", str(init), "-n", "--"]


def _ip(init: int, lines: list[str]) -> None:
    call([*_inside(init), "ip", "-batch", "-"], stdin=_text(lines), doing="set up the network")


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
