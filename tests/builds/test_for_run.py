"""The build that comes before a run: which models need one, and that none is lost on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.builds.for_run import built_models, needs_build, planned_models
from phalanx.controller.builds.make import make_build_plan
from phalanx.controller.builds.manifest import Built, manifest_document
from phalanx.controller.workflow.context import Context
from phalanx.controller.workflow.manifest import parse_manifest
from phalanx.controller.workflow.models import SelectedModel, locate

from tests.builds.making import AMD, NVIDIA, card, inputs, project

ID = "sha256:" + "a" * 64


def prepared(folder: Path) -> tuple[list[SelectedModel], list[SelectedModel], Any]:
    files = {
        "docker/dummy.one.Dockerfile": AMD + "FROM a\n",
        "docker/dummy.two.Dockerfile": AMD + "FROM b\n",
        "docker/nv.Dockerfile": NVIDIA + "FROM a\n",
    }
    cards = [
        card("own", env_vars={"DOCKER_IMAGE_NAME": "own:1"}),
        card("twin"),
        card("nv", dockerfile="docker/nv"),
        card("twin"),
        card("bare", dockerfile=""),
    ]
    made = inputs(project(folder, cards, files))
    models = [locate(folder, one) for one in made.cards]
    wanting = [model for model in models if needs_build(model, made.context, image="", runtime="")]
    plan, _ = make_build_plan(replace(made, cards=tuple(model.card for model in wanting)))
    return models, wanting, plan


def test_models_stand_in_their_order_each_in_every_image_that_is_built_for_it(tmp_path: Path) -> None:
    models, wanting, plan = prepared(tmp_path)
    assert [model.card.name for model in wanting] == ["twin", "nv", "twin"]
    found = planned_models(models, wanting, plan)
    assert [(model.card.name, model.image and model.image.reference) for model in found] == [
        ("own", None),
        ("twin", "ci-twin_dummy.one"),
        ("twin", "ci-twin_dummy.two"),
        ("twin", "ci-twin_dummy.one_2"),
        ("twin", "ci-twin_dummy.two_2"),
        ("bare", None),
    ]
    assert [one.model for one in plan.unbuilt] == ["nv"]


def test_after_the_build_the_same_models_have_what_was_built(tmp_path: Path) -> None:
    models, wanting, plan = prepared(tmp_path)
    found = planned_models(models, wanting, plan)
    outcomes = [
        Built(build, f"{ID[:-1]}{number}", base_digest="d") for number, build in enumerate(plan.builds)
    ]
    made = parse_manifest(manifest_document(plan, outcomes, 1.0), "m.json")
    built = built_models(found, made)
    assert [model.card for model in built] == [model.card for model in found]
    assert [model.image.image_id[-1] for model in built if model.image] == ["0", "1", "2", "3"]
    assert built[1].image is not None and built[1].image.columns["docker_sha"] == "d"
    lacking = parse_manifest(manifest_document(plan, outcomes[:-1], 1.0), "m.json")
    with pytest.raises(LookupError):
        built_models(found, lacking)


@pytest.mark.parametrize(
    ("said", "needed"),
    [
        ({}, True),
        ({"image": "x"}, False),
        ({"runtime": "process"}, False),
        ({"runtime": "docker"}, True),
        ({"context": Context(image="x")}, False),
        ({"context": Context(docker_env={"MAD_CONTAINER_IMAGE": "x"})}, False),
    ],
)
def test_what_needs_a_build(tmp_path: Path, said: dict[str, Any], needed: bool) -> None:
    folder = project(tmp_path, [card()], {})
    (model,) = [locate(folder, one) for one in inputs(folder, dockerfiles={}).cards]
    given = {"context": Context(), "image": "", "runtime": "", **said}
    assert needs_build(model, given.pop("context"), **given) is needed
