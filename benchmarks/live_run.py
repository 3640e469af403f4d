"""A run that has done its work and keeps its nodes: what comes to them then needs no agents to be started."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.crew import BenchmarkError
from benchmarks.lab_runs import PATIENCE_S, Group, LabRuns, events

PHALANX = str(Path(sys.executable).parent / "phalanx")


@dataclass(frozen=True, slots=True)
class LiveRun:
    """The run, by its id; its controller is alone in a cgroup."""

    run_id: str
    group: Group

    @property
    def cpu_s(self) -> float:
        """CPU seconds of its controller so far."""
        return self.group.used_s


@contextmanager
def live_run(runs: LabRuns) -> Iterator[LiveRun]:
    """All nodes of the allocation in a kept run; it is over afterwards. Raises BenchmarkError."""
    group, count = Group(), str(len(runs.lab.nodes))
    place = ["--target", "slurm", "-N", count, "--keep", "-d"]
    run_id = _said(runs, [*group.enter, PHALANX, "run", *place, "--", "true"])
    try:
        log = runs.folder / "phalanx-runs" / run_id
        deadline = time.monotonic() + PATIENCE_S
        while not any(event["type"] == "case.finished" for event in events(log)):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"run {run_id} does not come to its end")
            time.sleep(0.1)
        yield LiveRun(run_id, group)
    finally:
        _said(runs, [PHALANX, "cancel", run_id])
        group.end()


def _said(runs: LabRuns, argv: list[str]) -> str:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        env=runs.environment(),
        cwd=runs.folder,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise BenchmarkError(f"{' '.join(argv)}: exit status {done.returncode}: {done.stderr[-800:]}")
    return done.stdout.strip()
