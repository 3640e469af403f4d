"""The steps around a model's script: which there are, in which order, and what they do on a node."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.plan.make import plan_for_tags, secrets_of
from phalanx.controller.plan.model import CasePlan, Share, StepPlan
from phalanx.controller.plan.model_steps import SCRIPTS_BESIDE
from phalanx.controller.plan.secrets import Secret, Secrets
from phalanx.controller.plan.step_scripts import CLONE, FACTS
from phalanx.controller.workflow.context_parts import Script
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.scripts import FoundScript, find_scripts
from phalanx.controller.workflow.surroundings import Surroundings

from .making import models

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----"


def case(card: dict[str, Any] | None = None, **more: Any) -> CasePlan:
    return plan_for_tags(models(card or {}, **more)).cases[0]


def script(path: str, args: str = "") -> FoundScript:
    return FoundScript(f"/proj/{path}", args, "-c: pre_scripts[0]")


def named(one: CasePlan, name: str) -> StepPlan:
    return next(step for step in one.steps if step.name == name)


def test_what_a_shell_would_act_on_in_arguments_of_scripts_is_named() -> None:
    around = Surroundings((script("pre.sh", "$HOME"),), (script("post.sh", "'$HOME'"),))
    [words] = plan_for_tags(models(around=around)).warnings
    assert words.startswith("-c: pre_scripts[0].args: $HOME reaches the script as it is written")


def test_the_steps_of_a_model_come_in_madengines_order_each_with_its_deadline() -> None:
    made = case(
        {"url": "https://h/o/repo.git"},
        around=Surroundings((script("a/pre.sh", "1 'two words'"), script("b/pre.sh")), (script("post.sh"),)),
    )
    assert [(step.name, step.per, step.deadline_s, step.always) for step in made.steps] == [
        ("facts", "node", 60.0, False),
        ("clone", "node", 240.0, False),
        ("pre-1-pre.sh", "node", 600.0, False),
        ("pre-2-pre.sh", "node", 600.0, False),
        ("main", "rank", 7200.0, False),
        ("post-1-post.sh", "node", 600.0, True),
    ]
    assert named(made, "pre-1-pre.sh").argv == ("bash", "pre.sh", "1", "two words")
    assert named(made, "pre-2-pre.sh").argv == ("bash", "2-pre.sh")
    assert made.container.workdir == "repo"
    assert made.workspace == (
        Share("/proj/a/pre.sh", f"{SCRIPTS_BESIDE}/pre.sh"),
        Share("/proj/b/pre.sh", f"{SCRIPTS_BESIDE}/2-pre.sh"),
        Share("/proj/post.sh", f"{SCRIPTS_BESIDE}/post.sh"),
        Share("/proj/scripts/m", SCRIPTS_BESIDE),
    )


def test_without_a_repository_scripts_lie_in_the_models_folder_and_one_file_is_sent_once() -> None:
    both = script("common/both.sh", "0"), script("common/both.sh", "1")
    made = case(around=Surroundings(both))
    assert [step.argv for step in made.steps[1:3]] == [("bash", "both.sh", "0"), ("bash", "both.sh", "1")]
    assert made.workspace == (
        Share("/proj/common/both.sh", "run_directory/both.sh"),
        Share("/proj/scripts/m", "run_directory"),
    )


def test_without_the_models_own_script_all_else_runs_and_the_case_says_why_it_is_skipped() -> None:
    made = case(around=Surroundings((script("pre.sh"),)), skip_model_run=True)
    assert [step.name for step in made.steps] == ["facts", "pre-1-pre.sh"]
    assert made.skip == "--skip-model-run"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ext::sh -c id", "white space"),
        ("ext::id", "no address to clone"),
        ("--upload-pack=id", "no address to clone"),
        ("-oProxyCommand=id@h:x", "no address to clone"),
        ("https://u:geheim@h/r", "it holds a password"),
        ("https://geheim@h/r", "it holds a password"),
        ("HTTP://geheim:@h/r", "it holds a password"),
        ("https://h/..", "does not end in a name"),
        ("https://h/$(id)", "does not end in a name"),
        ("/etc", "no address to clone"),
    ],
)
def test_an_address_that_is_not_cloned_is_refused_by_name(url: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as told:
        case({"url": url})
    assert "models.json: [0] (m0): url" in str(told.value)
    assert "geheim" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["git@host:org/repo.git", "ssh://git@host/org/repo", "https://host/org/repo/"]
)
def test_addresses_that_git_users_write_are_cloned(url: str) -> None:
    assert case({"url": url}).container.workdir == "repo"


def test_credentials_are_names_in_the_command_and_the_key_is_for_the_clone_alone() -> None:
    given = Secrets(
        {
            "hub_USERNAME": Secret("me", "credential.json: hub.username"),
            "hub_PASSWORD": Secret("geheim", "credential.json: hub.password"),
            "hub_SSH_KEY": Secret(KEY, "credential.json: hub.ssh_key_file"),
        }
    )
    inputs = models({"url": "https://h/o/repo", "cred": "hub"}, credentials={"hub": given})
    made = plan_for_tags(inputs).cases[0]
    assert named(made, "clone").argv[4:] == (
        "https://h/o/repo", f"../{SCRIPTS_BESIDE}", "hub_USERNAME", "hub_PASSWORD", "-"
    )  # fmt: skip
    assert made.env["hub_PASSWORD"].secret and "hub_SSH_KEY" not in made.env
    assert sorted(secrets_of(inputs)) == ["hub_PASSWORD", "hub_USERNAME"]
    by_ssh = models({"url": "git@h:o/repo", "cred": "hub"}, credentials={"hub": given})
    made = plan_for_tags(by_ssh).cases[0]
    assert named(made, "clone").argv[-1] == "hub_SSH_KEY"
    assert named(made, "clone").env["hub_SSH_KEY"].secret and "hub_SSH_KEY" not in made.env
    assert secrets_of(by_ssh)["hub_SSH_KEY"].value == KEY


def test_scripts_are_found_in_the_first_place_that_has_them(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    for place, name in ((own, "a.sh"), (shipped, "a.sh"), (shipped, "b.sh")):
        (place / "scripts").mkdir(parents=True, exist_ok=True)
        (place / "scripts" / name).touch()
    wanted = [Script("scripts/a.sh", "1"), Script("./scripts/b.sh")]
    found = find_scripts(wanted, (own, shipped), lambda number: f"-c: pre_scripts[{number}]")
    assert [one.file for one in found] == [str(own / "scripts/a.sh"), str(shipped / "scripts/b.sh")]
    refused = {"../x.sh": "leaves the project", "/x": "leaves", "c.sh": "no file c.sh", ".": "leaves"}
    for path, words in refused.items():
        with pytest.raises(InputError, match=rf"cannot use -c: pre_scripts\[0\].path: .*{words}"):
            find_scripts([Script(path)], (own,), lambda number: f"-c: pre_scripts[{number}]")


# --- what they do, on this machine


def run(text: str, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd.parent), "GIT_CONFIG_NOSYSTEM": "1", **env}
    return subprocess.run(
        ["/bin/sh", "-c", text, "sh", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_facts_tell_what_is_there_and_fail_for_nothing(tmp_path: Path) -> None:
    told = run(FACTS, cwd=tmp_path)
    assert told.returncode == 0 and "user: " in told.stdout and "kernel: Linux" in told.stdout
    tools = tmp_path / "bin"
    tools.mkdir()
    smi = tools / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200'\nexit 9\n")
    smi.chmod(0o755)
    told = run(FACTS, cwd=tmp_path, PATH=f"{tools}:{os.environ['PATH']}")
    assert told.returncode == 0 and "GPU 0: NVIDIA H200" in told.stdout
    assert run(FACTS, cwd=tmp_path, PATH="/nonexistent").returncode == 0


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "train.py").write_text("of the repository")
    (origin / "run.sh").write_text("of the repository")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "x")):
        identity = ("-c", "user.name=x", "-c", "user.email=x@localhost")
        subprocess.run(["git", *identity, *words], cwd=origin, check=True, capture_output=True)
    return origin


@pytest.fixture
def place(tmp_path: Path) -> Path:
    beside, model = tmp_path / "work" / SCRIPTS_BESIDE, tmp_path / "work" / "origin"
    beside.mkdir(parents=True)
    (beside / "run.sh").write_text("of the model")
    model.mkdir()
    return model


def test_a_clone_has_the_models_scripts_over_it_and_leaves_its_commit(repository: Path, place: Path) -> None:
    results = place.parent / "results"
    told = run(
        CLONE, f"file://{repository}", f"../{SCRIPTS_BESIDE}", "-", "-", "-",
        cwd=place, PHALANX_RESULTS=str(results),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert (place / "train.py").read_text() == "of the repository"
    assert (place / "run.sh").read_text() == "of the model"
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout
    assert (results / ".phalanx" / "git_commit").read_text() == head
    assert f"commit {head.strip()}" in told.stdout


def test_a_clone_that_fails_says_what_of_and_keeps_gits_status(place: Path) -> None:
    told = run(CLONE, "file:///nonexistent/repo", f"../{SCRIPTS_BESIDE}", "-", "-", "-", cwd=place)
    assert told.returncode == 128
    assert "cannot clone file:///nonexistent/repo: git ended with status 128" in told.stderr


def test_without_git_a_clone_names_what_is_missing(place: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "mkdir"):
        (tools / name).symlink_to(shutil.which(name) or "")
    told = run(CLONE, "https://h/r", "../x", "-", "-", "-", cwd=place, PATH=str(tools))
    assert told.returncode == 127 and "there is no git here; add git to the image" in told.stderr


def test_git_is_given_user_and_password_by_its_helper_and_no_one_sees_them(
    repository: Path, place: Path, tmp_path: Path
) -> None:
    """A git in front of the real one asks the helper that it was given, as git does for a server's 401."""
    tools, seen = tmp_path / "tools", tmp_path / "argv"
    tools.mkdir()
    real = shutil.which("git")
    (tools / "git").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\n'
        f'case " $* " in *" clone "*)\n  printf "protocol=https\\nhost=h\\n\\n" | '
        f'{real} -c "$2" -c "$4" credential fill > {tmp_path}/filled;;\nesac\nexec {real} "$@"\n'
    )
    (tools / "git").chmod(0o755)
    told = run(
        CLONE, f"file://{repository}", f"../{SCRIPTS_BESIDE}", "hub_USERNAME", "hub_PASSWORD", "-",
        cwd=place, PATH=f"{tools}:{os.environ['PATH']}", hub_USERNAME="me", hub_PASSWORD="ge heim'\"$x",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    filled = (tmp_path / "filled").read_text()
    assert "username=me\n" in filled and "password=ge heim'\"$x\n" in filled
    assert "heim" not in seen.read_text() + told.stdout + told.stderr
    assert "heim" not in "".join(path.read_text() for path in place.parent.rglob("config"))
