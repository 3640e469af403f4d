"""Nodes that cannot join: they are named with the reason, and those that could are sent home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stories.cluster import Cluster, nothing_runs
from tests.stories.payloads import IN_A_HURRY, IN_CONTAINERS, LAST_WORDS
from tests.stories.program import Phalanx, Run

pytestmark = pytest.mark.lab
ON_NODES = ("run", "--target", "slurm", "-N4")
SOON = ("--join-timeout", "4s")
#: Exit status of an agent that could not join.
NOT_JOINED = 69


def test_a_node_without_an_interpreter_ends_the_run_with_8_and_is_named_with_the_reason(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    cluster.hide("n3", "/usr/bin/python3*")
    run = phalanx.run(*ON_NODES, *SOON, "--", "hostname", code=8)
    last = run.stderr.splitlines()
    place = next(number for number, line in enumerate(last) if "3/4 joined" in line)
    assert "missing n3" in last[place]
    assert "n3" in last[place + 1]
    assert "python" in last[place + 1].lower()
    assert "--min-nodes 3" in run.stderr
    assert last[-1] == "exit 8"
    assert {event["node"] for event in run.events("agent.left")} == {"n1", "n2", "n4"}


def test_with_min_nodes_the_run_goes_on_without_the_node_that_has_no_interpreter(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    cluster.hide("n3", "/usr/bin/python3*")
    given = (*ON_NODES, *SOON, "--min-nodes", "3")
    run = phalanx.run(*given, "--", "sh", "-c", "echo $RANK of $WORLD_SIZE")
    assert sorted(run.stdout.splitlines()) == ["n1: 0 of 3", "n2: 1 of 3", "n4: 2 of 3"]
    assert "missing n3" in run.stderr


def test_a_node_whose_link_is_cut_while_it_joins_is_named_after_the_join_timeout(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    cluster.lab.rate("n2", "500kbit")
    run = phalanx.start(*ON_NODES, "--join-timeout", "8s", "--", "hostname")
    run.wait_event("spawn.started")
    cluster.lab.cut("n2")
    run.ends(8)
    assert set(run.events("join.timeout")[-1]["missing"]) >= {"n2"}
    assert "n2" in run.stderr.partition("missing")[2]
    nothing_runs(cluster, 5)
    cluster.power_off("n2")  # and on again: Slurm then waits for nothing there, and believes that it is back
    cluster.mend()
    phalanx.run(*IN_CONTAINERS, "--", "true")
    cluster.forget_dead_files()  # srun leaves the file that it brought when it cannot start the step


def bootstrap_of(run: Run) -> tuple[list[str], Path]:
    """A command that starts this run's agent once more, on the login side; the folder of its file."""
    argv = run.events("spawn.started")[0]["argv"]
    return argv, Path(next(word for word in argv if "phalanx-agent" in word and Path(word).exists()))


@pytest.mark.parametrize(
    ("change", "node"),
    [
        ({"secret": "00" * 32}, "n2"),
        ({"agent_build": "ab" * 32}, "n2"),
        ({"run_id": "20200101-000000-other-0000"}, "n2"),
        ({}, "n9"),
        ({}, "n2"),
    ],
    ids=["another key", "another build", "another run", "an unknown node", "a node that is there already"],
)
def test_an_agent_with_something_wrong_about_it_is_refused_and_the_run_does_not_notice(
    change: dict[str, str], node: str, phalanx: Phalanx, tee_srun: Path, place: Path
) -> None:
    run = phalanx.start(*IN_CONTAINERS, *IN_A_HURRY, "--", "sh", "-c", LAST_WORDS)
    run.wait_output("rank 3 met")
    _, agent = bootstrap_of(run)
    told = json.loads(tee_srun.read_bytes())
    spool = place / "spool"
    spool.mkdir()
    refused = subprocess.run(
        [sys.executable, "-I", "-S", agent, "run", "--node", node, "--node-rank", "1"],
        input=json.dumps({**told, **change, "join_timeout_s": 0.5}) + "\n",
        env={"PATH": os.environ["PATH"], "TMPDIR": str(spool)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode == NOT_JOINED, refused.stderr
    assert "cannot join" in refused.stderr
    run.wait_event("peer.refused")
    assert phalanx.ask("cancel", run.id).returncode == 0
    run.ends(130)
    assert len(run.events("agent.joined")) == 4
    assert "last words of 1" in run.log("n2", "rank1.out").decode()
