"""The file that a model's arguments name with --config: found in the project, bounded, matched to rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.results.configs import Config, ConfigError, read_config


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "proj" / "scripts" / "deep" / "m").mkdir(parents=True)
    return tmp_path / "proj"


def read(project: Path, said: str) -> Config:
    return read_config(said, str(project / "scripts" / "deep" / "m"), str(project))


@pytest.mark.parametrize(
    "place",
    [
        "scripts/deep/m",
        "scripts",
        "scripts/MAD",
        "scripts/MAD-private",
        "scripts/MAD-internal",
        ".",
        "scripts/deep",
    ],
)
def test_a_name_is_tried_where_madengine_tries_it(project: Path, place: str) -> None:
    folder = project / place / "configs"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text('{"here": true}')
    assert read(project, "configs/a.json").value == {"here": True}


def test_the_folder_of_the_script_goes_first(project: Path) -> None:
    (project / "a.json").write_text("1")
    (project / "scripts" / "deep" / "m" / "a.json").write_text("2")
    assert read(project, "a.json").value == 2


def test_a_table_is_a_list_of_rows_and_yaml_and_json_are_as_they_are(project: Path) -> None:
    (project / "a.csv").write_text(" batch , tp\n8,1\n16,2\n")
    (project / "a.yml").write_text("batch: 8\nwhen: 2025-01-01\nodd: [.nan, .inf, 1.5]\n1: one\n")
    (project / "a.json").write_text('{"x": NaN, "y": [1e999]}')
    assert read(project, "a.csv").value == [{"batch": "8", "tp": "1"}, {"batch": "16", "tp": "2"}]
    assert read(project, "a.yml").value == {
        "batch": 8,
        "when": "2025-01-01",
        "odd": [None, None, 1.5],
        "1": "one",
    }
    assert read(project, "a.json").value == {"x": None, "y": [None]}
    json.dumps(read(project, "a.yml").value, allow_nan=False)


def test_secrets_of_a_configuration_are_not_recorded(project: Path) -> None:
    (project / "a.yaml").write_text("hub: {api_key: abc, HF_TOKEN: '', max_tokens: 5}\n")
    (project / "a.csv").write_text("api_key,tp\nabc,1\n")
    assert read(project, "a.yaml").value == {"hub": {"api_key": "***", "HF_TOKEN": "", "max_tokens": 5}}
    assert read(project, "a.csv").value == [{"api_key": "***", "tp": "1"}]


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(c + 1)}: &{chr(c + 1)} [{', '.join([f'*{chr(c)}'] * 10)}]\n" for c in range(97, 107)
)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", "it is not readable as json"),
        ("a.yaml", "a: [", "it is not readable as yaml"),
        ("a.yaml", "!!python/object/apply:os.system [id]", "it is not readable as yaml"),
        ("a.yaml", "a: &x [*x]", "nested deeper than 32"),
        ("a.yaml", LAUGHS, "more than 20000 values"),
        ("a.yaml", "a: 0x" + "f" * 1000, "too large"),
        ("a.json", "[" * 50_000, "it is not readable as json"),
        ("a.csv", "a,a\n", "twice"),
        ("a.toml", "x = 1", "neither .csv, .json, .yaml nor .yml"),
        ("a.json", " " * 300_000, "larger than 256 KiB"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(project: Path, name: str, content: str, words: str) -> None:
    (project / name).write_text(content)
    with pytest.raises(ConfigError, match=words):
        read(project, name)


def test_nothing_outside_the_project_is_read(project: Path) -> None:
    outside = project.parent / "secret.json"
    outside.write_text("{}")
    (project / "link.json").symlink_to(outside)
    for said in ("../secret.json", str(outside), "link.json", "../../../../secret.json"):
        with pytest.raises(ConfigError, match="outside the project"):
            read(project, said)
    with pytest.raises(ConfigError, match="no such file"):
        read(project, "none.json")
    with pytest.raises(ConfigError, match="NUL"):
        read(project, "a\0b.json")


ROWS: list[dict[str, Any]] = [
    {"batch": "8", "tp": "1", "note": "small"},
    {"batch": "16", "tp": "1", "note": "large"},
    {"batch": "16", "tp": "2", "note": "wide"},
]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"batch": "8", "tp": "1"}, ROWS[0]),
        ({"batch": "8.0", "tp": " 1"}, ROWS[0]),
        ({"batch": "16", "tp": "2", "performance": "1"}, ROWS[2]),
        ({"batch": "16"}, ROWS[1:]),
        ({"batch": "32", "tp": "1"}, None),
        ({"other": "1"}, ROWS),
    ],
)
def test_a_result_gets_the_rows_that_agree_with_it_in_every_column_that_both_have(
    row: dict[str, str], expected: Any
) -> None:
    assert Config(ROWS, table=True).of(row) == expected


def test_what_is_no_table_belongs_to_every_row() -> None:
    assert Config({"batch": 8}).of({"batch": "16"}) == {"batch": 8}
    assert Config().of({"batch": "16"}) is None
