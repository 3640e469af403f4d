"""The main job: a ring all-reduce over four nodes, as processes and in containers, with the same row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.lab.image import NAME
from tests.stories.cluster import Cluster, nothing_left
from tests.stories.program import Phalanx, Run


def rows_of(project: Path) -> list[dict[str, str]]:
    with (project / "perf.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def kept_csvs(run: Run) -> list[str]:
    """Results of ranks in the run directory, relative to it."""
    return sorted(str(path.relative_to(run.folder)) for path in run.folder.glob("results/**/*.csv"))


def is_a_good_row(row: dict[str, str]) -> None:
    assert row["model"] == "ring_allreduce"
    assert row["status"] == "SUCCESS"
    assert row["metric"] == "MB/s"
    assert float(row["performance"]) > 0
    assert row["nnodes"] == "4"


@pytest.mark.local
def test_the_main_job_on_four_local_agents_gives_a_row_and_keeps_what_every_rank_returned(
    local: Phalanx, mad_mini: Path
) -> None:
    run = local.run("run", "--tags", "ring_allreduce", "-N", "4", "--runtime", "process", folder=mad_mini)
    (row,) = rows_of(mad_mini)
    is_a_good_row(row)
    assert len(kept_csvs(run)) >= 4
    for name in ("run.json", "plan.json", "events.jsonl", "perf.csv"):
        assert (run.folder / name).stat().st_size, name
    assert (local.runs / "latest").resolve() == run.folder.resolve()
    assert "ring_allreduce" in run.stderr


@pytest.mark.lab
def test_the_main_job_in_containers_on_a_cluster_gives_the_same_row_shape(
    cluster: Cluster, phalanx: Phalanx, mad_mini: Path
) -> None:
    context = json.dumps({"slurm": {"nodes": 4, "time": "00:10:00"}})
    given = ("--additional-context", context, "--image", NAME)
    run = phalanx.run("run", "--tags", "ring_allreduce", *given, folder=mad_mini)
    (row,) = rows_of(mad_mini)
    is_a_good_row(row)
    assert row["launcher"] or row["deployment_type"]
    assert len({path.split("/")[1] for path in kept_csvs(run)}) == 4
    assert all(cluster.lab.image_id(node, NAME) for node in cluster.nodes)
    nothing_left(cluster)
