"""Something is killed, cut or taken away in the middle: it is named, and nothing of the run lives on."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.stories.cluster import Cluster, all_processes, command_line, nothing_left, nothing_runs, until
from tests.stories.payloads import (
    COUNT_AND_HASH,
    IN_A_HURRY,
    IN_CONTAINERS,
    LAST_WORDS,
    LEASE_S,
    MEET_AND_SLEEP,
)
from tests.stories.program import Phalanx, Run

pytestmark = pytest.mark.lab
#: Beyond the lease: the supervisor looks each second, and the engine clears up.
AFTER_LEASE_S = 2.0


def start_sleepers(phalanx: Phalanx, script: str = MEET_AND_SLEEP) -> Run:
    """Four ranks that have met and sleep."""
    run = phalanx.start(*IN_CONTAINERS, *IN_A_HURRY, "--", "sh", "-c", script)
    run.wait_event("barrier.released")
    for rank in range(4):
        run.wait_output(f"rank {rank} met")
    return run


def the_next_run_clears(cluster: Cluster, phalanx: Phalanx) -> None:
    """What is dead: containers. Files of killed agents lie there for longer."""
    phalanx.run(*IN_CONTAINERS, "--", "true")
    cluster.forget_dead_files()
    nothing_left(cluster)


def logs_are_whole(run: Run) -> None:
    """What every rank wrote before the fault is in its log."""
    for rank in range(4):
        text = run.log(f"n{rank + 1}", f"rank{rank}.out").decode()
        assert text.startswith(f"rank {rank} is up\nrank {rank} met\n"), text


def test_scancel_ends_a_run_with_10_and_keeps_the_last_words_of_every_rank(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    run = start_sleepers(phalanx, LAST_WORDS)
    job = run.events("allocation.granted")[0]["job_id"]
    cluster.lab.ask_slurm(["scancel", job])
    run.ends(10)
    logs_are_whole(run)
    for rank in range(4):
        assert f"last words of {rank}" in run.log(f"n{rank + 1}", f"rank{rank}.out").decode()
    assert "CANCELLED" in run.stderr
    nothing_left(cluster)


def sruns_of(run: Run) -> list[int]:
    """The two processes of the srun that holds the agents, its head first."""

    def is_its(pid: int) -> bool:
        argv = command_line(pid)
        return bool(argv) and Path(argv[0]).name == "srun" and any(run.id in word for word in argv)

    return sorted(pid for pid in all_processes() if is_its(pid))


def test_the_agents_that_die_with_their_srun_end_the_run_in_words_and_without_containers(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    run = start_sleepers(phalanx)
    os.kill(sruns_of(run)[0], signal.SIGKILL)
    run.ends(3, within=LEASE_S + 20)
    logs_are_whole(run)
    assert "SIGKILL" in run.stderr.partition("First failure")[2]
    nothing_runs(cluster, LEASE_S + AFTER_LEASE_S)
    assert not cluster.lab.job_ids()
    the_next_run_clears(cluster, phalanx)


def test_a_run_whose_srun_is_killed_with_its_helper_goes_on_says_so_and_loses_nothing(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    """Slurm then leaves the tasks alone, and they speak to the controller themselves."""
    run = phalanx.start(*IN_CONTAINERS, *IN_A_HURRY, "-q", "--", "python3", "-c", COUNT_AND_HASH, "4")
    run.wait_output("n3: rank 2 line 1000")
    both = sruns_of(run)
    for number in (signal.SIGSTOP, signal.SIGKILL):  # neither can tell Slurm that the other is gone
        for pid in both:
            os.kill(pid, number)
    run.wait_event("spawn.ended")
    run.ends(0)
    logs_are_as_told(run)
    nothing_left(cluster)


def test_a_killed_agent_costs_its_rank_which_is_named_and_its_container_ends_with_the_lease(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    run = start_sleepers(phalanx)
    container = cluster.lab.containers("n2", "phalanx.run")[0]
    killed = time.monotonic()
    for pid in cluster.agents("n2"):
        os.kill(pid, signal.SIGKILL)
    until(
        lambda: all(one.state != "running" for one in cluster.lab.containers("n2", "phalanx.run")),
        killed + LEASE_S + AFTER_LEASE_S - time.monotonic(),
        f"container {container.name} is over with its lease",
    )
    run.ends(3)
    logs_are_whole(run)
    lost = run.events("step.exited", cause="lost")
    assert [(end["node"], end["rank"]) for end in lost] == [("n2", 1)]
    last = run.stderr.partition("First failure")[2]
    assert "n2 rank 1" in last.splitlines()[0]
    assert "lost" in last.splitlines()[1]
    the_next_run_clears(cluster, phalanx)


def test_without_its_controller_the_client_says_75_and_after_the_lease_nothing_of_ours_runs(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    run = start_sleepers(phalanx)
    os.kill(run.controller, signal.SIGKILL)
    run.ends(75, within=LEASE_S + 20)
    assert "lost contact" in run.stderr
    assert f"phalanx status {run.id}" in run.stderr
    logs_are_whole(run)
    nothing_runs(cluster, LEASE_S + AFTER_LEASE_S)
    (phalanx.sockets / f"{run.id}.sock").unlink(missing_ok=True)  # of a process that could not do it itself
    until(lambda: not cluster.lab.job_ids(), 10.0, "its agents gave the allocation back")
    the_next_run_clears(cluster, phalanx)


def test_a_node_that_loses_power_is_named_and_ends_the_run_with_3(cluster: Cluster, phalanx: Phalanx) -> None:
    run = start_sleepers(phalanx)
    cluster.power_off("n4")
    run.ends(3)
    logs_are_whole(run)
    assert [event["node"] for event in run.events("agent.lost")] == ["n4"]
    assert "n4 rank 3" in run.stderr.partition("First failure")[2].splitlines()[0]
    assert "lost" in run.stderr.partition("First failure")[2]


def test_a_link_that_is_cut_and_healed_within_the_lease_changes_no_verdict_and_loses_no_byte(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    times = ("--heartbeat", "0.3", "--dead-after", "1.5", "--lease", "20")
    run = phalanx.start(*IN_CONTAINERS, *times, "-q", "--", "python3", "-c", COUNT_AND_HASH, "6")
    run.wait_event("step.started", count=4)
    run.wait_output("n3: rank 2 line 1000")
    cluster.cut("n3")
    run.wait_event("agent.silent", node="n3")
    cluster.lab.join("n3")
    run.wait_event("agent.joined", node="n3", resumed=True)
    run.ends(0)
    logs_are_as_told(run)
    assert not run.events("agent.lost")


def logs_are_as_told(run: Run) -> None:
    """Each log is, byte by byte, what the rank has counted and hashed itself."""
    for rank in range(4):
        log = run.log(f"n{rank + 1}", f"rank{rank}.out")
        told, lines = run.log(f"n{rank + 1}", f"rank{rank}.err").decode().split()
        assert log.count(b"\n") == int(lines)
        assert hashlib.sha256(log).hexdigest() == told
