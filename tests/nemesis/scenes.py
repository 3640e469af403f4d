"""Where a round is played: how a run is started there, what of it can be killed, what of it still lives."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.lab.errors import LabError
from tests.lab.image import NAME
from tests.nemesis.strikes import Strike
from tests.stories.cluster import Cluster, all_processes, command_line, environment, until
from tests.stories.program import Phalanx, Run

#: Seconds without word from the controller until nodes end a run.
LEASE_S = 3
#: Seconds for which an agent looks for a controller that it has never heard.
JOIN_S = 8
TIMES = (
    *("--lease", str(LEASE_S), "--heartbeat", "0.3", "--dead-after", "1.5"),
    *("--join-timeout", str(JOIN_S), "--stop-grace", "2", "--reconnect-timeout", "1", "--prefix", "none"),
)
#: What the workload does: it outlives every round, and what it says tells its own life.
WORKLOAD = ("sleep", "300")
#: What runs make in a temporary folder of a node.
FILES = "phalanx-[0-9a]*"
#: Janitors keep files of a dead run for ten minutes, those of one that never began for a day; seconds.
OLD_S = 100_000.0


class Scene(Protocol):
    """Either kind of place."""

    @property
    def nodes(self) -> list[str]:
        """Their names."""

    def start(self, phalanx: Phalanx, *command: str) -> Run:
        """Begin a run with these words as its workload."""

    def victims(self, run: Run, strike: Strike) -> list[int]:
        """The pids of what the strike means."""

    def repair(self, strike: Strike) -> None:
        """Start again what the strike killed and a run needs."""

    def alive(self) -> list[str]:
        """What of any run still works on a node: agents, supervisors, the workload."""

    def running(self) -> list[str]:
        """What an engine still calls running."""

    def taken(self) -> list[str]:
        """Nodes that the scheduler still holds for a run, in words."""

    def give_back(self) -> list[str]:
        """Give them back by hand; what there was."""

    def age(self) -> None:
        """Let what is left look as if nobody had touched it for long."""

    def strange(self, run: Run) -> list[str]:
        """What other runs have left on the nodes."""


def _common(run: Run, strike: Strike) -> list[int]:
    chosen = [run.controller] if strike.controller else []
    return chosen + ([run.process.pid] if strike.client else [])


@dataclass(slots=True)
class OnCluster:
    """Slurm, and containers of real engines."""

    cluster: Cluster

    @property
    def nodes(self) -> list[str]:
        return self.cluster.nodes

    def start(self, phalanx: Phalanx, *command: str) -> Run:
        count = str(len(self.nodes))
        return phalanx.start("run", "--target", "slurm", "-N", count, "--image", NAME, *TIMES, "--", *command)

    def victims(self, run: Run, strike: Strike) -> list[int]:
        pids = _common(run, strike)
        for node in strike.agents:
            pids += self.cluster.agents(node)
        sruns = [pid for pid in all_processes() if _is_srun(pid, run.id)]
        if strike.spawner:
            pids += [pid for pid in sruns if strike.spawner == "group" or os.getsid(pid) == pid]
        if strike.engine:
            names = ("dockerd", "containerd") if strike.containerd else ("dockerd",)
            pids += [pid for pid in self.cluster.processes(strike.engine) if _comm(pid) in names]
        return pids

    def repair(self, strike: Strike) -> None:
        if not strike.engine:
            return
        try:
            self.cluster.lab.start_service(strike.engine, "docker")
        except LabError:
            # an engine may fail to take over the containerd that it left behind: a fresh one then
            for pid in self.cluster.processes(strike.engine):
                if _comm(pid) in ("dockerd", "containerd"):
                    os.kill(pid, signal.SIGKILL)
            self.cluster.lab.start_service(strike.engine, "docker")

    def alive(self) -> list[str]:
        return [
            f"{node}: {pid} {' '.join(command_line(pid))[:100]}"
            for node in self.nodes
            for pid in self.cluster.processes(node)
            if _works(pid)
        ]

    def running(self) -> list[str]:
        return [
            f"{node}: container {one.name}"
            for node in self.nodes
            for one in self.cluster.lab.containers(node, "phalanx.run")
            if one.state == "running"
        ]

    def taken(self) -> list[str]:
        return [f"job {job}" for job in self.cluster.lab.job_ids()]

    def give_back(self) -> list[str]:
        jobs = self.taken()
        self.cluster.lab.cancel_jobs()
        return jobs

    def age(self) -> None:
        for node in self.nodes:
            make_old(self.cluster.lab.path(node, "/tmp"))

    def strange(self, run: Run) -> list[str]:
        found = []
        for node in self.nodes:
            containers = self.cluster.lab.containers(node, "phalanx.run")
            found += [
                f"{node}: container {one.name} ({one.state})"
                for one in containers
                if one.labels["phalanx.run"] != run.id
            ]
            found += [f"{node}: {path.name}" for path in left_in(self.cluster.lab.path(node, "/tmp"), run.id)]
        return found


@dataclass(slots=True)
class OnThisMachine:
    """Agents and plain processes of this machine, all with a temporary folder of the test's own."""

    spool: Path
    nodes: list[str]

    def start(self, phalanx: Phalanx, *command: str) -> Run:
        count = str(len(self.nodes))
        return phalanx.start("run", "--target", "local", "-N", count, *TIMES, "--", *command)

    def victims(self, run: Run, strike: Strike) -> list[int]:
        pids = _common(run, strike)
        for pid in self._ours():
            argv = command_line(pid)
            if _is_agent(argv):
                pids += [pid] if argv[argv.index("--node") + 1] in strike.agents else []
            elif _is_holder(argv):
                rank = self.nodes[int(argv[-1].split(f"{run.id}-", 1)[1].split("-", 1)[0])]
                pids += [pid] if rank in strike.holders else []
        return pids

    def _ours(self) -> Iterator[int]:
        mark = f"\0TMPDIR={self.spool}\0".encode()
        for pid in all_processes():
            argv = command_line(pid)
            if _is_holder(argv):
                ours = argv[-1].startswith(str(self.spool))
            else:
                ours = _works(pid) and mark in b"\0" + environment(pid)
            if ours:
                yield pid

    def repair(self, strike: Strike) -> None:
        return

    def alive(self) -> list[str]:
        return [f"{pid} {' '.join(command_line(pid))[:100]}" for pid in self._ours()]

    def running(self) -> list[str]:
        return []

    def taken(self) -> list[str]:
        return []

    def give_back(self) -> list[str]:
        return []

    def age(self) -> None:
        make_old(self.spool)

    def strange(self, run: Run) -> list[str]:
        return [path.name for path in left_in(self.spool, run.id)]


def left_in(temporary: Path, but_for: str) -> list[Path]:
    """Files of runs other than one in a temporary folder."""
    return [path for path in temporary.glob(FILES) if but_for not in path.name]


def make_old(temporary: Path) -> None:
    """Files of runs in a temporary folder get the times, and their leases the words, of long ago."""
    for path in temporary.glob(FILES):
        for lease in path.rglob("expires"):
            boot = lease.read_text().split()[1:2]
            lease.write_text(" ".join(["0", *boot]).ljust(63) + "\n")
        for each in (path, *path.rglob("*")):
            then = each.lstat().st_mtime - OLD_S
            os.utime(each, (then, then), follow_symlinks=False)


def strike_now(pids: list[int]) -> None:
    """SIGKILL to all in one moment: each is stopped first, so that none acts on the death of another (the
    helper of srun kills the whole step when it outlives srun)."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def engine_is_down(cluster: Cluster, node: str, containerd: bool) -> None:
    """Wait until a killed engine is no more."""
    names = ("dockerd", "containerd") if containerd else ("dockerd",)
    until(
        lambda: not any(_comm(pid) in names and command_line(pid) for pid in cluster.processes(node)),
        5.0,
        f"the engine of {node} is down",
    )


def _comm(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _is_agent(argv: list[str]) -> bool:
    return any("phalanx-agent" in word for word in argv[:6]) and "run" in argv[1:8] and "-c" not in argv


def _is_holder(argv: list[str]) -> bool:
    """The supervisor of a case without an engine; its last word is the path of its lease."""
    return "-c" in argv[:6] and argv[-1].endswith("/expires")


def _is_srun(pid: int, run_id: str) -> bool:
    argv = command_line(pid)
    return bool(argv) and argv[0].endswith("srun") and any(run_id in word for word in argv)


def _works(pid: int) -> bool:
    """True for agents, supervisors and whatever a step has started."""
    argv = command_line(pid)
    if not argv or argv[0].startswith("slurmstepd"):
        return False
    return _is_agent(argv) or _is_holder(argv) or "supervise" in " ".join(argv[:3]) or _marked(pid)


def _marked(pid: int) -> bool:
    return b"\0PHALANX_RUN_ID=" in b"\0" + environment(pid)
