"""Models with images of their own in one run: each image comes when its model is due."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.lab.archive import tiny_image
from tests.lab.image import NAME, base_image
from tests.stories.cluster import Cluster
from tests.stories.program import Phalanx
from tests.stories.project import make_project, rows_of

pytestmark = pytest.mark.lab
FIRST, SECOND, NOWHERE = "several:1", "several:2", "no-such-image:1"
MODELS = ("run", "--target", "slurm", "-N4", "--tags")
GOOD = 'echo "performance: 1 x"'


@pytest.fixture
def one_has_the_first(cluster: Cluster) -> Cluster:
    """The engine of one node has the first image; no node has another."""
    cluster.lab.exec("n2", ["docker", "tag", NAME, FIRST], check=True)
    for node in cluster.nodes:
        cluster.repairs.append(partial(cluster.lab.exec, node, ["docker", "rmi", "-f", FIRST, SECOND]))
    return cluster


def test_each_model_runs_in_its_image_which_comes_when_it_is_due(
    one_has_the_first: Cluster, phalanx: Phalanx, place: Path
) -> None:
    cluster, builds = one_has_the_first, place / "builds"
    builds.mkdir()
    layers = [{"story": b"once upon a time\n"}]
    second = tiny_image(builds / "several_2.tar", name=SECOND, layers=layers, base=base_image())
    project = make_project(
        place,
        a=(FIRST, f"test ! -e /story && {GOOD}"),
        b=(SECOND, f"cat /story && {GOOD}"),
        c=(FIRST, f"test ! -e /story && {GOOD}"),
    )
    run = phalanx.run(*MODELS, "all", folder=project, env={"MAD_DOCKER_BUILDS": str(builds)})
    first = cluster.lab.image_id("n1", NAME)
    rows = rows_of(project)
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys("abc", "SUCCESS")
    assert {name: row["docker_sha"] for name, row in rows.items()} == {"a": first, "b": second, "c": first}
    assert {name: row["docker_image"] for name, row in rows.items()} == {"a": FIRST, "b": SECOND, "c": FIRST}
    assert run.stdout.count("once upon a time") == 4
    assert cluster.lab.image_id("n1", SECOND) == second
    assert cluster.alike(SECOND)
    order = [event["type"] for event in run.events() if event["type"] in ("case.started", "image.ready")]
    assert order == ["image.ready", "case.started", "image.ready", "case.started", "case.started"]
    (wanted,) = run.events("image.requested")
    assert (wanted["reference"], wanted["case"]) == (SECOND, "b")
    assert f"image {SECOND} is asked for on n[1-4] (4) for case b" in run.stderr
    told = json.loads(phalanx.ask("status", run.id, "--json").stdout)
    assert [image["id"] for image in told["images"]] == [first, second]
    assert json.loads((run.folder / "lock.json").read_text())["images"] == [
        {"reference": FIRST, "id": first},
        {"reference": SECOND, "id": second},
    ]


def test_an_image_that_is_nowhere_costs_its_model_a_row_and_no_other_model_anything(
    one_has_the_first: Cluster, phalanx: Phalanx, place: Path
) -> None:
    project = make_project(place, a=(FIRST, GOOD), b=(NOWHERE, GOOD), c=(FIRST, GOOD))
    run = phalanx.run(*MODELS, "a,b,c", folder=project, code=3)
    rows = rows_of(project)
    assert {name: row["status"] for name, row in rows.items()} == {
        "a": "SUCCESS",
        "b": "FAILURE",
        "c": "SUCCESS",
    }
    assert rows["b"]["docker_sha"] == ""
    (verdict,) = run.events("case.finished", case="b")
    assert verdict["reason"].startswith(f"not run: the image {NOWHERE} could not be brought to every node: ")
    assert run.verdict["reason"] == "failed: b"
    last = run.stderr.partition("First failure")[2]
    assert NOWHERE in last
    assert "--image-archive" in last
