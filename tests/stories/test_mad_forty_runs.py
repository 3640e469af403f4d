"""The same project, unchanged, on this machine with Docker and on the cluster: the same rows come of it."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.archive import tiny_image
from tests.lab.image import base_image
from tests.runtimes import dockerd
from tests.stories.cluster import Cluster
from tests.stories.program import Phalanx
from tests.stories.test_mad_forty import BASE, BUILT, NO_GPUS, NOTHING_TO_INSTALL, PROJECT, engine

__all__ = ["engine"]  # a fixture that a story here asks for
#: What every run of the project gives, compared with the contract by hand.
ROWS = Path(__file__).with_name("mad_forty_rows.csv")
#: Needs five nodes; all others of the project run on two.
TOO_LARGE = "launch_sglang_disagg"
MODELS = sorted(set(BUILT.values()) - {TOO_LARGE})
#: What is not to be had on these nodes, with the words of the verdict.
NOT_HAD = {
    "from_repository": "step clone",
    "with_data": "cannot provide data set sample_set",
    "with_two_data": "cannot provide data set sample_set",
}
#: Models with several results, and how many.
RESULTS = {"many_results": 3, "two_metrics": 2, "vision/detector": 1}


def runs_as_expected(program: Phalanx, place: Path, *where: str) -> list[dict[str, str]]:
    """Build all and run all; the rows, after a look at every one of them."""
    project = Path(shutil.copytree(PROJECT, place / "mad_forty"))
    context = json.dumps({"docker_build_arg": {"BASE_DOCKER": BASE}})
    program.run("build", "--tags", "all", "-c", context, "--jobs", "4", folder=project, code=2, within=300)
    given = ("run", "-m", "build_manifest.json", "-c", NO_GPUS, "-N", "2", "--parallel", "4", *where)
    run = program.run(*given, "--tags", ",".join(MODELS), folder=project, code=3, within=280)
    with (project / "perf.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    statuses = Counter(row["status"] for row in rows)
    wanted = len(MODELS) - len(NOT_HAD) + sum(RESULTS.values()) - len(RESULTS)
    assert statuses == {"SUCCESS": wanted, "FAILURE": len(NOT_HAD)}, run.stderr
    reasons = {event["case"]: event["reason"] for event in run.events("case.finished")}
    assert len(reasons) == len(MODELS)
    for model, words in NOT_HAD.items():
        assert words in reasons[model]
    for row in rows:
        assert bool(row["performance"]) == (row["status"] == "SUCCESS") == bool(row["metric"])
        assert (row["nnodes"], row["base_docker"]) == ("2", BASE)
        assert row["docker_sha"].startswith("sha256:")
    return rows


@pytest.fixture
def with_engine(local: Phalanx, place: Path) -> Iterator[Phalanx]:
    """The program on a machine with an engine of its own, with the base image in it."""
    if reason := dockerd.missing():
        pytest.skip(f"no engine: {reason}")
    directory = Path(tempfile.mkdtemp(prefix="phx-dockerd-"))
    daemon = dockerd.Dockerd(directory)
    archive = place / "base.tar"
    tiny_image(archive, name=BASE, layers=[NOTHING_TO_INSTALL], base=base_image())
    try:
        daemon.start()
        daemon.load(archive)
        local.environ = {**local.environ, "DOCKER_HOST": daemon.url}
        yield local
    finally:
        daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)


def same_everywhere(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Of the rows what has to be the same wherever the project runs, in the order of names."""
    with ROWS.open(newline="") as file:
        names = next(csv.reader(file))
    return sorted(({name: row[name] for name in names} for row in rows), key=lambda row: row["model"])


def recorded() -> list[dict[str, str]]:
    """The rows as they were compared with the contract."""
    with ROWS.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.docker
def test_the_whole_project_runs_on_this_machine(with_engine: Phalanx, place: Path) -> None:
    rows = runs_as_expected(with_engine, place)
    assert {row["deployment_type"] for row in rows} == {"local"}
    assert same_everywhere(rows) == recorded()


@pytest.mark.lab
def test_the_whole_project_runs_on_the_cluster_with_the_same_rows(
    cluster: Cluster, engine: Phalanx, place: Path
) -> None:
    rows = runs_as_expected(engine, place, "--target", "slurm")
    assert {row["deployment_type"] for row in rows} == {"slurm"}
    assert same_everywhere(rows) == recorded()
