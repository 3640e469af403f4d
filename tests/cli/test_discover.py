"""``phalanx discover`` as a program: what it prints where, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .driver import Phalanx, Terminal

pytestmark = pytest.mark.local

CARDS: list[dict[str, Any]] = [
    {"name": "one", "scripts": "scripts/one/run.sh", "dockerfile": "docker/one", "tags": ["x", "y"]},
    {
        "name": "two",
        "scripts": "scripts/two",
        "tags": "y",
        "n_gpus": -1,
        "timeout": 60,
        "args": "-v",
        "distributed": {"launcher": "torchrun"},
        "deprecated": True,
        "log_error_patterns": ["NaN loss"],
        "of_another_tool": {"a": 1},
    },
]


@pytest.fixture
def project(phalanx: Phalanx) -> Path:
    (phalanx.place / "models.json").write_text(json.dumps(CARDS))
    return phalanx.place


def test_models_are_listed_in_columns_that_can_be_counted(phalanx: Phalanx, project: Path) -> None:
    done = phalanx("discover")
    assert done.code == 0
    assert [line.split() for line in done.out.splitlines()] == [
        ["NAME", "TAGS", "GPUS", "DOCKERFILE", "SCRIPTS", "SOURCE"],
        ["one", "x,y", "-", "docker/one", "scripts/one/run.sh", "models.json"],
        ["two", "y", "-1", "-", "scripts/two", "models.json"],
    ]
    more = phalanx("discover", "--verbose", "--tags", "two").out.splitlines()
    assert more[0].split()[6:] == ["LAUNCHER", "TIMEOUT", "DATA", "ARGS"]
    assert more[1].split()[6:] == ["torchrun", "60", "-", "-v"]


def test_tags_choose_and_notes_go_to_standard_error(phalanx: Phalanx, project: Path) -> None:
    done = phalanx("discover", "--tags", "y,one:fast", "--tags", "two")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == ["NAME", "one", "two", "one"]
    assert "phalanx: chosen by more than one tag: two (y, two); taken once\n" in done.err
    assert "two): of_another_tool is not a known field and is not used" in done.err


def test_the_document_has_every_field_of_a_card_and_its_place(phalanx: Phalanx, project: Path) -> None:
    one, two = json.loads(phalanx("discover", "--json").out)
    assert (one["name"], one["tags"], one["timeout"]) == ("one", ["x", "y"], 0)
    assert (two["source"], two["index"], two["where"]) == ("models.json", 1, "models.json: [1] (two)")
    assert (two["deprecated"], two["of_another_tool"], two["unknown"]) == (
        True,
        {"a": 1},
        ["of_another_tool"],
    )
    assert two["distributed"] == {"launcher": "torchrun"}
    assert two["log_error_patterns"] == ["NaN loss"]
    (chosen,) = json.loads(phalanx("discover", "--json", "--tags", "two:in=1").out)
    assert chosen["args"] == "-v --in 1"


def test_the_project_is_the_one_that_model_dir_names_and_is_read_in_its_place(
    phalanx: Phalanx, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "models.json").write_text(json.dumps(CARDS))
    done = phalanx("discover", env={"MODEL_DIR": str(elsewhere)})
    assert done.out.splitlines()[1].startswith("one ")
    assert [path.name for path in phalanx.place.iterdir()] == ["elsewhere"]


@pytest.mark.parametrize(
    ("models", "options", "code", "words"),
    [
        (None, [], 1, "cannot find models: "),
        (
            CARDS,
            ["--tags", "tow"],
            1,
            "cannot find a model for tag 'tow' among 2 models; did you mean 'two'?",
        ),
        (CARDS, ["--tags", ","], 1, "cannot choose models: no tag is given"),
        ({}, [], 4, "cannot read models.json: expected a list of models, found an object"),
        (CARDS, ["-t", "one"], 4, "-t"),
    ],
)
def test_it_ends_with_madengines_codes(
    phalanx: Phalanx, models: Any, options: list[str], code: int, words: str
) -> None:
    if models is not None:
        (phalanx.place / "models.json").write_text(json.dumps(models))
    done = phalanx("discover", *options)
    assert (done.code, done.out) == (code, "")
    assert words in done.err


def test_two_models_of_one_name_are_told_once_with_both_places(phalanx: Phalanx) -> None:
    (phalanx.place / "models.json").write_text(json.dumps([*CARDS, CARDS[0]]))
    for options in ([], ["--tags", "one,x"]):
        done = phalanx("discover", *options)
        assert done.code == 0
        assert done.err.count("2 models have the name one: models.json: [0], models.json: [2]") == 1


def test_a_project_without_models_is_no_error(phalanx: Phalanx) -> None:
    (phalanx.place / "models.json").write_text("[]")
    done = phalanx("discover")
    assert (done.code, done.out) == (0, "")
    assert "no models" in done.err
    assert json.loads(phalanx("discover", "--json").out) == []


def test_a_program_that_fails_is_told_without_a_traceback_of_ours(phalanx: Phalanx, project: Path) -> None:
    (project / "scripts/dyn").mkdir(parents=True)
    (project / "scripts/dyn/get_models_json.py").write_text("def list_models():\n    raise OSError('no')\n")
    done = phalanx("discover")
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith(
        "phalanx: cannot read scripts/dyn/get_models_json.py: running it raised OSError: no; mend it"
    )
    assert "phalanx-bug" not in done.err
    assert "/phalanx/controller/" not in done.err


def test_on_a_terminal_long_cells_go_on_below_and_many_tags_are_counted(phalanx: Phalanx) -> None:
    cards = [
        {"name": "a" * 60, "scripts": "s/run.sh", "tags": [f"tag{number}" for number in range(9)]},
        {"name": "[bold]b\x1b[2J", "scripts": "s/run.sh"},
    ]
    (phalanx.place / "models.json").write_text(json.dumps(cards))
    with Terminal(phalanx, "discover") as terminal:
        assert terminal.ended() == 0
    lines = terminal.output.decode().splitlines()
    assert all(len(plain(line)) <= 120 for line in lines)
    assert ",+3" in "".join(lines)
    assert "[bold]b" in "".join(lines)
    assert b"\x1b[2J" not in terminal.output
    with Terminal(phalanx, "discover", "--color", "never") as terminal:
        assert terminal.ended() == 0
    assert b"\x1b" not in terminal.output


def plain(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_a_run_tells_of_a_model_that_two_tags_choose(phalanx: Phalanx, project: Path) -> None:
    for name in ("one/run.sh", "two/run.sh"):
        path = project / "scripts" / name
        path.parent.mkdir(parents=True)
        path.write_text("echo\n")
    done = phalanx("run", "--tags", "x,one", "--dry-run", "--json", "--runtime", "process")
    assert done.code == 0, done.err
    assert [case["name"] for case in json.loads(done.out)["cases"]] == ["one"]
    assert "phalanx: chosen by more than one tag: one (x, one); taken once\n" in done.err
