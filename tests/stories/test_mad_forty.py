"""A project as people have them, unchanged, from its models to images, a manifest and plans."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.archive import tiny_image
from tests.lab.docker import engine_socket
from tests.lab.image import base_image
from tests.stories.cluster import Cluster
from tests.stories.program import Phalanx
from tests.stories.test_builds import forget_builds
from tests.workflow.test_mad_project import GRID, LANGUAGE, LAUNCHED, PROJECT, ROOT_MODELS, VISION

#: The system of the test's base image has no mirror to install from, and has what is to be installed.
BASE = "mad-forty-base:1"
NOTHING_TO_INSTALL = {"usr/bin/apt-get": b"#!/bin/sh\nexit 0\n"}
#: The nodes of the lab have none.
NO_GPUS = '{"gpus_per_node": 0}'
OWN_DOCKERFILE = {
    "with_architecture": "architecture.ubuntu.amd",
    "context_test": "context.none",
    "with_tools": "tools.ubuntu.amd",
    "own_context": "own_context.ubuntu.amd",
    "launch_primus": "primus.ubuntu.amd",
}
SELF_MANAGED = ["launch_slurm_multi", "launch_slurm_multi_disagg"]
NOT_FOR_AMD = "nvidia_only"


def stem(model: str) -> str:
    """The Dockerfile of a model, by its contract."""
    if model in OWN_DOCKERFILE:
        return OWN_DOCKERFILE[model]
    for models, name in ((GRID, "grid"), (VISION, "vision"), (LAUNCHED, "launch")):
        if model in models:
            return f"{name}.ubuntu.amd"
    return "base.ubuntu.amd"


MODELS = [*ROOT_MODELS, *LAUNCHED, *GRID, *LANGUAGE, *VISION]
BUILT = {
    f"ci-{model.replace('/', '_')}_{stem(model)}": model
    for model in MODELS
    if model not in (*SELF_MANAGED, NOT_FOR_AMD)
}


@pytest.fixture
def mad_forty(place: Path) -> Path:
    return Path(shutil.copytree(PROJECT, place / "mad_forty"))


@pytest.mark.local
def test_the_whole_project_is_planned_on_a_laptop(local: Phalanx, mad_forty: Path) -> None:
    nothing = {"DOCKER_HOST": "unix:///nowhere.sock"}
    build = local.run("build", "--tags", "all", "--dry-run", "--json", folder=mad_forty, env=nothing, code=2)
    plan = json.loads(build.stdout)
    assert {image["image"]: image["model"] for image in plan["builds"]} == BUILT
    assert [one["key"] for one in plan["given"]] == SELF_MANAGED
    assert [one["model"] for one in plan["unbuilt"]] == [NOT_FOR_AMD]
    given = ("run", "--tags", "all", "-N", "5", "-p", "gpu", "--dry-run")
    shown = local.run(*given, folder=mad_forty, env=nothing)
    for model in BUILT.values():
        assert f"\ncase  {model.replace('/', '_')}\n" in shown.stdout
    document = json.loads(local.run(*given, "--json", folder=mad_forty, env=nothing).stdout)
    assert [case["columns"]["model"] for case in document["cases"]] == [
        model for model in MODELS if model != NOT_FOR_AMD
    ]
    assert {case["columns"]["model"]: case["container"]["image"] for case in document["cases"]} == {
        **{model: image for image, model in BUILT.items()},
        **dict.fromkeys(SELF_MANAGED, ""),
    }
    assert not list(mad_forty.glob("*.json.*")) and not (mad_forty / "build_manifest.json").exists()
    assert not list(mad_forty.glob("*.log")) and not local.runs.exists()


@pytest.fixture
def engine(cluster: Cluster, phalanx: Phalanx, place: Path) -> Iterator[Phalanx]:
    """The program on a login node that has the engine of n1, with the base image in it."""
    archive = place / "base.tar"
    tiny_image(archive, name=BASE, layers=[NOTHING_TO_INSTALL], base=base_image())
    cluster.lab.load_image("n1", archive)
    # A path that means the engine of n1 here and each node's own there: agents are given DOCKER_HOST too.
    here = Path(f"/run/{place.name}.sock")
    here.symlink_to(engine_socket(cluster.lab.topology, "n1"))
    for node in cluster.nodes:
        cluster.lab.exec(node, ["ln", "-s", "/run/docker.sock", str(here)], check=True)
    phalanx.environ = {**phalanx.environ, "DOCKER_HOST": f"unix://{here}"}
    yield phalanx
    here.unlink()
    for node in cluster.nodes:
        forget_builds(cluster, node)
        cluster.lab.exec(node, ["sh", "-c", f"docker rmi -f {BASE}; rm {here}"])


@pytest.mark.lab
def test_the_whole_project_is_built_and_runs_from_its_manifest(
    cluster: Cluster, engine: Phalanx, mad_forty: Path
) -> None:
    context: dict[str, Any] = {"docker_build_arg": {"BASE_DOCKER": BASE}}
    given = ("build", "--tags", "all", "-c", json.dumps(context), "--jobs", "4")
    run = engine.run(*given, folder=mad_forty, code=2)
    found = json.loads((mad_forty / "build_manifest.json").read_text())
    assert {key: model["name"] for key, model in found["built_models"].items()} == {
        **BUILT,
        **{model: model for model in SELF_MANAGED},
    }, run.stderr
    assert list(found["built_images"]) == list(found["built_models"])
    assert [one["model"] for one in found["summary"]["failed_builds"]] == [NOT_FOR_AMD]
    assert len({found["built_images"][image]["image_id"] for image in BUILT}) < 12, "recipes are shared"
    for image in BUILT:
        assert cluster.lab.image_id("n1", image) == found["built_images"][image]["image_id"]
        assert (mad_forty / found["built_images"][image]["log_file"]).stat().st_size
    cards = json.loads((mad_forty / "models.json").read_text())
    echo = next(card for card in cards if card["name"] == "echo")
    assert found["built_models"]["ci-echo_base.ubuntu.amd"] == {"dockerfile": "", "args": "", **echo}
    wanted = ["echo", "language/summaries", "vision/detector", "context_test", "many_results"]
    manifest = (mad_forty / "build_manifest.json").read_bytes()
    given = ("run", "-m", "build_manifest.json", "--target", "slurm", "-N", "2", "-c", NO_GPUS)
    run = engine.run(*given, "--tags", ",".join(wanted), folder=mad_forty)
    assert [event["status"] for event in run.events("case.finished")] == ["SUCCESS"] * len(wanted)
    with (mad_forty / "perf.csv").open() as file:
        rows = list(csv.DictReader(file))
    for model in wanted:
        row = next(row for row in rows if row["model"].startswith(model))
        image = f"ci-{model.replace('/', '_')}_{stem(model)}"
        entry = found["built_images"][image]
        assert (row["docker_image"], row["docker_file"], row["status"]) == (
            image,
            entry["dockerfile"],
            "SUCCESS",
        )
        assert row["docker_sha"] == entry["image_id"]
        assert row["base_docker"] == BASE
    assert (mad_forty / "build_manifest.json").read_bytes() == manifest, "a run never writes to it"
    cluster.lab.exec("n1", ["docker", "tag", BASE, "ci-echo_base.ubuntu.amd"], check=True)
    for node in cluster.nodes[1:]:
        cluster.lab.exec(node, ["docker", "rmi", "-f", "ci-echo_base.ubuntu.amd"])
    refused = engine.run(*given, "--tags", "echo", "-w", "n[1,3]", folder=mad_forty, code=9)
    assert "as it was built (sha256:" in refused.stderr


@pytest.mark.lab
def test_models_of_a_run_are_built_first(cluster: Cluster, engine: Phalanx, mad_forty: Path) -> None:
    context = ("-c", json.dumps({"docker_build_arg": {"BASE_DOCKER": BASE}, "gpus_per_node": 0}))
    given = ("run", "--tags", "tokens,context_test", *context, "--target", "slurm", "-N", "2")
    run = engine.run(*given, folder=mad_forty)
    assert list(json.loads((mad_forty / "build_manifest.json").read_text())["built_images"]) == [
        "ci-tokens_base.ubuntu.amd",
        "ci-context_test_context.none",
    ]
    assert [event["status"] for event in run.events("case.finished")] == ["SUCCESS", "SUCCESS"]
    broken = engine.run("run", "--tags", "tokens,nvidia_only", *context, "-N", "1", folder=mad_forty, code=2)
    assert "no Dockerfile fits the context" in broken.stderr and "nothing was run" in broken.stderr
    broken = engine.run(*given, "--registry", "registry.invalid", folder=mad_forty, code=2)
    assert "not every image was built and pushed" in broken.stderr
