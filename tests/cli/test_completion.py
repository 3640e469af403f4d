"""Completion as shells ask for it, and that neither it nor ``--help`` imports what takes long."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from phalanx.controller.cli.main import VERBS

from .driver import REPOSITORY, Phalanx

pytestmark = pytest.mark.local

#: Modules that take longer to import than a person waits for a key: schemas, loops, screens, the protocol.
HEAVY = ("pydantic", "aiohttp", "aiodocker", "asyncio", "rich", "jinja2", "cryptography", "uvloop", "msgpack")
HEAVY_OF_OURS = ("phalanx.protocol.messages", "phalanx.controller.fleet", "phalanx.controller.plan")


def completed(phalanx: Phalanx, *words: str, shell: str = "bash") -> list[str]:
    """What is offered for the last of these words."""
    env = {
        "_PHALANX_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(("phalanx", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = phalanx(env=env)
    assert (done.code, done.err) == (0, "")
    return [line.partition(",")[2] for line in done.out.splitlines() if line]


@pytest.fixture
def project(phalanx: Phalanx) -> Path:
    """A project with a listed scope, one that a program makes, and one whose list is broken."""
    cards = [
        {"name": "bert", "tags": ["train", "base"]},
        {"name": "gpt", "tags": "train, gpt:x"},
        7,
        {},
        {"name": "x", "tags": 3},
    ]
    (phalanx.place / "models.json").write_text(json.dumps(cards))
    for scope, name, text in (
        ("listed", "models.json", '[{"name": "m", "tags": [1, "small"]}]'),
        ("made", "get_models_json.py", "open('run', 'w')\n"),
        ("broken", "models.json", "[{"),
    ):
        (phalanx.place / "scripts" / scope).mkdir(parents=True)
        (phalanx.place / "scripts" / scope / name).write_text(text)
    return phalanx.place


def test_verbs_are_completed_in_their_order(phalanx: Phalanx) -> None:
    assert completed(phalanx, "") == list(VERBS)
    assert completed(phalanx, "d") == ["discover", "database", "doctor"]
    assert completed(phalanx, "image", "p") == ["prune"]


def test_options_of_each_verb_are_completed(phalanx: Phalanx) -> None:
    assert completed(phalanx, "run", "--ta") == ["--tags", "--target-archs", "--target"]
    assert completed(phalanx, "run", "--target", "") == ["local", "slurm"]
    for verb in VERBS:
        assert "--help" in completed(phalanx, verb, "--")


@pytest.mark.parametrize("verb", ["run", "discover"])
def test_tags_and_names_are_completed_without_running_anything(
    phalanx: Phalanx, project: Path, verb: str
) -> None:
    everything = ["bert", "gpt", "x", "listed/m", "made/all", "train", "base", "gpt:x", "small", "all"]
    assert completed(phalanx, verb, "--tags", "") == everything
    assert completed(phalanx, verb, "--tags", "b") == ["bert", "base"]
    assert not (project / "run").exists()


def test_the_last_of_the_tags_that_commas_divide_is_completed(phalanx: Phalanx, project: Path) -> None:
    assert completed(phalanx, "run", "--tags", "x,tr") == ["x,train"]
    assert completed(phalanx, "run", "--tags", "x,listed/") == ["x,listed/m"]


def test_where_there_is_no_project_nothing_is_said(phalanx: Phalanx) -> None:
    assert completed(phalanx, "run", "--tags", "") == []


def test_tags_are_those_of_model_dir(
    phalanx: Phalanx, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = project.parent / "moved"
    shutil.copytree(project, moved)
    (project / "models.json").unlink()
    env = {
        "_PHALANX_COMPLETE": "bash_complete",
        "COMP_WORDS": "phalanx discover --tags be",
        "COMP_CWORD": "3",
        "MODEL_DIR": str(moved),
    }
    assert phalanx(env=env).out == "plain,bert\n"


@pytest.mark.parametrize("verb", ["status", "logs", "wait", "cancel", "nodes"])
def test_runs_are_completed_newest_first(phalanx: Phalanx, verb: str) -> None:
    assert completed(phalanx, verb, "") == ["@latest", "@failed"]
    for run in ("20261122-020124-demo-7f3a", "20261123-020125-demo-0001", "no-run"):
        (phalanx.runs / run).mkdir(parents=True)
    runs = ["20261123-020125-demo-0001", "20261122-020124-demo-7f3a"]
    assert completed(phalanx, verb, "") == ["@latest", "@failed", *runs]
    assert completed(phalanx, verb, "20261122") == runs[1:]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_the_command_in_the_way_that_is_answered(phalanx: Phalanx, shell: str) -> None:
    done = phalanx("completion", shell)
    assert done.code == 0
    assert f"_PHALANX_COMPLETE={shell}_complete" in done.out
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.out.encode(), capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, b"")


def test_bash_completes_with_the_script(phalanx: Phalanx, project: Path) -> None:
    """The whole way: bash reads the script, its function asks the command, the answer is in COMPREPLY."""
    bin_dir = phalanx.place / "bin"
    bin_dir.mkdir()
    (bin_dir / "phalanx").write_text(f'#!/bin/sh\nexec {sys.executable} -m phalanx.controller.cli "$@"\n')
    (bin_dir / "phalanx").chmod(0o755)
    program = (
        f"{phalanx('completion', 'bash').out}\n"
        "COMP_WORDS=(phalanx run --tags bert,ba); COMP_CWORD=3; COMPREPLY=()\n"
        "_phalanx_completion phalanx\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environ = phalanx.environ()
    environ["PATH"] = f"{bin_dir}:{environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", program], cwd=project, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "bert,base\n"


def imported(phalanx: Phalanx, env: dict[str, str], *words: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    program = (
        "import sys\n"
        "from phalanx.controller.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    sys.stderr.write(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=phalanx.place,
        env={**phalanx.environ(), "PYTHONPATH": str(REPOSITORY), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def heavy(modules: set[str]) -> set[str]:
    """Those that take long to import."""
    known = (*HEAVY, *HEAVY_OF_OURS)
    return {name for name in modules if any(name == one or name.startswith(one + ".") for one in known)}


def test_help_and_version_import_nothing_heavy_and_no_verb(phalanx: Phalanx) -> None:
    for option in ("--help", "--version"):
        modules = imported(phalanx, {}, option)
        assert heavy(modules) == set()
        assert not {f"phalanx.controller.cli.{verb}" for verb in VERBS} & modules


@pytest.mark.parametrize("verb", VERBS)
def test_completing_options_imports_nothing_heavy(phalanx: Phalanx, verb: str) -> None:
    env = {"_PHALANX_COMPLETE": "bash_complete", "COMP_WORDS": f"phalanx {verb} --", "COMP_CWORD": "2"}
    modules = imported(phalanx, env)
    assert f"phalanx.controller.cli.{verb}" in modules
    assert heavy(modules) == set()


def test_completing_verbs_imports_none_of_them(phalanx: Phalanx) -> None:
    env = {"_PHALANX_COMPLETE": "bash_complete", "COMP_WORDS": "phalanx ", "COMP_CWORD": "1"}
    modules = imported(phalanx, env)
    assert heavy(modules) == set()
    assert not {f"phalanx.controller.cli.{verb}" for verb in VERBS} & modules


def test_completing_tags_and_runs_imports_nothing_heavy(phalanx: Phalanx, project: Path) -> None:
    for words, count in (("phalanx run --tags b", "3"), ("phalanx status 2", "2")):
        env = {"_PHALANX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
        assert heavy(imported(phalanx, env)) == set()
