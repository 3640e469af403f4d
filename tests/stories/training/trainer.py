"""The model torch_tiny as the stories run it, and what they look for in its runs."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.stories.cluster import Cluster, environment, until
from tests.stories.program import Phalanx, Run
from tests.stories.training.torch_image import NAME

MODEL = "torch_tiny"
IMAGE = "ci-torch_tiny_torch_tiny.ubuntu.amd"
NODES, PER_NODE = 4, 2
#: Twelve Pythons import torch at once on what may be two busy cores; nothing here measures speed.
PATIENCE_S = 900.0
#: More steps than fit into any story.
ENDLESS = "100000000"
_HERE = re.compile(r"here: rank (\d+) of (\d+), local rank (\d+), node (\d+), host (\S+)")
#: Lines for the summary of the session.
figures: list[str] = []


@dataclass(slots=True)
class Trainer:
    """``built``: the project with its manifest, shared by the stories; each runs in a copy."""

    cluster: Cluster
    phalanx: Phalanx
    built: Path
    place: Path
    project: Path = field(init=False)

    def __post_init__(self) -> None:
        if not (self.built / "build_manifest.json").exists():
            self._build()
        self.project = Path(shutil.copytree(self.built, self.place / MODEL))

    def _build(self) -> None:
        """With the first node's engine, as on a login node that has one."""
        began = time.monotonic()
        context = {"docker_build_arg": {"BASE_DOCKER": NAME}}
        engine = {"DOCKER_HOST": self.cluster.lab.docker_host("n1")}
        given = ("build", "--tags", MODEL, "-c", json.dumps(context))
        self.phalanx.run(*given, folder=self.built, env=engine, within=PATIENCE_S)
        figures.append(f"phalanx build in {time.monotonic() - began:.0f} s")

    def start(self, *words: str, env: dict[str, str] | None = None, **context: Any) -> Run:
        """Start a run on all nodes; ``env``: of the model, ``context``: more of the additional context."""
        given = ("run", "-m", "build_manifest.json", "--target", "slurm", "-N", str(NODES), *words)
        document = {"docker_env_vars": env or {}, **context}
        return self.phalanx.start(*given, "-c", json.dumps(document), folder=self.project)

    @property
    def row(self) -> dict[str, str]:
        """The one row of the one run."""
        with (self.project / "perf.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        return row

    def workers(self, run: Run, node: str) -> dict[int, int]:
        """Pids (of this machine) of the training processes of a node, by their local rank."""
        found = {}
        for pid in self.cluster.processes(node):
            words = environment(pid).split(b"\0")
            if b"PHALANX_RUN_ID=" + run.id.encode() in words and any(
                word.startswith(b"TORCHELASTIC_RUN_ID=") for word in words
            ):
                local = next(word for word in words if word.startswith(b"LOCAL_RANK="))
                found[int(local.partition(b"=")[2])] = pid
        return found


def wait_training(run: Run, step: int = 20) -> None:
    """Until the ranks learn: every one of them has taken so many steps."""
    until(
        lambda: steps_taken(run) >= step or run.process.poll() is not None,
        PATIENCE_S,
        f"a training at step {step}\n{run.story()}",
    )
    assert run.process.poll() is None, run.story()


def pause(run: Run, workers: list[int], seconds: float) -> int:
    """Stop processes until the training has stood still for so long; the step it was at."""
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        step, since = steps_taken(run), time.monotonic()
        while time.monotonic() < since + seconds:
            assert run.process.poll() is None, run.story()
            if (now := steps_taken(run)) != step:
                step, since = now, time.monotonic()
            time.sleep(0.2)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    return step


def steps_taken(run: Run) -> int:
    """The last step that the first rank told of."""
    found = re.findall(r"step (\d+): loss", run.stdout)
    return int(found[-1]) if found else 0


def ranks_seen(run: Run) -> dict[int, tuple[int, int, str]]:
    """What each rank said of itself: its local rank, its node's rank and its host."""
    told = _HERE.findall(run.stdout)
    assert {int(world) for _, world, *_ in told} <= {NODES * PER_NODE}
    assert len({rank for rank, *_ in told}) == len(told), f"a rank said it twice: {told}"
    return {int(rank): (int(local), int(node), host) for rank, _, local, node, host in told}


def every_rank(nodes: list[str]) -> dict[int, tuple[int, int, str]]:
    """What all ranks of a whole training say of themselves."""
    return {
        node * PER_NODE + local: (local, node, host)
        for node, host in enumerate(nodes)
        for local in range(PER_NODE)
    }


def last_screen(run: Run) -> str:
    """What the program says at its end, where something failed."""
    _, found, tail = run.stderr.rpartition("✗ failed after")
    assert found, run.story()
    return found + tail


def looked_at(run: Run, node: str) -> str:
    """What a node saw of the run before it was ended there."""
    ends = run.events("step.exited", step="main")
    assert (run.folder / "logs" / node / "diagnostics.txt").exists(), f"{node} saw nothing: {ends}"
    return run.log(node, "diagnostics.txt").decode()


def seconds_between(run: Run, one: str, other: str) -> float:
    """From the last event of one type to the last of the other, by the run's own clock."""
    lines = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    when = {line["type"]: datetime.fromisoformat(line["ts"]) for line in lines}
    return (when[other] - when[one]).total_seconds()
