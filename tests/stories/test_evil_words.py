"""Words that a shell would act on reach their place as they are, or are refused by name; nothing runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.stories.program import Phalanx

pytestmark = pytest.mark.local
#: Each would leave a file named "pwned" in some folder if anything acted on it.
EVIL = [
    "a b",
    "it's",
    'say "x"',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "| touch pwned",
    "&& touch pwned",
    "\n touch pwned",
    "-rf",
    "--help",
    "ünïcödé ✓",
    "${HOME}x"[1:],
    "%s {NODE_RANK} {} \\n",
    "*",
    "~",
    "../..",
]
SCRIPT = """import json, os, sys
kept = {name: value for name, value in os.environ.items() if name.startswith("EVIL_")}
print("TOLD " + json.dumps({"args": sys.argv[1:], "env": kept, "model": os.environ["MAD_MODEL_NAME"]}))
print("performance: 1 x")
"""
NAME = "a $(touch pwned) b; `touch pwned` 'ü"


def project(folder: Path, **fields: Any) -> Path:
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "tell.py").write_text(SCRIPT)
    card = {"name": NAME, "scripts": "scripts/tell.py", "args": "", "tags": ["evil"], **fields}
    (folder / "models.json").write_text(json.dumps([card]))
    return folder


def told(stdout: str) -> dict[str, Any]:
    (line,) = [line for line in stdout.splitlines() if "TOLD " in line]
    found: dict[str, Any] = json.loads(line.partition("TOLD ")[2])
    return found


def test_arguments_and_variables_arrive_as_they_were_written(local: Phalanx, place: Path) -> None:
    env = {f"EVIL_{number}": word for number, word in enumerate(EVIL)}
    folder = project(
        place / "p", args=shlex.join(EVIL), env_vars=env, owner=EVIL[3], training_precision=EVIL[4]
    )
    context = {"docker_env_vars": {"EVIL_CONTEXT": EVIL[3] + EVIL[8]}, "env_vars": {"EVIL_OTHER": EVIL[5]}}
    (place / "context.json").write_text(json.dumps(context))
    given = ("--additional-context-file", place / "context.json", "-e", f"EVIL_OPTION={EVIL[6]}")
    run = local.run("run", "--tags", "evil", *given, "-J", "name $(touch pwned)", folder=folder)
    found = told(run.stdout)
    assert found["args"] == EVIL
    assert found["model"] == NAME
    assert found["env"] == {
        **env,
        "EVIL_CONTEXT": EVIL[3] + EVIL[8],
        "EVIL_OTHER": EVIL[5],
        "EVIL_OPTION": EVIL[6],
    }
    assert not list(place.rglob("pwned"))
    assert NAME in (folder / "perf.csv").read_text()


def test_arguments_of_the_context_and_a_command_arrive_as_well(local: Phalanx, place: Path) -> None:
    folder = project(place / "p", args="--other")
    given = ("-c", json.dumps({"model_args": shlex.join(EVIL)}))
    assert told(local.run("run", "--tags", "evil", *given, folder=folder).stdout)["args"] == EVIL
    run = local.run("run", "--", "printf", "<%s>", *EVIL, folder=folder)
    assert run.stdout.rstrip("\n").replace("\n", "") == "".join(f"<{word}>" for word in EVIL).replace(
        "\n", ""
    )
    assert not list(place.rglob("pwned"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scripts": "$(touch pwned)"}, "there is no file $(touch pwned)/run.sh"),
        ({"scripts": "../tell.py"}, "leaves the project's folder"),
        ({"dockerfile": "docker/$(touch pwned)"}, "there is no file docker/$(touch pwned).*"),
        ({"dockerfile": "../x"}, "leaves the project's folder"),
        ({"env_vars": {"A $(touch pwned)": "x"}}, "is no name of a variable"),
        ({"env_vars": {"DOCKER_IMAGE_NAME": "$(touch pwned)"}}, "is no image name"),
        ({"n_gpus": "$(touch pwned)"}, "n_gpus: expected a whole number"),
        ({"multiple_results": "../../pwned"}, "leaves the model's folder"),
        ({"additional_docker_run_options": "--init $(touch pwned)"}, "additional_docker_run_options"),
        ({"distributed": {"launcher": "$(touch pwned)"}}, "$(touch pwned)"),
        (
            {"slurm": {"partition": "$(touch pwned)\n"}, "env_vars": {"DOCKER_IMAGE_NAME": "x"}},
            "slurm.partition",
        ),
    ],
)
def test_what_has_no_place_is_refused_by_name(
    local: Phalanx, place: Path, fields: dict[str, Any], words: str
) -> None:
    folder = project(place / "p", **fields)
    target = ("--target", "slurm") if "slurm" in fields else ()
    run = local.start("run", "--tags", "evil", *target, folder=folder)
    assert run.wait() in (2, 4), run.stderr
    assert words in run.stderr
    assert "Traceback" not in run.stderr and "this is a bug" not in run.stderr
    assert not list(place.rglob("pwned")) and not local.runs.exists()
