"""Images and engines: where an image comes from, and what is said when it cannot be had."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.lab.archive import random_layer, tiny_image
from tests.lab.image import NAME, base_image
from tests.stories.cluster import Cluster
from tests.stories.program import Phalanx

pytestmark = pytest.mark.lab
FOUR = ("run", "--target", "slurm", "-N4")
LARGE = 96 * 2**20


def forget(cluster: Cluster, reference: str) -> None:
    for node in cluster.nodes:
        cluster.repairs.append(partial(cluster.lab.exec, node, ["docker", "rmi", "-f", reference]))


def test_an_image_that_is_nowhere_ends_the_run_with_9_and_a_next_step(phalanx: Phalanx) -> None:
    run = phalanx.run(*FOUR, "--image", "no-such-image:1", "--", "hostname", code=9)
    assert "no-such-image:1" in run.stderr
    assert "--image-archive" in run.stderr


def test_an_image_of_an_archive_reaches_every_node_and_is_the_same_there(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    archive = place / "story.tar"
    image = tiny_image(archive, name="story:1", layers=[{"story": b"once upon a time\n"}], base=base_image())
    forget(cluster, "story:1")
    run = phalanx.run(*FOUR, "--image", "story:1", "--image-archive", archive, "--", "cat", "/story")
    assert sorted(run.stdout.splitlines()) == [f"{node}: once upon a time" for node in cluster.nodes]
    assert cluster.lab.image_id("n1", "story:1") == image
    assert cluster.alike("story:1")


def test_an_image_that_one_node_has_is_brought_to_the_others(cluster: Cluster, phalanx: Phalanx) -> None:
    cluster.lab.exec("n2", ["docker", "tag", NAME, "story:2"], check=True)
    forget(cluster, "story:2")
    phalanx.run(*FOUR, "--image", "story:2", "--", "true")
    assert cluster.alike("story:2")


def test_a_disk_that_fills_while_the_image_comes_ends_the_run_with_9_and_leaves_the_node_usable(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    archive = place / "large.tar"
    tiny_image(archive, name="large:1", layers=[random_layer(LARGE, seed=1)], base=base_image())
    forget(cluster, "large:1")
    cluster.fill("n2", "150M")
    given = (*FOUR, "--image", "large:1", "--image-archive", archive, "--", "true")
    run = phalanx.run(*given, code=9)
    last = run.stderr.partition("First failure")[2]
    assert "n2" in last.splitlines()[0]
    assert "not enough room" in last
    assert not cluster.lab.image_id("n2", "large:1")
    assert not cluster.ours("n2")
    cluster.lab.unfill("n2")
    phalanx.run(*given)
    assert cluster.lab.image_id("n2", "large:1")


def test_a_node_whose_engine_is_down_ends_the_run_with_125_and_is_named(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    cluster.stop_engine("n2")
    run = phalanx.run(*FOUR, "--image", NAME, "--", "true", code=125)
    last = run.stderr.partition("First failure")[2]
    assert "n2" in last.splitlines()[0]
    assert "docker" in last.lower()
    cluster.lab.start_service("n2", "docker")
    cluster.repairs.clear()
