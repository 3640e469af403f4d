"""Another user of the login node knows the port, the run and the names. It helps him nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.stories.cluster import Cluster, until
from tests.stories.payloads import IN_CONTAINERS
from tests.stories.program import Phalanx, Run

pytestmark = pytest.mark.lab
#: Until another command in the container says that it may end.
UNTIL_TOLD = 'echo "rank $RANK is up"; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo "rank $RANK is done"'
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
FORGED = 10_000


def told_to_agents(kept: Path) -> dict[str, Any]:
    until(
        lambda: kept.exists() and kept.read_bytes().endswith(b"\n"), 20, "the agents were told where to join"
    )
    told: dict[str, Any] = json.loads(kept.read_bytes())
    return told


def stranger(told: dict[str, Any], what: str, count: int) -> subprocess.Popen[str]:
    host, port = told["addresses"][0]
    words = (what, host, str(port), told["run_id"], told["agent_build"], str(count))
    return subprocess.Popen(
        [*NOBODY, sys.executable, "-m", "tests.stories.stranger", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def besieged(told: dict[str, Any], what: str, count: int) -> Iterator[dict[str, Any]]:
    """While a stranger stands there; what he said when he was in place."""
    with stranger(told, what, count) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


def completes(run: Run, phalanx: Phalanx) -> None:
    """Told to end, all four ranks do, and none but the four agents has ever joined."""
    assert phalanx.ask("exec", "-r", run.id, "--", "touch", "/tmp/go").returncode == 0
    run.ends(0)
    assert sorted(run.stdout.splitlines())[1::2] == [f"n{n}: rank {n - 1} is up" for n in (1, 2, 3, 4)]
    joined = run.events("agent.joined")
    assert sorted(event["node"] for event in joined) == ["n1", "n2", "n3", "n4"]
    assert not run.events("agent.silent")


def test_of_10_000_forged_joins_none_registers_and_the_run_completes(
    phalanx: Phalanx, tee_srun: Path
) -> None:
    run = phalanx.start(*IN_CONTAINERS, "--", "sh", "-c", UNTIL_TOLD)
    forger = stranger(told_to_agents(tee_srun), "forge", FORGED)
    out, _ = forger.communicate(timeout=150)
    outcome = json.loads(out)
    assert outcome["welcomed"] == 0
    assert outcome["refused"] + outcome["broken"] == FORGED
    assert outcome["refused"] > FORGED / 2
    run.wait_event("step.started", count=4)
    completes(run, phalanx)
    assert sum(event["count"] for event in run.events("peer.refused")) > FORGED / 2


def test_a_hello_that_was_made_for_another_connection_opens_none(phalanx: Phalanx, tee_srun: Path) -> None:
    run = phalanx.start(*IN_CONTAINERS, "--", "sh", "-c", UNTIL_TOLD)
    told = told_to_agents(tee_srun)
    run.wait_event("step.started", count=4)
    incarnation = run.events("agent.joined", node="n1")[0]["incarnation"]
    out, _ = stranger(told, "replay", 40).communicate(f"{told['secret']} {incarnation}\n", timeout=60)
    assert json.loads(out) == {"welcomed": 0, "refused": 40, "broken": 0}
    assert all("proof" in event["reason"] for event in run.wait_event("peer.refused"))
    completes(run, phalanx)


def test_a_thousand_connections_that_say_nothing_keep_no_agent_out(phalanx: Phalanx, tee_srun: Path) -> None:
    run = phalanx.start(*IN_CONTAINERS, "--", "sh", "-c", UNTIL_TOLD)
    with besieged(told_to_agents(tee_srun), "idle", 1000) as outcome:
        assert outcome["held"] > 500
        run.wait_event("step.started", count=4)
        completes(run, phalanx)


def test_who_squats_on_the_ports_of_the_last_run_hears_nothing_of_the_next(
    cluster: Cluster, phalanx: Phalanx, tee_srun: Path
) -> None:
    phalanx.run("run", "--target", "slurm", "-N4", "--", "true")
    told = told_to_agents(tee_srun)
    process = stranger(told, "squat", 200)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["ports"] > 100
    phalanx.run("run", "--target", "slurm", "-N4", "--", "true")
    assert json.loads(process.communicate("", timeout=20)[0])["heard"] == 0
