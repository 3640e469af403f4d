"""The other verbs on a run that lives, and a run in nodes that were there before it."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.stories.cluster import Cluster
from tests.stories.payloads import IN_CONTAINERS
from tests.stories.program import Phalanx

pytestmark = pytest.mark.lab


def test_a_kept_run_answers_exec_ps_nodes_logs_and_status_until_it_is_cancelled(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    run = phalanx.start(*IN_CONTAINERS, "--keep", "-J", "kept", "--", "sh", "-c", "echo rank $RANK")
    run.wait_event("case.finished", within=60)

    executed = phalanx.ask("exec", "--", "hostname")
    assert executed.returncode == 0, executed.stderr
    assert sorted(executed.stdout.splitlines()) == [f"{node}: {node}" for node in cluster.nodes]
    assert phalanx.ask("exec", "-w", "n[2-3]", "--", "sh", "-c", "exit 5").returncode == 5
    gathered = phalanx.ask("exec", "-b", "--", "echo", "same").stdout
    assert gathered.splitlines()[1] == "n[1-4] (4)"

    listed = phalanx.ask("ps").stdout
    assert run.id in listed
    nodes = json.loads(phalanx.ask("nodes", "--json").stdout)
    assert [entry["node"] for entry in nodes] == cluster.nodes
    status = json.loads(phalanx.ask("status", "--json").stdout)
    assert status["exit_code"] is None
    logs = phalanx.ask("logs", "--rank", "2", "-o", "raw").stdout
    assert logs == "rank 2\n"
    assert sorted(phalanx.ask("logs", "--step", "main").stdout.splitlines()) == [
        f"n{rank + 1}: rank {rank}" for rank in range(4)
    ]

    assert phalanx.ask("cancel").returncode == 0
    run.wait()
    assert json.loads(phalanx.ask("status", "--json").stdout)["exit_code"] == run.process.returncode
    assert not cluster.lab.job_ids()


def test_an_allocation_that_was_there_is_used_and_not_given_back(cluster: Cluster, phalanx: Phalanx) -> None:
    said = subprocess.run(
        ["salloc", "--no-shell", "-N2"],
        env=dict(phalanx.environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stderr
    found = re.search(r"Granted job allocation (\d+)", said)
    assert found, said
    inside = {"SLURM_JOB_ID": found[1], "SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2"}
    run = phalanx.run("run", "--", "hostname", env=inside)
    granted = run.events("allocation.granted")[0]
    assert (granted["job_id"], granted["owned"]) == (found[1], False)
    assert len(run.stdout.splitlines()) == 2
    assert cluster.lab.job_ids() == [int(found[1])]
    cluster.lab.cancel_jobs()
