"""What a build leaves in the manifest, and what is read of one: ours and madengine's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.builds.make import make_build_plan
from phalanx.controller.builds.manifest import Built, manifest_document, summary, write_json
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.manifest import parse_manifest, read_manifest

from tests.builds.making import AMD, card, inputs, project

ID = "sha256:" + "a" * 64
#: As madengine 2 writes it, restated from its contract.
THEIRS: dict[str, Any] = {
    "built_images": {
        "ci-dummy_dummy.ubuntu.amd": {
            "model": "dummy",
            "docker_image": "ci-dummy_dummy.ubuntu.amd",
            "dockerfile": "docker/dummy.ubuntu.amd.Dockerfile",
            "base_docker": "rocm/pytorch",
            "docker_sha": "sha256:1",
            "build_duration": 12.5,
            "build_command": "docker build ...",
            "log_file": "dummy_dummy.ubuntu.amd.build.live.log",
            "gpu_vendor": "AMD",
            "registry_image": "r:5000/ci-dummy_dummy.ubuntu.amd",
        },
        "m": {
            "image_name": "own:1",
            "docker_image": "own:1",
            "local_image": True,
            "dockerfile": "",
            "prebuilt": True,
        },
        "c": {"docker_image": "r/c:1", "local_image": "ci-c_c", "built_on_compute": True},
        "alone": {"docker_image": "x"},
    },
    "built_models": {
        "ci-dummy_dummy.ubuntu.amd": {"name": "dummy", "scripts": "run.sh", "args": "--a 1", "new_field": 1},
        "m": {
            "name": "m",
            "image": "own:1",
            "docker_image": "own:1",
            "scripts": "run.sh",
            "timeout": -1,
            "prebuilt": True,
        },
        "c": {"name": "c", "scripts": "run.sh"},
        "lost": {"name": "lost", "scripts": "run.sh", "args": ""},
    },
    "context": {
        "docker_env_vars": {"A": "1"},
        "docker_mounts": {},
        "docker_gpus": "",
        "gpu_vendor": "AMD",
        "guest_os": "UBUNTU",
    },
    "credentials_required": [],
    "summary": {"successful_builds": [], "failed_builds": [{"model": "bad", "error": "x"}]},
    "deployment_config": {
        "target": "slurm",
        "slurm": {"nodes": 2},
        "env_vars": {},
        "debug": False,
        "vllm": {},
    },
}


def outcomes(folder: Path, **more: Any) -> tuple[Any, list[Built]]:
    files = {"docker/dummy.Dockerfile": AMD + "ARG BASE_DOCKER=b:1\nFROM $BASE_DOCKER\nARG API_KEY\n"}
    cards = [card(), card("two", owner="x", extra={"kept": [1]}), card("bad")]
    plan, _ = make_build_plan(inputs(project(folder, cards, files), **more))
    good = [
        Built(build, ID, 1.25, "sha256:b", "docker build .")
        if build.model != "bad"
        else Built(build, error="exit 1", command="docker build .")
        for build in plan.builds
    ]
    return plan, good


def test_the_form_is_madengines(tmp_path: Path) -> None:
    plan, built = outcomes(tmp_path)
    document = manifest_document(plan, built, 3.0)
    assert (
        set(document["built_images"]) == set(document["built_models"]) == {"ci-dummy_dummy", "ci-two_dummy"}
    )
    assert document["built_images"]["ci-dummy_dummy"] == {
        "model": "dummy",
        "docker_image": "ci-dummy_dummy",
        "image_id": ID,
        "dockerfile": "docker/dummy.Dockerfile",
        "base_docker": "b:1",
        "docker_sha": "sha256:b",
        "build_duration": 1.25,
        "build_command": "docker build .",
        "log_file": "dummy_dummy.build.live.log",
        "gpu_vendor": "AMD",
    }
    assert document["built_models"]["ci-two_dummy"] == card("two", owner="x", extra={"kept": [1]})
    assert document["context"] == {
        "docker_env_vars": {},
        "docker_mounts": {},
        "docker_build_arg": {},
        "gpu_vendor": "AMD",
        "guest_os": "UBUNTU",
        "docker_gpus": "",
    }
    assert document["deployment_config"] == {"target": "local", "env_vars": {}, "debug": False}
    assert document["summary"]["failed_builds"] == [
        {"model": "bad", "image": "ci-bad_dummy", "error": "exit 1", "log_file": "bad_dummy.build.live.log"}
    ]
    assert document["schema"] == 1


def test_what_was_said_of_the_context_is_kept_without_secrets(tmp_path: Path) -> None:
    said = {
        "gpu_vendor": "amd",
        "docker_env_vars": {"A": "1", "HF_TOKEN": "canary"},
        "docker_build_arg": {"API_KEY": "canary"},
        "env_vars": {"B": "2", "MIOPEN_USER_DB_PATH": "/x", "MY_SECRET": "canary"},
        "tools": [{"name": "rocprof"}],
        "slurm": {"nodes": 2, "partition": "gpu"},
        "distributed": {"launcher": "torchrun"},
        "debug": True,
    }
    plan, built = outcomes(tmp_path, context=said)
    document = manifest_document(plan, built, 3.0)
    assert document["context"]["docker_env_vars"] == {"A": "1"}
    assert document["context"]["docker_build_arg"] == {}
    assert document["context"]["tools"] == [{"name": "rocprof"}]
    assert document["deployment_config"] == {
        "target": "slurm",
        "slurm": {"nodes": 2, "partition": "gpu"},
        "distributed": {"launcher": "torchrun"},
        "env_vars": {"B": "2"},
        "debug": True,
    }
    assert document["secrets_required"] == ["HF_TOKEN", "MY_SECRET"]
    assert document["context_assumed"] == ["guest_os"]
    assert "canary" not in json.dumps(document)


def test_pushes_that_failed_are_no_successes(tmp_path: Path) -> None:
    plan, built = outcomes(tmp_path, registry="r:5000")
    broken = [Built(built[0].build, ID, push_error="denied"), *built[1:]]
    document = manifest_document(plan, broken, 3.0)
    first, second = document["built_images"]["ci-dummy_dummy"], document["built_images"]["ci-two_dummy"]
    assert (first.get("registry_image"), first["push_error"], first["registry"]) == (None, "denied", "r:5000")
    assert second["registry_image"] == "r:5000/ci-two_dummy"
    assert document["built_models"]["ci-two_dummy"]["env_vars"] == {
        "DOCKER_IMAGE_NAME": "r:5000/ci-two_dummy"
    }
    assert "env_vars" not in document["built_models"]["ci-dummy_dummy"]
    said = summary(plan, broken, 3.0)
    assert said["successful_pushes"] == ["r:5000/ci-two_dummy"]
    assert said["failed_pushes"][0]["error"] == "denied"
    assert document["push_failures"] == [{"image": "ci-dummy_dummy", "error": "denied"}]


def test_what_we_write_we_read(tmp_path: Path) -> None:
    plan, built = outcomes(tmp_path, context={"docker_env_vars": {"A": "1", "HF_TOKEN": "x"}})
    path = tmp_path / "m.json"
    write_json(path, manifest_document(plan, built, 3.0), "m.json")
    found = read_manifest(path)
    assert [(entry.key, entry.reference, entry.image_id) for entry in found.entries] == [
        ("ci-dummy_dummy", "ci-dummy_dummy", ID),
        ("ci-two_dummy", "ci-two_dummy", ID),
    ]
    assert found.context == {"docker_env_vars": {"A": "1"}, "debug": False}, (
        "AMD and UBUNTU are nobody's words"
    )
    assert found.secrets_required == ("HF_TOKEN",)
    assert found.warnings == (f"{path}: bad was not built and is not run",)
    assert found.entries[0].columns == {
        "docker_file": "docker/dummy.Dockerfile",
        "base_docker": "b:1",
        "docker_sha": "sha256:b",
        "build_duration": "1.25",
    }


def test_manifests_of_madengine_are_read() -> None:
    found = parse_manifest(THEIRS, "m.json")
    assert [(entry.key, entry.reference) for entry in found.entries] == [
        ("ci-dummy_dummy.ubuntu.amd", "r:5000/ci-dummy_dummy.ubuntu.amd"),
        ("m", "own:1"),
        ("c", "r/c:1"),
    ]
    first, second, third = (entry.card for entry in found.entries)
    assert (first.name, first.args, first.unknown) == ("dummy", "--a 1", ("new_field",))
    assert (second.timeout, second.unknown) == (0, ())
    assert third.args == ""
    assert found.context == {
        "docker_env_vars": {"A": "1"},
        "gpu_vendor": "AMD",
        "guest_os": "UBUNTU",
        "slurm": {"nodes": 2},
        "debug": False,
    }
    assert found.warnings == (
        "m.json: built_images.alone: no model has it, it is not run",
        "m.json: built_models.lost: there is no image for it, it is not run",
        "m.json: bad was not built and is not run",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"built_images": None}, "built_images: it is required and missing"),
        ({"built_images": []}, "built_images: expected an object, found a list"),
        ({"built_models": {"m": 1}}, "built_models.m: expected an object, found the number 1"),
        ({"built_images": {}}, "it has no image with a model"),
        ({"context": []}, "context: expected an object, found a list"),
        ({"schema": 2}, "its schema is 2, this version reads 1"),
        ({"secrets_required": "X"}, "secrets_required: expected a list of names"),
        ({"built_models": {"m": {"name": 1}}}, r"built_models.m: \[0\]: name: expected text"),
    ],
)
def test_a_manifest_that_cannot_be_read_names_the_key(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=rf"^cannot (read|run) m\.json.*{words}"):
        parse_manifest({**THEIRS, **change}, "m.json")


@pytest.mark.parametrize("summary", [{"failed_builds": 3}, {"failed_builds": [1]}, [], "x", None])
def test_a_summary_of_any_shape_is_read_over(summary: Any) -> None:
    assert len(parse_manifest({**THEIRS, "summary": summary}, "m.json").entries) == 3


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_json(path, {"a": 1}, "m.json")
    assert json.loads(path.read_text()) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    write_json(path, {"half": "\ud800", "ü": 1}, "m.json")
    assert json.loads(path.read_bytes()) == {"half": "\ud800", "ü": 1}
    write_json(path, {"a": 1}, "m.json")
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"a": float("nan")}, "m.json")
    with pytest.raises(InputError, match=r"cannot write gone/m\.json: No such file"):
        write_json(tmp_path / "gone" / "m.json", {}, "gone/m.json")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.json"]


def test_a_manifest_that_is_not_there_yet_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read m\.json: no such file; phalanx build --tags"):
        read_manifest(tmp_path / "m.json", "m.json")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
