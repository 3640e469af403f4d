"""The lab as tests use it: one object, the same words as the command line. Nothing is decided here."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cgroup, docker, fabric, faults, lifecycle, node, slurm, state
from tests.lab.errors import LabError
from tests.lab.topology import LOGIN, Request, Topology


@dataclass(frozen=True, slots=True)
class NodeStats:
    """Use of one node, containers included: bytes through its cable since it was plugged in, CPU seconds
    since `up`, memory now in bytes. None where the node is off or this machine does not count it."""

    node: str
    sent: int | None
    received: int | None
    cpu_seconds: float | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`power`: on, off (killed), dead (not killed by us), frozen. `cable`: joined, cut, mute or deaf (cut one
    way), none. `slurm` is sinfo's word, `engine` up or silent; both "" where the lab was brought up
    without."""

    node: str
    address: str
    power: str
    cable: str
    slurm: str
    engine: str
    init: int | None


class Lab:
    """A lab that is up. Make one with `Lab.up(...)`, or find one with `Lab.attach(name)`."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    # Life.

    @classmethod
    def up(
        cls,
        *,
        name: str = "lab",
        nodes: int = 4,
        docker: bool = False,
        slurm: bool = True,
        rate: str = "max",
        cpus: int = 4,
        gpus: int = 0,
        disk: str = "",
        share: Sequence[str] = (),
        other_engine: str = "",
        other_nodes: Sequence[str] = (),
        fresh: bool = False,
    ) -> Lab:
        """Bring a lab up; the same arguments again do nothing. See the README for each. Raises LabError."""
        request = Request(
            nodes, docker, slurm, rate, cpus, gpus, disk, tuple(share), other_engine, tuple(other_nodes)
        )
        return cls(lifecycle.up(name, request, fresh=fresh))

    @classmethod
    def attach(cls, name: str = "lab") -> Lab:
        """The lab of that name, which must be up. Raises LabError."""
        home = state.folder(name)
        record = state.read(home)
        if record is None or record.name != name:
            raise LabError(
                f"cannot find lab {name!r}: it is not up; run `python -m tests.lab up --name {name}`"
            )
        return cls(record.topology(home))

    def down(self) -> None:
        """Remove every trace of it."""
        lifecycle.down(self.name)

    # What it is.

    @property
    def name(self) -> str:
        return self.topology.name

    @property
    def nodes(self) -> list[str]:
        return self.topology.nodes

    @property
    def login_address(self) -> str:
        return self.topology.login_address

    @property
    def shared(self) -> Path:
        """The one folder that login and nodes see at the same path. Each node's /tmp, /var and /run are its
        own."""
        return self.topology.shared

    def address(self, name: str) -> str:
        return self.topology.address(name)

    def init_pid(self, name: str) -> int:
        """The machine's pid of the node's init; /proc/PID/root shows the node's files."""
        return node.pid(self.topology, name)

    def path(self, name: str, path: str) -> Path:
        """Where this machine finds a path of the node, until its next boot."""
        return Path(f"/proc/{self.init_pid(name)}/root") / path.lstrip("/")

    def processes(self) -> set[int]:
        """The machine's pids of all that runs in the lab: daemons, containers, commands, the fabric."""
        return cgroup.processes(self.topology.cgroup)

    def env(self) -> dict[str, str]:
        """What to add to the environment for srun, salloc and the like, from the login side."""
        return slurm.environment(self.topology)

    def status(self) -> list[NodeStatus]:
        words = slurm.node_states(self.topology)
        links = fabric.links(self.topology)
        return [self._status(name, words.get(name, ""), links.get(name)) for name in self.nodes]

    def _status(self, name: str, word: str, link: fabric.Link | None) -> NodeStatus:
        lab = self.topology
        on = node.running(lab, name)
        frozen = on and cgroup.frozen(node.group(lab, name))
        dead = "off" if node.switched_off(lab, name) else "dead"
        answers = on and not frozen and lab.request.docker and docker.answers(lab, name)
        process = node.init(lab, name)
        return NodeStatus(
            node=name,
            address=lab.address(name),
            power=("frozen" if frozen else "on") if on else dead,
            cable=link.cable if on and link is not None else "none",
            slurm=word,
            engine=("up" if answers else "silent") if lab.request.docker else "",
            init=process.pid if on and process else None,
        )

    def stats(self) -> dict[str, NodeStats]:
        """Use of the login's cable and of each node, by name. Differences of two calls are what a test
        cost."""
        links = fabric.links(self.topology)
        found = {}
        for name in [LOGIN, *self.nodes]:
            link, group = links.get(name), node.group(self.topology, name)
            found[name] = NodeStats(
                node=name,
                sent=link.sent if link else None,
                received=link.received if link else None,
                cpu_seconds=cgroup.cpu_seconds(group),
                memory_bytes=cgroup.memory_bytes(group),
            )
        return found

    def traffic(self) -> dict[str, tuple[int, int]]:
        """(sent, received) as in `stats`, of each node with a cable and of the login; cheap enough to be read
        20 times a second."""
        return fabric.traffic(self.topology)

    # Commands.

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        folder: str | None = None,
        timeout: float = 60.0,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a node to its end. With check, a failure raises LabError with its words."""
        done = node.run(self.topology, name, argv, stdin=stdin, env=env, folder=folder, timeout=timeout)
        if check and done.returncode:
            words = (done.stderr or done.stdout).strip()[-800:]
            raise LabError(
                f"cannot run {' '.join(argv)!r} on {name}: exit {done.returncode}: {words}; try it with exec"
            )
        return done

    def enter(self, name: str, argv: Sequence[str], folder: str | None = None) -> list[str]:
        """The command line that runs argv on the node: for Popen and asyncio, where `exec` is too simple."""
        return node.enter(self.topology, name, argv, folder)

    def ask_slurm(self, argv: Sequence[str], *, timeout: float = 30.0) -> str:
        """Output of a Slurm command (or any other) run on the login side. Raises LabError when it fails."""
        return slurm.ask(self.topology, list(argv), timeout=timeout)

    def job_ids(self) -> list[int]:
        """Jobs that are queued or running."""
        return slurm.job_ids(self.topology)

    def cancel_jobs(self) -> None:
        """Cancel all jobs and wait until they are gone."""
        slurm.cancel_all(self.topology)

    def write_off(self, name: str) -> None:
        """Tell Slurm that a node is down, so that it no longer waits for the end of jobs there."""
        slurm.write_off(self.topology, name)

    # Engines.

    def docker_host(self, name: str) -> str:
        """DOCKER_HOST by which this machine reaches the node's engine, until the node's next boot."""
        return f"unix://{docker.engine_socket(self.topology, name)}"

    def load_image(self, name: str, archive: Path, *, timeout: float = 120.0) -> str:
        """`docker load` on the node, of a tar on this machine; the name that was loaded."""
        return docker.load(self.topology, name, archive, timeout)

    def image_id(self, name: str, reference: str) -> str | None:
        return docker.image_id(self.topology, name, reference)

    def image_layers(self, name: str, reference: str) -> list[str]:
        """What tells an image from others, whatever id the node's engine gives it; [] when it has none."""
        return docker.layers(self.topology, name, reference)

    def containers(self, name: str, label: str = "") -> list[docker.Container]:
        """Containers of the node, dead ones too, that carry the label ("key" or "key=value")."""
        return docker.containers(self.topology, name, label)

    def start_service(self, name: str, service: str) -> None:
        """Start "docker" or "slurmd" again on a node where a test has ended it, and wait until it takes
        work."""
        if service not in ("docker", "slurmd"):
            raise LabError(
                f"cannot start {service!r} on {name}: nodes have docker and slurmd; name one of them"
            )
        node.order(self.topology, name, service)
        lifecycle.wait_ready(self.topology, [name])

    # Faults.

    def kill(self, name: str) -> None:
        """Power cut: peers see silence, the disk stays."""
        node.kill(self.topology, name)

    def boot(self, name: str) -> None:
        """Power on, and wait until Slurm and the engine take work."""
        node.boot(self.topology, name)
        lifecycle.wait_ready(self.topology, [name])

    def freeze(self, name: str) -> None:
        """Every process of the node stops at once; its kernel still answers TCP."""
        node.pid(self.topology, name)
        cgroup.set_frozen(node.group(self.topology, name), True)

    def thaw(self, name: str) -> None:
        node.pid(self.topology, name)
        cgroup.set_frozen(node.group(self.topology, name), False)

    def cut(self, name: str, way: str = "both") -> None:
        """Pull the cable of a node, or of the login. Way "out" only loses what it sends, "in" what it is
        sent."""
        fabric.cut(self.topology, name, way)

    def join(self, name: str) -> None:
        """Put the cable back, whichever way it was cut."""
        fabric.join(self.topology, name)

    def rate(self, name: str, rate: str) -> None:
        """Shape the cable of a node or of the login in both directions: "20mbit", or "max"."""
        fabric.set_rate(self.topology, name, rate, None if name == LOGIN else node.pid(self.topology, name))

    def hide(self, name: str, pattern: str) -> list[str]:
        """Cover the paths that match on one node; those covered. Gone with the node's next boot."""
        return faults.hide(self.topology, name, pattern)

    def unhide(self, name: str, pattern: str = "") -> list[str]:
        return faults.unhide(self.topology, name, pattern)

    def fill(self, name: str, leave: str = "0") -> int:
        """Fill the node's disk (`up` with disk="1G") until `leave` is free; the bytes free then."""
        return faults.fill(self.topology, name, leave)

    def unfill(self, name: str) -> int:
        return faults.unfill(self.topology, name)
