"""What a lab looks like, decided without touching the machine.

Names, addresses, `slurm.conf` and the lines for `ip -batch` and `tc -batch` all follow from a request and
an index, so that two labs never share an address, an interface or a port, and so that all of it can be tested
without root.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError

LOGIN = "login"
# Node i is host 10+i of a /24, which leaves room for 240 nodes; the fan-out of srun needs care past 200
# anyway.
MAX_NODES = 240
INDEXES = 256
# Each node claims this much memory, so that jobs are placed by share; nothing enforces it (config_overrides).
CLAIMED_MEMORY_MB = 8192
# A job that asks for no memory would otherwise be given all of it, and no second one could overlap with it.
MEMORY_PER_CPU_MB = 256
SLURMD_PORT = 16818
SLURMCTLD_BASE_PORT = 17000
# A token bucket smaller than one GSO frame (64 KiB) would drop it whole; 2 ms of the rate keeps the timer
# slack.
MIN_BURST_BYTES = 128 * 1024
BURST_SECONDS = 0.002

_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")
_RATE = re.compile(r"(\d+)(kbit|mbit|gbit)")
_SIZE = re.compile(r"(\d+)([KMGT]?)")
_RATE_UNITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_rate(text: str) -> int | None:
    """Bits per second of "200mbit"; None for "max", an unshaped link. Raises LabError on anything else."""
    if text == "max":
        return None
    found = _RATE.fullmatch(text)
    if not found or int(found[1]) == 0:
        raise LabError(
            f"cannot read the rate {text!r}: not like 200mbit; write a number and kbit, mbit or gbit, or max"
        )
    return int(found[1]) * _RATE_UNITS[found[2]]


def parse_size(text: str) -> int:
    """Bytes of "512M" (powers of 1024). Raises LabError on anything else."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise LabError(f"cannot read the size {text!r}: not like 512M; write a number and K, M, G or T")
    return int(found[1]) * _SIZE_UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for: two equal requests are the same lab.

    ``other_engine``: a folder with the programs of another engine (``tests.runtimes.other_engines``), which
    ``other_nodes`` run with its containerd store.
    """

    nodes: int = 4
    docker: bool = False
    slurm: bool = True
    rate: str = "max"
    cpus: int = 4
    gpus: int = 0
    disk: str = ""
    share: tuple[str, ...] = ()
    other_engine: str = ""
    other_nodes: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise LabError for what could never come up."""
        if not 1 <= self.nodes <= MAX_NODES:
            raise LabError(
                f"cannot make {self.nodes} nodes: the subnet holds 1 to {MAX_NODES}; choose with -n"
            )
        if self.cpus < 1 or not 0 <= self.gpus <= 64:
            raise LabError(
                "cannot give a node fewer than 1 CPU or more than 64 GPUs: nothing like it exists; "
                "ask for less"
            )
        parse_rate(self.rate)
        if self.disk and parse_size(self.disk) < 64 * 2**20:
            raise LabError(
                f"cannot use a disk of {self.disk}: an engine needs more to start; give 64M or more"
            )

    def differences(self, other: Request) -> list[str]:
        """Words such as "nodes 4, not 2" for each field in which this one differs from the other."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{key} {mine[key]}, not {theirs[key]}" for key in mine if mine[key] != theirs[key]]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Request:
        lists = {name: tuple(fields.get(name, ())) for name in ("share", "other_nodes")}
        return cls(**{**fields, **lists})


@dataclass(frozen=True, slots=True)
class Topology:
    """A request with a name, an index and a state folder: everything else follows."""

    name: str
    index: int
    state: Path
    request: Request

    @property
    def nodes(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.request.nodes + 1)]

    @property
    def login_address(self) -> str:
        return f"10.77.{self.index}.1"

    @property
    def login_interface(self) -> str:
        return f"lab{self.index}"

    @property
    def slurmctld_port(self) -> int:
        return SLURMCTLD_BASE_PORT + self.index

    @property
    def cgroup(self) -> str:
        return f"phalanx-lab-{self.name}"

    @property
    def etc(self) -> Path:
        return self.state / "etc"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def shared(self) -> Path:
        return self.state / "shared"

    def number(self, node: str) -> int:
        """1 for n1; 0 for the login. Raises LabError for a node this lab has not."""
        if node == LOGIN:
            return 0
        if node not in self.nodes:
            raise LabError(
                f"cannot find node {node!r}: lab {self.name!r} has n1 to n{self.request.nodes}; "
                f"name one of them"
            )
        return int(node[1:])

    def address(self, node: str) -> str:
        number = self.number(node)
        return f"10.77.{self.index}.{10 + number}" if number else self.login_address

    def port(self, node: str) -> str:
        """The fabric's end of the node's cable."""
        return f"p{self.number(node)}"

    def folder(self, node: str) -> Path:
        return self.state / "nodes" / node


def check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise LabError(f"cannot name a lab {name!r}: use up to 20 of a-z, 0-9 and -, starting with a letter")
    return name


def preferred_index(name: str) -> int:
    """Where the search for a free index starts. The same name tends to get the same addresses each time."""
    return zlib.crc32(name.encode()) % INDEXES


def hosts_text(lab: Topology, machine: str) -> str:
    """/etc/hosts inside the nodes: bare names, because each node knows one lab only."""
    lines = ["127.0.0.1 localhost", f"{lab.login_address} {LOGIN} {machine}"]
    lines += [f"{lab.address(node)} {node} {node}.{lab.name}" for node in lab.nodes]
    return "\n".join(lines) + "\n"


def hosts_block(lab: Topology) -> str:
    """Lines for the machine's own /etc/hosts: qualified names only, since two labs both have an n1."""
    lines = [f"# phalanx-lab {lab.name} begin"]
    lines += [f"{lab.address(node)} {node}.{lab.name}" for node in lab.nodes]
    return "\n".join([*lines, f"# phalanx-lab {lab.name} end"]) + "\n"


def without_block(text: str, name: str) -> str:
    """The text of a hosts file with the block of that lab taken out."""
    block = rf"^# phalanx-lab {re.escape(name)} begin\n(?:.*\n)*?# phalanx-lab {re.escape(name)} end\n"
    return re.sub(block, "", text, flags=re.MULTILINE)


def slurm_conf(lab: Topology, machine: str) -> str:
    """slurm.conf(5) of Slurm 22.05 for a plain many-machine cluster: each node has its own hostname and
    address."""
    nodes = f"n[1-{lab.request.nodes}]"
    gpus = lab.request.gpus
    lines = [
        f"ClusterName={lab.name}",
        f"SlurmctldHost={machine}({lab.login_address})",
        f"SlurmctldPort={lab.slurmctld_port}",
        f"SlurmdPort={SLURMD_PORT}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        f"StateSaveLocation={lab.state / 'slurmctld'}",
        f"SlurmctldPidFile={lab.state / 'slurmctld.slurm-pid'}",
        f"SlurmctldLogFile={lab.log / 'slurmctld.log'}",
        "SlurmdSpoolDir=/var/spool/slurmd",
        "SlurmdPidFile=/run/slurmd.pid",
        f"SlurmdLogFile={lab.log / '%n.slurmd.log'}",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "JobCompType=jobcomp/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        f"DefMemPerCPU={MEMORY_PER_CPU_MB}",
        "SlurmdParameters=config_overrides",
        "ReturnToService=2",
        "KillWait=5",
        "MinJobAge=300",
        "InactiveLimit=0",
        "SlurmctldTimeout=60",
        "SlurmdTimeout=20",
        "MessageTimeout=10",
    ]
    if gpus:
        lines.append("GresTypes=gpu")
    tail = f" Gres=gpu:{gpus}" if gpus else ""
    cpus = lab.request.cpus
    shape = f"CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1"
    lines += [
        f"NodeName={node} NodeAddr={lab.address(node)} {shape} RealMemory={CLAIMED_MEMORY_MB} "
        f"State=UNKNOWN{tail}"
        for node in lab.nodes
    ]
    lines += [
        f"PartitionName=lab Nodes={nodes} Default=YES MaxTime=INFINITE State=UP",
        f"PartitionName=short Nodes={nodes} Default=NO MaxTime=10 State=UP",
    ]
    return "\n".join(lines) + "\n"


def gres_conf(lab: Topology) -> str:
    """gres.conf(5): null character devices, since a count without File= is taken as 0 by slurmd."""
    if not lab.request.gpus:
        return ""
    files = f"/run/gpu/gpu[0-{lab.request.gpus - 1}]"
    return f"AutoDetect=off\nNodeName=n[1-{lab.request.nodes}] Name=gpu File={files}\n"


def fabric_lines(lab: Topology, login_pid: int) -> list[str]:
    """`ip -batch` lines for the fabric's namespace: the bridge, and the cable to the login side.

    addrgenmode none keeps IPv6 chatter out of the byte counters.
    """
    return [
        "link set lo up",
        "link add br0 type bridge forward_delay 0 mcast_snooping 0",
        "link set br0 addrgenmode none",
        "link set br0 up",
        f"link add p0 type veth peer name {lab.login_interface} netns {login_pid}",
        *_plugged("p0"),
    ]


def cable_lines(lab: Topology, node: str, init_pid: int) -> list[str]:
    """`ip -batch` lines for the fabric's namespace: one node's cable, its far end put straight into the
    node."""
    port = lab.port(node)
    return [f"link add {port} type veth peer name eth0 netns {init_pid}", *_plugged(port)]


def _plugged(port: str) -> list[str]:
    return [f"link set {port} addrgenmode none", f"link set {port} master br0", f"link set {port} up"]


def interface_lines(device: str, address: str) -> list[str]:
    """`ip -batch` lines for the end that carries the address."""
    return [
        f"link set {device} addrgenmode none",
        f"addr add {address}/24 dev {device}",
        f"link set {device} up",
    ]


def shaping_line(device: str, rate: int | None) -> str:
    """One `tc -batch` line: a token bucket on what leaves the device, or none for an unshaped link (tc-
    tbf(8))."""
    if rate is None:
        return f"qdisc del dev {device} root"
    burst = max(MIN_BURST_BYTES, int(rate / 8 * BURST_SECONDS))
    return f"qdisc replace dev {device} root tbf rate {rate}bit burst {burst} latency 20ms"
