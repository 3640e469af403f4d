"""A real training with torchrun and gloo, eight processes on four nodes, and what breaks it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.stories.cluster import Cluster
from tests.stories.program import Run
from tests.stories.training.trainer import (
    ENDLESS,
    IMAGE,
    NODES,
    PATIENCE_S,
    Trainer,
    every_rank,
    figures,
    last_screen,
    looked_at,
    pause,
    ranks_seen,
    seconds_between,
    wait_training,
)

#: Each story waits for imports of torch by twelve processes; a hang is seen by PATIENCE_S.
pytestmark = [pytest.mark.torch, pytest.mark.timeout(3 * PATIENCE_S)]
#: Long enough for torchrun to be there on all nodes, with the machine busy.
DEADLINE_S = 120
#: A training long enough to be met while it goes on, and how long it is made to stand still.
STEPS, STANDSTILL_S = 400, 10.0
#: Takes a port of its node and keeps it.
LISTEN = """
import socket, sys
taken = socket.socket()
taken.bind(("", 0))
taken.listen()
print(taken.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_eight_ranks_train_and_the_row_has_their_rate(cluster: Cluster, trainer: Trainer) -> None:
    run = trainer.start()
    run.ends(0, PATIENCE_S)
    assert ranks_seen(run) == every_rank(cluster.nodes)
    row = trainer.row
    wanted = {"status": "SUCCESS", "launcher": "torchrun", "nnodes": str(NODES), "metric": "samples/s"}
    assert {name: row[name] for name in wanted} == wanted
    assert float(row["performance"]) > 0
    assert row["docker_sha"] == cluster.lab.image_id("n1", IMAGE)
    assert {cluster.lab.image_id(node, IMAGE) for node in cluster.nodes} == {row["docker_sha"]}
    (planned,) = run.events("image.planned")
    figures.append(
        f"image of {planned['source_bytes'] / 1e6:.0f} MB to {planned['nodes']} nodes: "
        f"{seconds_between(run, 'image.planned', 'image.ready'):.0f} s, and "
        f"{seconds_between(run, 'runtime.opened', 'image.source'):.0f} s before that to look into it"
    )
    figures.append(
        f"training, start of the script to its end: {row['test_duration']} s; {row['performance']} samples/s"
    )


def test_a_killed_rank_ends_the_training_and_its_node_is_named(cluster: Cluster, trainer: Trainer) -> None:
    run = trainer.start(env={"STEPS": ENDLESS})
    wait_training(run)
    os.kill(trainer.workers(run, "n3")[1], signal.SIGKILL)
    killed = time.monotonic()
    run.ends(3, PATIENCE_S / 3)
    figures.append(f"from a killed rank to the end of the run: {time.monotonic() - killed:.0f} s")
    assert trainer.row["status"] == "FAILURE"
    said = last_screen(run)
    assert "First failure — n3 rank 2" in said
    assert "rank      : 5 (local_rank: 1)" in said and "Signal 9 (SIGKILL)" in said, "torchrun's own words"


def assert_nobody_was_first(run: Run) -> None:
    """The last screen tells of a deadline that all met, and blames none of them."""
    said = last_screen(run)
    assert f"no rank failed, all {NODES} ran until the deadline" in said
    assert f"stopped at its deadline of {DEADLINE_S} s" in said
    assert "MASTER_PORT" in said and "First failure" not in said


def test_a_node_with_another_port_ends_at_the_deadline_with_what_every_node_ran(
    cluster: Cluster, trainer: Trainer
) -> None:
    run = trainer.start("--timeout", str(DEADLINE_S), env={"WRONG_PORT_ON": "2"})
    run.ends(3, DEADLINE_S + PATIENCE_S / 3)
    assert trainer.row["status"] == "FAILURE"
    assert not ranks_seen(run), "torchrun never came so far as to start one"
    assert_nobody_was_first(run)
    seen = {node: looked_at(run, node) for node in cluster.nodes}
    ports = {node: set(re.findall(r"--master_port=(\d+)", text)) for node, text in seen.items()}
    (port,) = ports["n1"]
    assert ports == {"n1": {port}, "n2": {port}, "n3": {str(int(port) + 1)}, "n4": {port}}
    listening = [
        line for line in seen["n1"].splitlines() if line.startswith("LISTEN") and f":{port} " in line
    ]
    assert listening, seen["n1"]


def test_a_node_that_never_comes_ends_at_the_deadline(cluster: Cluster, trainer: Trainer) -> None:
    run = trainer.start("--timeout", str(DEADLINE_S), env={"HANG_ON": "3"})
    run.ends(3, DEADLINE_S + PATIENCE_S / 3)
    assert trainer.row["status"] == "FAILURE"
    assert_nobody_was_first(run)
    assert "sleep 3600" in looked_at(run, "n4")
    assert "torchrun" in looked_at(run, "n1")


@pytest.fixture
def taken_port(cluster: Cluster) -> Iterator[int]:
    """A port of the first node that somebody else has."""
    argv = cluster.lab.enter("n1", ["python3", "-c", LISTEN])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout and stranger.stdin
        yield int(stranger.stdout.readline())
        stranger.stdin.close()
        stranger.wait(20)


def test_a_port_that_somebody_has_is_named_by_the_node_that_wanted_it(
    cluster: Cluster, trainer: Trainer, taken_port: int
) -> None:
    run = trainer.start("--timeout", str(2 * DEADLINE_S), distributed={"port": taken_port})
    run.ends(3, PATIENCE_S)
    assert trainer.row["status"] == "FAILURE"
    said = last_screen(run)
    assert "First failure — n1 rank 0" in said
    assert f"port: {taken_port}" in said and "address already in use" in said, "torch's own words"


def test_a_slow_node_and_one_that_stops_for_a_while_cost_time_and_nothing_else(
    cluster: Cluster, trainer: Trainer
) -> None:
    run = trainer.start(env={"STEPS": str(STEPS)})
    run.wait_event("step.begun", within=PATIENCE_S, step="main")
    (slow,) = cluster.lab.containers("n2", "phalanx.run")
    cluster.lab.exec("n2", ["docker", "update", "--cpus", "0.4", slow.id], check=True)
    wait_training(run)
    stopped = list(trainer.workers(run, "n4").values())
    assert len(stopped) == 2
    assert pause(run, stopped, STANDSTILL_S) < STEPS
    run.ends(0, PATIENCE_S)
    assert ranks_seen(run) == every_rank(cluster.nodes)
    assert (trainer.row["status"], trainer.row["nnodes"]) == ("SUCCESS", str(NODES))
