"""A launcher's command as each node's script sees it: the same everywhere but for the node's own rank."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from tests.stories.program import Phalanx

SCRIPT = """
set -eu
echo "runner $MAD_MULTI_NODE_RUNNER"
echo "told $NODE_RANK $NNODES $MAD_NODE_RANK $MAD_COLLECT_METRICS $MASTER_PORT $NPROC_PER_NODE"
echo "literal $BRACES"
echo "performance: 1 things"
"""


def project(folder: Path, **card: object) -> Path:
    """A MAD project with one model that tells what it is given."""
    scripts = folder / "scripts" / "told"
    scripts.mkdir(parents=True)
    (scripts / "run.sh").write_text(SCRIPT)
    model = {"name": "told", "scripts": "scripts/told", "args": "", "tags": []}
    (folder / "models.json").write_text(json.dumps([{**model, **card}]))
    return folder


@pytest.mark.local
def test_every_node_starts_its_share_of_the_same_launch(local: Phalanx, place: Path) -> None:
    given = {"distributed": {"launcher": "torchrun", "nproc_per_node": 2, "nnodes": 2}, "n_gpus": "0"}
    folder = project(place / "project", **given)
    run = local.run("run", "--tags", "told", "-N", "2", "-e", "BRACES={NODE_RANK} {P}", folder=folder)
    for rank, node in enumerate(("local1", "local2")):
        said = run.log(node, next((run.folder / "logs" / node).glob("rank*.out")).name).decode()
        match = re.search(r"^runner (.+) --master_addr=(\S+) --master_port=(\d+)$", said, re.MULTILINE)
        assert match is not None, said
        assert match[1] == f"torchrun --nnodes=2 --nproc_per_node=2 --node_rank={rank}"
        assert f"told {rank} 2 {rank} {'true' if rank == 0 else 'false'} {match[3]} 2" in said
        assert "literal {NODE_RANK} {P}" in said
    with (folder / "perf.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["launcher"], row["status"], row["nnodes"]) == ("torchrun", "SUCCESS", "2")
