"""What runs before and after a model's script, on nodes of this machine and in containers of a cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.lab.image import NAME
from tests.stories.cluster import Cluster, until
from tests.stories.program import Phalanx, Run
from tests.stories.project import make_project, rows_of

CANARY = "canary-9f27"
GOOD = 'echo "performance: 1 x"'
FOLDER = "run_directory"


def scripts(project: Path, **texts: str) -> str:
    """Scripts of the project, and the context that runs them before and after: their names say which."""
    folder = project / "scripts" / "common"
    folder.mkdir(parents=True, exist_ok=True)
    context: dict[str, list[dict[str, str]]] = {"pre_scripts": [], "post_scripts": []}
    for name, text in texts.items():
        (folder / f"{name}.sh").write_text(f"{text}\n")
        context[f"{name.partition('_')[0]}_scripts"].append(
            {"path": f"scripts/common/{name}.sh", "args": f"'of {name}' 2"}
        )
    return json.dumps(context)


def steps_of(run: Run, case: str) -> list[str]:
    """The steps that began, but for the one that tells of the container."""
    begun = [event["step"] for event in run.events("step.begun", case=case)]
    return [step for step in begun if step != "environment"]


@pytest.mark.local
def test_steps_come_in_order_each_with_its_log_and_share_the_models_folder(
    local: Phalanx, place: Path
) -> None:
    project = make_project(place, told=("", f"cat made; test ../run_directory -ef . && {GOOD}"))
    context = scripts(
        project,
        pre_a='echo "$0 $1 $2" > made; echo a said',
        pre_b='echo "$0 $1" >> made',
        post_c="cat made; rm made; echo left > told_output.csv",
    )
    run = local.run("run", "--tags", "told", "-N", "2", "--runtime", "process", "-c", context, folder=project)
    assert steps_of(run, "told") == ["facts", "pre-1-pre_a.sh", "pre-2-pre_b.sh", "main", "post-1-post_c.sh"]
    for rank, node in enumerate(("local1", "local2")):
        made = "pre_a.sh of pre_a 2\npre_b.sh of pre_b\n"
        assert run.log(node, f"rank{rank}.out").decode() == f"{made}performance: 1 x\n"
        assert run.log(node, "pre-1-pre_a.sh.out") == b"a said\n"
        assert run.log(node, "post-1-post_c.sh.out").decode() == made
        assert b"user: " in run.log(node, "facts.out")
        assert (run.folder / "results" / node / "told_output.csv").read_text() == "left\n"
        assert (
            (run.folder / "results" / node / "told_env.csv")
            .read_text()
            .startswith('"section","name","value"')
        )
    assert rows_of(project)["told"]["status"] == "SUCCESS"


@pytest.mark.local
def test_tools_stand_around_the_script_and_what_they_leave_comes_back(local: Phalanx, place: Path) -> None:
    project = make_project(place, told=("", f'echo "model $TOOL" && {GOOD}'))
    tools = [{"name": "test_tools_A", "env_vars": {"TOOL": "a tool's"}}, {"name": "test_tools_B"}]
    context = json.dumps({"tools": tools})
    command = ("run", "--tags", "told", "--runtime", "process", "--no-sys-env-details", "-c", context)
    run = local.run(*command, folder=project)
    assert steps_of(run, "told") == [
        *("facts", "tools", "pre-1-pre_test.sh", "pre-2-pre_test.sh", "main"),
        *("post-1-post_test.sh", "post-2-post_test.sh"),
    ]
    said = run.log("local1", "rank0.out").decode().splitlines()
    assert said == ["test_tools_B", "test_tools_A", "model a tool's", "performance: 1 x"]
    assert run.log("local1", "pre-1-pre_test.sh.out") == b"Pre-Script test called test_tools_B\n"
    assert not list((run.folder / "results").rglob("*_env.csv"))


@pytest.mark.local
def test_a_tool_that_is_not_there_is_named_before_the_model_runs(local: Phalanx, place: Path) -> None:
    project = make_project(place, told=("", GOOD))
    command = ("run", "--tags", "told", "--runtime", "process", "-c", '{"tools": [{"name": "rocprofv3"}]}')
    run = local.run(*command, folder=project, code=3)
    assert steps_of(run, "told") == ["facts", "tools"]
    assert rows_of(project)["told"]["status"] == "FAILURE"
    assert "cannot use tool rocprofv3: " in run.stderr.partition("First failure")[2]


@pytest.mark.local
def test_a_script_that_fails_before_the_model_fails_the_model_and_those_after_it_still_run(
    local: Phalanx, place: Path
) -> None:
    project = make_project(place, told=("", GOOD))
    context = scripts(project, pre_a="echo no driver >&2; exit 5", post_b="echo after")
    command = ("run", "--tags", "told", "-N", "2", "--runtime", "process", "-c", context)
    run = local.run(*command, folder=project, code=3)
    assert steps_of(run, "told") == ["facts", "pre-1-pre_a.sh", "post-1-post_b.sh"]
    assert rows_of(project)["told"]["status"] == "FAILURE"
    last = run.stderr.partition("First failure")[2]
    assert "step pre-1-pre_a.sh" in last and "no driver" in last and "exit 5" in last


@pytest.mark.local
def test_without_its_own_script_a_model_is_skipped_and_all_else_runs(local: Phalanx, place: Path) -> None:
    project = make_project(place, told=("", "exit 1"))
    context = scripts(project, pre_a="echo before", post_b="echo after")
    run = local.run(
        "run", "--tags", "told", "--runtime", "process", "--skip-model-run", "-c", context, folder=project
    )
    assert steps_of(run, "told") == ["facts", "pre-1-pre_a.sh", "post-1-post_b.sh"]
    assert (rows_of(project)["told"]["status"], run.verdict["exit_code"]) == ("SKIPPED", 0)
    (verdict,) = run.events("case.finished")
    assert verdict["reason"] == "--skip-model-run"


@pytest.mark.local
def test_a_script_that_is_not_there_is_refused_before_anything_is_made(local: Phalanx, place: Path) -> None:
    project = make_project(place, told=("", GOOD))
    context = '{"pre_scripts": [{"path": "scripts/common/pre.sh"}]}'
    command = ("run", "--tags", "told", "--runtime", "process", "-c", context)
    refused = local.run(*command, folder=project, code=4)
    assert "pre_scripts[0].path: there is no file scripts/common/pre.sh in" in refused.stderr
    assert not list(local.runs.glob("*"))


def repository(place: Path) -> Path:
    origin = place / "origin"
    origin.mkdir()
    (origin / "train.sh").write_text(GOOD)
    identity = ("-c", "user.name=x", "-c", "user.email=x@localhost")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "x")):
        subprocess.run(["git", *identity, *words], cwd=origin, check=True, capture_output=True)
    return origin


def card_of(project: Path, **fields: object) -> None:
    path = project / "models.json"
    [card] = json.loads(path.read_text())
    path.write_text(json.dumps([{**card, **fields}]))


@pytest.mark.local
def test_a_model_runs_in_its_repository_and_its_credentials_are_seen_nowhere(
    local: Phalanx, place: Path
) -> None:
    project = make_project(place, told=("", 'test "$hub_USERNAME" = me && bash train.sh'))
    card_of(project, url=f"file://{repository(place)}", cred="hub")
    (project / "credential.json").write_text(json.dumps({"hub": {"username": "me", "password": CANARY}}))
    run = local.run("run", "--tags", "told", "-N", "2", "--runtime", "process", folder=project)
    assert steps_of(run, "told") == ["facts", "clone", "main"]
    head = (place / "origin" / ".git" / "refs" / "heads").glob("*")
    commit = next(head).read_text().strip()
    assert f"commit {commit}" in run.log("local2", "clone.out").decode()
    assert rows_of(project)["told"]["status"] == "SUCCESS"
    kept = (path.read_bytes() for path in (*run.folder.rglob("*"), project / "perf.csv") if path.is_file())
    assert not any(CANARY.encode() in data for data in kept)
    assert CANARY not in run.everything


@pytest.mark.local
def test_a_repository_that_cannot_be_had_fails_the_model_with_gits_words(local: Phalanx, place: Path) -> None:
    project = make_project(place, told=("", GOOD))
    card_of(project, url=f"file://{place}/nowhere")
    run = local.run("run", "--tags", "told", "--runtime", "process", folder=project, code=3)
    assert rows_of(project)["told"]["status"] == "FAILURE"
    assert steps_of(run, "told") == ["facts", "clone"]
    last = run.stderr.partition("First failure")[2]
    assert "step clone" in last and f"cannot clone file://{place}/nowhere" in last


@pytest.mark.lab
def test_steps_run_in_the_models_container_on_every_node(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    project = make_project(place, told=(NAME, f"test $PWD = /myworkspace/{FOLDER} && cat made && {GOOD}"))
    context = scripts(project, pre_a='echo "$0 $1" > made', post_b="cat made")
    run = phalanx.run("run", "--target", "slurm", "-N", "2", "--tags", "told", "-c", context, folder=project)
    assert steps_of(run, "told") == ["facts", "pre-1-pre_a.sh", "main", "post-1-post_b.sh"]
    assert run.stdout.count("pre_a.sh of pre_a") == 4 and "user: " not in run.stdout
    assert rows_of(project)["told"]["status"] == "SUCCESS"
    nodes = sorted(path.name for path in (run.folder / "logs").iterdir() if path.is_dir())
    assert [run.log(node, "post-1-post_b.sh.out") for node in nodes] == [b"pre_a.sh of pre_a\n"] * 2


@pytest.mark.local
def test_all_of_the_models_folder_comes_back_when_asked_for_and_output_only_when_wanted(
    local: Phalanx, place: Path
) -> None:
    project = make_project(place, told=("", f"mkdir deep && echo x > deep/weights.bin && {GOOD}"))
    command = ("run", "--tags", "told", "--runtime", "process", "--no-live-output")
    run = local.run(*command, "--keep-model-dir", folder=project)
    assert (run.folder / "results" / "local1" / "deep" / "weights.bin").read_text() == "x\n"
    assert "performance:" not in run.stdout and "performance:" in run.log("local1", "rank0.out").decode()
    assert (project / "perf_super.json").exists() and (project / "perf_entry.csv").exists()
    for path in project.glob("perf*"):
        path.unlink()
    run = local.run("run", "--tags", "told", "--runtime", "process", "-l", "--cleanup-perf", folder=project)
    assert [path.name for path in project.glob("perf*")] == ["perf.csv"]
    assert not list((run.folder / "results").rglob("weights.bin"))
    assert "performance: 1 x" in run.stdout


def stands_as_it_was(program: Phalanx, project: Path, *words: str) -> None:
    """A model's place stays after its end, for whoever wants to look, and goes with the run."""
    run = program.start("run", *words, "--tags", "told", "--keep-alive", folder=project)
    until(lambda: bool(run.events("case.finished")), 60.0, "the model's end")
    seen = program.ask("exec", "--run", run.id, "--", "sh", "-c", "pwd; cat left", within=30.0)
    assert seen.stdout.count("run_directory") == 2 and seen.stdout.count("by the model") == 2, seen
    assert not run.events("run.finished")
    assert program.ask("cancel", run.id).returncode == 0
    run.ends(3)
    assert (run.verdict["state"], run.verdict["reason"]) == ("failed", "failed: told")
    assert rows_of(project)["told"]["status"] == "FAILURE"


@pytest.mark.local
def test_a_models_place_stands_as_it_was_until_the_run_is_ended(local: Phalanx, place: Path) -> None:
    project = make_project(place, told=("", "echo by the model > left; exit 4"))
    stands_as_it_was(local, project, "--runtime", "process", "-N", "2")


@pytest.mark.lab
def test_a_models_container_stands_as_it_was_until_the_run_is_ended(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    project = make_project(place, told=(NAME, "echo by the model > left; exit 4"))
    stands_as_it_was(phalanx, project, "--target", "slurm", "-N", "2")
