"""A project as people have them (tests/projects/mad_forty): what is found in it, and what tags choose."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from phalanx.controller.workflow.models import chosen, discover, locate

from tests.source import ROOT

pytestmark = pytest.mark.local  # scripts/grid has a program that makes models

PROJECT = ROOT / "tests/projects/mad_forty"
ROOT_MODELS = [
    *("echo", "matmul_fp32", "matmul_fp16", "matmul_bf16", "convolution", "tokens", "stream_copy"),
    *("batch_file", "all_gpus", "eight_gpus", "many_results", "two_metrics", "sample_rate"),
    *("new_architectures", "with_architecture", "with_data", "with_two_data", "from_repository"),
    *("short_time", "docker_options", "context_test", "with_tools", "own_context", "nvidia_only", "scanned"),
]
LAUNCHED = [
    *("launch_torchrun", "launch_deepspeed", "launch_megatron", "launch_megatron_lm", "launch_torchtitan"),
    *("launch_primus", "launch_vllm", "launch_sglang", "launch_sglang_disagg"),
    *("launch_slurm_multi", "launch_slurm_multi_disagg"),
]
GRID = ["grid/grid_small_8", "grid/grid_small_64", "grid/grid_large_8", "grid/grid_large_64"]
LANGUAGE = ["language/echo", "language/summaries"]
VISION = ["vision/resnet_like", "vision/resnet_like_deep", "vision/detector"]
#: Scripts that need what only their image has.
IN_IMAGES = {"with_tools", "own_context"}


def names(*tags: str) -> list[str]:
    return [card.name for card in chosen(PROJECT, tags).cards]


def test_every_model_is_found_in_the_order_of_the_files() -> None:
    assert [card.name for card in discover(PROJECT)] == [*ROOT_MODELS, *LAUNCHED, *GRID, *LANGUAGE, *VISION]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("echo", ["echo"]),
        ("language/echo", ["language/echo"]),
        ("smoke", ["echo", "short_time", "language/echo"]),
        ("language/smoke", ["language/echo"]),
        ("half", ["matmul_fp16", "matmul_bf16", "vision/detector"]),
        ("memory", ["stream_copy"]),
        ("launch", LAUNCHED),
        (
            "inference",
            ["tokens", "launch_vllm", "launch_sglang", "launch_sglang_disagg", "language/summaries"],
        ),
        ("vision/all", VISION),
        ("vision/half,matmul", ["vision/detector", "matmul_fp32", "matmul_fp16", "matmul_bf16"]),
        ("grid_large", GRID[2:]),
        ("grid/grid_small", GRID[:2]),
        ("vision:detector", VISION),  # vision is a tag, so this is an argument for what it takes
        ("all", [*ROOT_MODELS, *LAUNCHED, *GRID, *LANGUAGE, *VISION]),
    ],
)
def test_tags_choose(tags: str, expected: list[str]) -> None:
    assert names(tags) == expected


def test_paths_of_scopes_are_those_of_the_project() -> None:
    cards = {card.name: card for card in discover(PROJECT)}
    assert {cards[name].dockerfile for name in VISION} == {"docker/vision"}
    assert {cards[name].dockerfile for name in GRID} == {"docker/grid"}
    assert cards["language/echo"].scripts == "scripts/echo/run.sh"
    assert cards["vision/detector"].scripts == "scripts/vision/detector"


def test_made_models_are_updated_when_they_are_chosen_and_take_arguments_of_the_tag() -> None:
    found = chosen(PROJECT, ["grid/grid_small", "grid_large:warm", "grid/all"])
    assert [(card.name.removeprefix("grid/grid_"), card.args) for card in found.cards] == [
        ("small_8", "--size small --batch 8 --steps 100"),
        ("small_64", "--size small --batch 64 --steps 100"),
        ("large_8", "--size large --batch 8 --steps 20 --warm"),
        ("large_64", "--size large --batch 64 --steps 20 --warm"),
        ("large_8", "--size large --batch 8 --steps 20"),
        ("large_64", "--size large --batch 64 --steps 20"),
    ]
    assert found.notes == (
        "chosen by more than one tag: grid/grid_small_8 (grid/grid_small, grid/all), "
        "grid/grid_small_64 (grid/grid_small, grid/all); taken once",
    )


def test_each_launcher_has_a_model() -> None:
    cards = chosen(PROJECT, ["launch"]).cards
    assert {card.distributed["launcher"] for card in cards} == {
        *("torchrun", "deepspeed", "megatron", "megatron-lm", "torchtitan", "primus"),
        *("vllm", "sglang", "sglang_disagg", "slurm_multi"),
    }
    images = {card.env_vars["DOCKER_IMAGE_NAME"] for card in chosen(PROJECT, ["self_managed"]).cards}
    assert images == {"registry.example.invalid/team/serving:1"}


def test_every_field_is_known_and_every_script_is_there() -> None:
    for card in discover(PROJECT):
        assert card.warnings() == []
        locate(PROJECT, card)


def test_every_dockerfile_says_its_context_and_every_data_set_is_described() -> None:
    described = json.loads((PROJECT / "data.json").read_text())
    for card in discover(PROJECT):
        candidates = list(PROJECT.glob(f"{card.dockerfile}.*"))
        assert candidates, card.dockerfile
        for path in candidates:
            first, base, start = path.read_text().splitlines()[:3]
            assert set(ast.literal_eval(first.removeprefix("# CONTEXT "))) >= {"gpu_vendor", "guest_os"}
            assert (base.partition("=")[0], start) == ("ARG BASE_DOCKER", "FROM $BASE_DOCKER")
        assert set(filter(None, card.data.split(","))) <= set(described)


def test_every_script_ends_well_and_leaves_a_result(tmp_path: Path) -> None:
    shutil.copytree(PROJECT, tmp_path, dirs_exist_ok=True)
    for card in chosen(tmp_path, ["all"]).cards:
        if card.name in IN_IMAGES:
            continue
        model = locate(tmp_path, card)
        done = subprocess.run(
            [*model.program, *card.args.split()],
            cwd=model.directory,
            env={"PATH": "/usr/bin:/bin", **card.env_vars},
            capture_output=True,
            text=True,
            check=True,
        )
        if card.multiple_results:
            assert Path(model.directory, card.multiple_results).read_text().startswith("model,performance")
        else:
            assert "performance: " in done.stdout or "train_samples_per_second" in done.stdout
