"""The lab with what the stories need: the test image on every node, and proof that a run left nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import Lab, cgroup, lifecycle
from tests.lab.image import NAME, base_image
from tests.lab.node import group

#: What a node and the scheduler run when no job is there.
AT_REST = frozenset(
    {"bash", "sleep", "unshare", "dockerd", "slurmd", "containerd", "slurmctld", "slurmscriptd", "munged"}
)
#: A folder with another engine, and the nodes whose engine it is (make test-engines).
OTHER_ENGINE, OTHER_NODES = "PHALANX_TEST_OTHER_ENGINE", "PHALANX_TEST_OTHER_NODES"
#: Seconds that the scheduler and the kernel may take to clear away what has ended.
SETTLE_S = 3.0
#: How much longer Slurm may take to let go of a job, in seconds.
JOBS_S = 30.0


def until(true: Callable[[], object], within: float, what: str) -> None:
    """Look often until something is true. Raises AssertionError with ``what`` when it does not become so."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.02)


def command_line(pid: int) -> list[str]:
    """The argv of a process, [] when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def environment(pid: int) -> bytes:
    """The environment of a process, b"" when it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def all_processes() -> Iterator[int]:
    """Every pid of this machine, those of the nodes too."""
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


@dataclass(slots=True)
class Cluster:
    """A lab of four nodes with engines, and the faults of the present test."""

    lab: Lab
    off: set[str] = field(default_factory=set)
    repairs: list[Callable[[], object]] = field(default_factory=list)

    @classmethod
    def up(cls, name: str, nodes: int = 4) -> Cluster:
        """A fresh lab whose engines all have the test image."""
        lab = Lab.up(
            name=name,
            nodes=nodes,
            docker=True,
            disk="1500M",
            fresh=True,
            other_engine=os.environ.get(OTHER_ENGINE, ""),
            other_nodes=os.environ.get(OTHER_NODES, "").split(),
        )
        archive = base_image()
        loads = [threading.Thread(target=lab.load_image, args=(node, archive)) for node in lab.nodes]
        for load in loads:
            load.start()
        for load in loads:
            load.join()
        assert all(lab.image_id(node, NAME) for node in lab.nodes), "the test image did not load everywhere"
        return cls(lab)

    @property
    def nodes(self) -> list[str]:
        return self.lab.nodes

    def alike(self, reference: str) -> bool:
        """Whether every engine has the image, and all the same."""
        return self.lab.image_layers("n1", reference) != [] and all(
            self.lab.image_layers(node, reference) == self.lab.image_layers("n1", reference)
            for node in self.nodes
        )

    # Faults that are repaired after the test.

    def cut(self, node: str) -> None:
        self.repairs.append(lambda: self.lab.join(node))
        self.lab.cut(node)

    def hide(self, node: str, pattern: str) -> None:
        self.repairs.append(lambda: self.lab.unhide(node, pattern))
        assert self.lab.hide(node, pattern), f"nothing to hide at {pattern}"

    def fill(self, node: str, leave: str) -> None:
        self.repairs.append(lambda: self.lab.unfill(node))
        self.lab.fill(node, leave)

    def power_off(self, node: str) -> None:
        self.off.add(node)
        self.lab.kill(node)

    def stop_engine(self, node: str) -> None:
        self.repairs.append(lambda: self.lab.start_service(node, "docker"))
        pids = [pid for pid in self.processes(node) if _comm(pid) in ("dockerd", "containerd")]
        self.lab.exec(node, ["pkill", "-KILL", "-x", "dockerd|containerd"], check=True)
        until(lambda: not any(map(command_line, pids)), 5.0, f"the engine of {node} is down")

    def mend(self) -> None:
        """Undo every fault, and wait until all nodes take work."""
        if not self.repairs and not self.off:
            return
        while self.repairs:
            self.repairs.pop()()
        while self.off:
            node = self.off.pop()
            self.lab.write_off(node)
            self.lab.boot(node)
        lifecycle.wait_ready(self.lab.topology, self.nodes)

    def heal(self) -> None:
        """Mend it, end every job, remove what carries our label."""
        self.mend()
        self.lab.cancel_jobs()
        for node in self.nodes:
            for container in self.lab.containers(node, "phalanx.run"):
                self.lab.exec(node, ["docker", "rm", "-f", container.id])
            self.lab.exec(node, ["sh", "-c", "rm -rf /tmp/phalanx-[0-9]*-* /tmp/phalanx-agent*"])

    # What runs.

    def processes(self, node: str) -> list[int]:
        """Pids (of this machine) of one node, containers included."""
        return sorted(cgroup.processes(group(self.lab.topology, node)))

    def agents(self, node: str) -> list[int]:
        """Pids of agents on a node."""
        return [pid for pid in self.processes(node) if _is_agent(command_line(pid))]

    def ours(self, node: str) -> list[str]:
        """What of phalanx or of a job is on a node: processes, containers, files."""
        found = [
            f"process {pid}: {' '.join(command_line(pid))[:120]}"
            for pid in self.processes(node)
            if command_line(pid) and _comm(pid) not in AT_REST
        ]
        found += [f"process {pid}: a rank's" for pid in self.processes(node) if _is_of_a_rank(pid)]
        found += [
            f"container {container.name} ({container.state})"
            for container in self.lab.containers(node, "phalanx.run")
        ]
        temporary = self.lab.path(node, "/tmp")
        found += [f"file {path.name}" for path in temporary.glob("phalanx-*") if "lab" not in path.name]
        return [f"{node}: {words}" for words in found]

    def running(self) -> list[str]:
        """What of any run still runs in the cluster: processes and living containers."""
        words = (words for node in self.nodes if node not in self.off for words in self.ours(node))
        return [one for one in words if ": process " in one or "(running)" in one]

    def left(self) -> list[str]:
        """What is left in the cluster of any run."""
        found = [words for node in self.nodes if node not in self.off for words in self.ours(node)]
        return found + [f"job {job}" for job in self.lab.job_ids()]

    def forget_dead_files(self) -> None:
        """Remove the files of agents that were killed: their program, and their spool, which the next agents
        keep for ten minutes since someone may want the output in it. Files only: nothing of them runs."""
        for node in self.nodes:
            self.lab.exec(node, ["sh", "-c", "rm -rf /tmp/phalanx-[0-9]*-* /tmp/phalanx-agent-*"], check=True)


def _are_jobs(left: list[str]) -> bool:
    """Jobs alone: Slurm lets go of one whose node is off only when it has asked that node in vain."""
    return all(one.startswith("job ") for one in left)


def nothing_left(cluster: Cluster, within: float = SETTLE_S) -> None:
    """No container, agent, process, spool folder or job of a run is left. Raises AssertionError naming it."""
    began = time.monotonic()
    left = cluster.left()
    while left and time.monotonic() - began < within + (JOBS_S if _are_jobs(left) else 0.0):
        time.sleep(0.05)
        left = cluster.left()
    assert not left, "left over: " + "; ".join(left)


def nothing_runs(cluster: Cluster, within: float) -> None:
    """After so many seconds no process and no container of a run lives. What is dead the next run clears."""
    until(lambda: not cluster.running(), within, f"nothing runs: {cluster.running()}")


def _comm(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _is_agent(argv: list[str]) -> bool:
    return any("phalanx-agent" in word for word in argv[:6]) and "srun" not in argv[0]


def _is_of_a_rank(pid: int) -> bool:
    return b"PHALANX_RUN_ID=" in environment(pid)
