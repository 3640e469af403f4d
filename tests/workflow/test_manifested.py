"""Which models of a manifest are run, in which images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.errors import DiscoveryError, InputError
from phalanx.controller.workflow.manifest import Manifest, parse_manifest
from phalanx.controller.workflow.manifested import models_of
from phalanx.controller.workflow.models import SelectedModel


def manifest(*images: dict[str, Any]) -> Manifest:
    """A manifest whose images are given by their differences; each has a model of its name."""
    built_images, built_models = {}, {}
    for image in images:
        key = image.pop("key", f"ci-{image['model']}")
        model = {"name": image["model"], "scripts": "run.sh", "args": "", "tags": image.pop("tags", [])}
        built_images[key], built_models[key] = {"docker_image": key, **image}, model
    return parse_manifest({"built_images": built_images, "built_models": built_models}, "m.json")


def chosen(
    found: Manifest, place: Path, *tags: str, context: dict[str, Any] | None = None
) -> tuple[tuple[SelectedModel, ...], tuple[str, ...]]:
    (place / "run.sh").write_text("")
    return models_of(found, tags, load_context(json.dumps(context or {})), [place])


def test_every_model_with_its_image_and_what_a_row_says_of_it(tmp_path: Path) -> None:
    found = manifest(
        {"model": "a", "image_id": "sha256:1", "dockerfile": "docker/a.Dockerfile"}, {"model": "b"}
    )
    models, notes = chosen(found, tmp_path)
    assert [(model.card.name, model.image and model.image.reference) for model in models] == [
        ("a", "ci-a"),
        ("b", "ci-b"),
    ]
    first = models[0]
    assert first.image is not None
    assert first.image.origin == "m.json: built_images.ci-a"
    assert (first.image.image_id, first.image.columns["docker_file"]) == ("sha256:1", "docker/a.Dockerfile")
    assert (first.directory, first.program) == (str(tmp_path), ("bash", "run.sh"))
    assert notes == ()


def test_tags_choose_among_the_models_of_the_manifest(tmp_path: Path) -> None:
    found = manifest({"model": "a", "tags": ["x"]}, {"model": "b"}, {"model": "c", "tags": ["x"]})
    assert [model.card.name for model in chosen(found, tmp_path, "x")[0]] == ["a", "c"]
    assert [model.card.name for model in chosen(found, tmp_path, "b")[0]] == ["b"]
    with pytest.raises(DiscoveryError, match="cannot find a model for tag 'd'"):
        chosen(found, tmp_path, "d")


def test_images_for_another_vendor_are_left_out_when_a_vendor_is_said(tmp_path: Path) -> None:
    found = manifest(
        {"model": "a", "gpu_vendor": "AMD"}, {"model": "b", "gpu_vendor": "NVIDIA"}, {"model": "c"}
    )
    assert len(chosen(found, tmp_path)[0]) == 3
    models, notes = chosen(found, tmp_path, context={"gpu_vendor": "nvidia"})
    assert [model.card.name for model in models] == ["b", "c"]
    assert notes == ("m.json: ci-a is for AMD, not NVIDIA, and is not run",)
    with pytest.raises(InputError, match=r"no image fits: m\.json: ci-a is for AMD, not NVIDIA"):
        chosen(manifest({"model": "a", "gpu_vendor": "AMD"}), tmp_path, context={"gpu_vendor": "NVIDIA"})


def test_of_several_architectures_one_is_meant(tmp_path: Path) -> None:
    images = [
        {"model": "a", "key": f"ci-a_{arch}", "gpu_architecture": arch} for arch in ("gfx90a", "gfx942")
    ]
    with pytest.raises(InputError, match=r"a has images for gfx90a, gfx942; say what nodes have: -c"):
        chosen(manifest(*(dict(image) for image in images)), tmp_path)
    other = {"model": "b"}
    alone = manifest(*(dict(image) for image in images), other)
    assert [model.card.name for model in chosen(alone, tmp_path, "b")[0]] == ["b"], "the others are not run"
    said = {"docker_env_vars": {"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx942"}}
    models, notes = chosen(manifest(*images), tmp_path, context=said)
    assert [model.image and model.image.reference for model in models] == ["ci-a_gfx942"]
    assert notes == ("m.json: ci-a_gfx90a is for gfx90a, not gfx942: not run",)


def test_a_script_with_a_name_that_no_file_system_takes_is_refused_by_name(tmp_path: Path) -> None:
    found = manifest({"model": "a"})
    card = replace(found.entries[0].card, scripts="x" * 4000)
    long = replace(found, entries=(replace(found.entries[0], card=card),))
    with pytest.raises(InputError, match=r"cannot use m\.json: .*there is no file"):
        models_of(long, (), load_context(), [tmp_path])


def test_scripts_are_looked_for_here_and_beside_the_manifest(tmp_path: Path) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    here.mkdir()
    beside.mkdir()
    (beside / "run.sh").write_text("")
    models, _ = models_of(manifest({"model": "a"}), (), load_context(), [here, beside])
    assert models[0].directory == str(beside)
    (beside / "run.sh").unlink()
    with pytest.raises(InputError, match=f"there is no file run.sh in {here}"):
        models_of(manifest({"model": "a"}), (), load_context(), [here, beside])
