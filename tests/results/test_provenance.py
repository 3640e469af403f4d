"""Commit, data and GPUs of a row: as the nodes report them, checked, and noted where nodes differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from phalanx.controller.results.provenance import CollectedFile, architecture, columns_of

ONE, OTHER = "a" * 40, "b" * 40


def left(run_dir: Path, name: str, *texts: str) -> list[CollectedFile]:
    found = []
    for node, text in enumerate(texts):
        kept = f"results/n{node}/.phalanx/{name}"
        (run_dir / kept).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / kept).write_text(text)
        found.append(CollectedFile(f"n{node}", node, f".phalanx/{name}", kept))
    return found[::-1]


def test_the_commit_of_the_nodes_is_a_column(tmp_path: Path) -> None:
    assert columns_of(left(tmp_path, "git_commit", f"{ONE}\n", ONE), tmp_path) == ({"git_commit": ONE}, [])
    assert columns_of([], tmp_path) == ({}, [])


def test_of_nodes_that_differ_the_first_counts_and_a_note_names_the_others(tmp_path: Path) -> None:
    found, notes = columns_of(left(tmp_path, "git_commit", ONE, OTHER, ONE, OTHER), tmp_path)
    assert found == {"git_commit": ONE}
    assert notes == [
        ".phalanx/git_commit differs between nodes: that of n0 is kept, not that of n1, n3",
    ]


@pytest.mark.parametrize(
    "text", ["", "main", "A" * 40, "a" * 41, ONE + " x", "=cmd|x" + "a" * 34, "a" * 70_000]
)
def test_what_is_no_commit_is_noted_and_not_taken(tmp_path: Path, text: str) -> None:
    found, notes = columns_of(left(tmp_path, "git_commit", text), tmp_path)
    assert found == {}
    assert notes[0].startswith("n0: .phalanx/git_commit is not used: ")


def test_the_data_of_a_case_fills_its_columns(tmp_path: Path) -> None:
    text = '{"dataname": "d", "data_provider_type": "nas", "data_size": 12, "data_download_duration": 1.5}'
    found, notes = columns_of(left(tmp_path, "data.json", text, text), tmp_path)
    assert (found, notes) == (
        {"dataname": "d", "data_provider_type": "nas", "data_size": "12", "data_download_duration": "1.5"},
        [],
    )


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"data_size": NaN}', '{"data_size": 1e999}', '{"dataname": ["x"]}', '{"dataname": "a\\nb"}',
     '{"dataname": true}', '{"dataname": "' + "x" * 300 + '"}', "[" * 60_000],
)  # fmt: skip
def test_data_of_another_form_is_noted_and_not_taken(tmp_path: Path, text: str) -> None:
    found, notes = columns_of(left(tmp_path, "data.json", text), tmp_path)
    assert found == {}
    assert notes[0].startswith("n0: .phalanx/data.json is not used: ")


def test_architectures_that_agree_are_one_and_others_are_joined() -> None:
    amd = {"vendor": "amd", "model": "MI300X", "architecture": "gfx942"}
    old = {"vendor": "amd", "model": "MI250", "architecture": "gfx90a"}
    nvidia = {"vendor": "nvidia", "model": "NVIDIA A100-SXM4-40GB"}
    facts = {
        "a": {"gpus": [amd, amd]},
        "b": {"gpus": [amd]},
        "c": {"gpus": [old]},
        "d": {},
        "e": {"gpus": [nvidia]},
    }
    assert architecture(facts, ["a", "b"]) == "gfx942"
    assert architecture(facts, ["a", "c"]) == "gfx942;gfx90a"
    assert architecture(facts, ["e"]) == "NVIDIA A100-SXM4-40GB"
    assert architecture(facts, ["d", "unknown"]) == ""
    assert architecture({"a": {"gpus": [{"vendor": "amd", "model": "MI300X"}]}}, ["a"]) == ""
