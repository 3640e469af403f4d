"""A lab with one allocation on all its nodes, and runs of phalanx and of plain srun inside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.crew import BenchmarkError
from tests.lab import cgroup
from tests.lab.errors import LabError
from tests.lab.lab import Lab

#: No single command of a benchmark takes nearly as long, in seconds.
PATIENCE_S = 300.0
_GRANTED = re.compile(r"[Gg]ranted job allocation (\d+)")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: wall seconds, CPU seconds of it and all it started here, and of the nodes; and
    its exit status."""

    wall_s: float
    login_cpu_s: float
    nodes_cpu_s: float
    status: int = 0

    def less(self, other: Cost) -> Cost:
        """What it took beyond ``other``."""
        return Cost(
            self.wall_s - other.wall_s,
            self.login_cpu_s - other.login_cpu_s,
            self.nodes_cpu_s - other.nodes_cpu_s,
        )


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(
        statistics.median(cost.wall_s for cost in costs),
        statistics.median(cost.login_cpu_s for cost in costs),
        statistics.median(cost.nodes_cpu_s for cost in costs),
    )


@dataclass(slots=True)
class LabRuns:
    """An allocation of all nodes of a lab. ``folder`` is where runs and outputs go, ``more_env`` what
    commands see besides the environment of the lab."""

    lab: Lab
    job_id: str
    folder: Path
    more_env: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """What commands of the login node see."""
        # Without PYTHON*: as users have it, modules are compiled once and not with every start.
        foreign = ("SLURM_", "PHALANX_", "PYTHONDONT", "PYTHONUNBUFFERED")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        kept = {"XDG_STATE_HOME": str(self.folder / "state"), "SLURM_JOB_ID": self.job_id}
        return {**own, **self.lab.env(), **self.more_env, **kept}

    @property
    def _nodes_cpu_s(self) -> float:
        stats = self.lab.stats()
        return sum(stats[name].cpu_seconds or 0.0 for name in self.lab.nodes)

    def timed(
        self,
        argv: Sequence[str],
        output: Path,
        *,
        then: Callable[[], None] | None = None,
        check: bool = True,
    ) -> Cost:
        """Run a command of the login node to its end, its standard output into a file.

        ``then`` belongs to it: the clock stops when that has returned. It is not called for a command that
        failed, which raises BenchmarkError unless ``check`` is off.
        """
        group = Group()
        nodes, began = self._nodes_cpu_s, time.monotonic()
        try:
            status = self._finish([*group.enter, *argv], output)
            if then is not None and status == 0:
                then()
            wall = time.monotonic() - began
        except BaseException:
            group.kill()
            raise
        login = group.end()
        if status and check:
            words = (self.folder / "errors").read_text(errors="replace")[-800:]
            raise BenchmarkError(f"{' '.join(argv)}: exit status {status}: {words}")
        return Cost(wall, login, self._nodes_cpu_s - nodes, status)

    def _finish(self, argv: Sequence[str], output: Path) -> int:
        with output.open("wb") as out, (self.folder / "errors").open("wb") as errors:
            return subprocess.run(
                argv,
                stdout=out,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                env=self.environment(),
                cwd=self.folder,
                timeout=PATIENCE_S,
                check=False,
            ).returncode

    def srun_argv(self, *argv: str, options: Sequence[str] = ()) -> list[str]:
        """The command line of a step of one task on each node."""
        count = str(len(self.lab.nodes))
        command = ["srun", f"--jobid={self.job_id}", "--overlap", "-N", count, "-n", count, "--chdir=/"]
        return [*command, *options, *argv]

    def srun(self, *argv: str, options: Sequence[str] = (), output: Path | None = None) -> Cost:
        """A step of one task on each node."""
        return self.timed(self.srun_argv(*argv, options=options), output or self.folder / "output")

    def renew(self) -> None:
        """Give the allocation back and take one anew: one that has lost a node may be ended at any time."""
        with contextlib.suppress(LabError):
            self.lab.ask_slurm(["scancel", self.job_id])
        self.job_id = _allocate(self.lab, len(self.lab.nodes))

    def phalanx(
        self, *argv: str, options: Sequence[str] = (), output: Path | None = None
    ) -> tuple[Cost, Path]:
        """A whole ``phalanx run`` in the allocation; what it cost, and its run directory."""
        runs = self.folder / "phalanx-runs"
        known = set(runs.glob("[0-9]*"))
        phalanx = str(Path(sys.executable).parent / "phalanx")
        count = str(len(self.lab.nodes))
        place = ["--target", "slurm", "-N", count, "-n", count, "--runtime", "process"]
        cost = self.timed([phalanx, "run", *place, *options, "--", *argv], output or self.folder / "output")
        (made,) = set(runs.glob("[0-9]*")) - known
        return cost, made


class Group:
    """A cgroup for one command: a controller, which leaves the session of its client, is counted as well."""

    def __init__(self) -> None:
        self._path = cgroup.root() / "cpuacct" / f"phalanx-bench-{os.getpid()}-{time.monotonic_ns()}"
        self._path.mkdir()

    @property
    def enter(self) -> tuple[str, ...]:
        """What to write before a command to run it in here."""
        return ("sh", "-c", f'echo $$ > {self._path}/tasks; exec "$@"', "sh")

    @property
    def used_s(self) -> float:
        """CPU seconds so far."""
        return int((self._path / "cpuacct.usage").read_text()) / 1e9

    def kill(self) -> None:
        """End all that is left of the command, when its figures no longer matter."""
        for pid in (self._path / "tasks").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.end()

    def end(self) -> float:
        """Wait for the last process (a controller outlives its client); CPU seconds of all."""
        deadline = time.monotonic() + PATIENCE_S
        while (self._path / "tasks").read_text():
            if time.monotonic() > deadline:
                raise BenchmarkError("a process of the command does not end")
            time.sleep(0.01)
        used = self.used_s
        self._path.rmdir()
        return used


def events(run_dir: Path) -> list[dict[str, Any]]:
    """The event log of a run."""
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def moment(log: Sequence[dict[str, Any]], kind: str) -> float:
    """When the first event of a kind was written, in seconds."""
    found = next((event for event in log if event["type"] == kind), None)
    if found is None:
        raise BenchmarkError(f"the run has no event {kind}")
    return datetime.fromisoformat(found["ts"].replace("Z", "+00:00")).timestamp()


@contextlib.contextmanager
def lab_runs(name: str, nodes: int, *, docker: bool = False, rate: str = "max") -> Iterator[LabRuns]:
    """The lab of that name, which must be up, or one of our own; nothing of ours is left behind."""
    own = not name
    lab = Lab.up(name="benchmarks", nodes=nodes, docker=docker, rate=rate) if own else Lab.attach(name)
    folder = Path(tempfile.mkdtemp(prefix="phalanx-bench-"))
    runs = None
    try:
        if len(lab.nodes) != nodes:
            raise BenchmarkError(f"lab {name} has {len(lab.nodes)} nodes, not {nodes}")
        request = lab.topology.request
        if docker and (request.docker, request.rate) != (docker, rate):
            raise BenchmarkError(f"lab {name} has no engines, or not the rate {rate}")
        runs = LabRuns(lab, _allocate(lab, nodes), folder)
        yield runs
    finally:
        with contextlib.suppress(LabError):
            if runs is not None:
                lab.ask_slurm(["scancel", runs.job_id])
        if own:
            lab.down()
        shutil.rmtree(folder)


def _allocate(lab: Lab, nodes: int) -> str:
    done = subprocess.run(
        ["salloc", "-N", str(nodes), "--no-shell", "--no-kill", "--job-name=benchmark"],
        env={**os.environ, **lab.env()},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,  # of a node that was cut off Slurm takes a minute to believe that its job is over
        check=False,
    )
    granted = _GRANTED.search(done.stderr)
    if granted is None:
        raise BenchmarkError(f"no allocation: {done.stderr.strip()}")
    return granted[1]
