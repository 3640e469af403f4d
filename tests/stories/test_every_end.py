"""However a model ends, it has its row, its reason and the right exit code; so have the others."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.stories.cluster import until
from tests.stories.program import Phalanx, Run
from tests.stories.project import make_project, rows_of

GOOD = 'echo "performance: 1 x"'
ON_FIRST = f'{GOOD}; test "$NODE_RANK" = 0'
RUN = ("run", "--runtime", "process", "--no-sys-env-details", "--tags")


def verdict(run: Run, case: str = "m") -> str:
    (event,) = run.events("case.finished", case=case)
    return str(event["reason"])


@pytest.mark.local
@pytest.mark.parametrize(
    ("script", "options", "status", "code", "reason"),
    [
        pytest.param(GOOD, (), "SUCCESS", 0, "1 x", id="all well"),
        pytest.param("exit 1", (), "FAILURE", 3, "rank 0 on local1, step main: exit status 1", id="exit 1"),
        pytest.param("true", (), "FAILURE", 3, "no line 'performance: VALUE METRIC'", id="no performance"),
        pytest.param("sleep 60", ("--timeout", "1"), "FAILURE", 3, "its deadline of 1 s", id="timeout"),
        pytest.param(
            f'{GOOD}; test "$NODE_RANK" = 0',
            ("-N", "2"),
            "FAILURE",
            3,
            "rank 1 on local2",
            id="one node of two",
        ),
        pytest.param("kill -9 $$", (), "FAILURE", 3, "rank 0 on local1", id="killed"),
    ],
)
def test_a_model_has_one_row_and_the_run_the_right_code(
    local: Phalanx, place: Path, script: str, options: tuple[str, ...], status: str, code: int, reason: str
) -> None:
    project = make_project(place, m=("", script))
    run = local.run(*RUN, "m", *options, folder=project, code=code)
    text = (project / "perf.csv").read_text().splitlines()
    assert (len(text), rows_of(project)["m"]["status"]) == (2, status)
    assert reason in verdict(run)


@pytest.mark.local
def test_a_script_that_is_not_there_is_refused_before_anything_is_made(local: Phalanx, place: Path) -> None:
    project = make_project(place, m=("", GOOD))
    (project / "scripts" / "m" / "run.sh").unlink()
    refused = local.run(*RUN, "m", folder=project, code=4)
    assert "models.json: [0] (m): scripts: there is no file scripts/m/run.sh in" in refused.stderr
    assert not (project / "perf.csv").exists() and not list(local.runs.glob("*"))


@pytest.mark.local
def test_a_cancelled_run_has_a_row_for_what_ran_and_for_what_did_not(local: Phalanx, place: Path) -> None:
    project = make_project(place, a=("", "echo here; sleep 60"), b=("", GOOD))
    run = local.start(*RUN, "a,b", folder=project)
    until(lambda: "here" in run.stdout, 30.0, "the first model runs")
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(30) == 130
    assert {name: row["status"] for name, row in rows_of(project).items()} == dict.fromkeys("ab", "CANCELLED")


@pytest.mark.local
def test_models_that_are_not_for_the_nodes_gpus_are_all_skipped_and_that_is_no_failure(
    local: Phalanx, place: Path
) -> None:
    tools = place / "tools"
    tools.mkdir()
    smi = tools / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, NVIDIA A100-SXM4-40GB, 00000000:19:00.0, 40960'\n")
    smi.chmod(0o755)
    project = make_project(place, a=("", "exit 1"), b=("", 'echo "performance: $MAD_SYSTEM_NGPUS gpus"'))
    path = project / "models.json"
    cards = [{**card, "skip_gpu_arch": "gfx942, A100"} for card in json.loads(path.read_text())]
    path.write_text(json.dumps(cards))
    env = {"PATH": f"{tools}:{local.environ['PATH']}"}
    run = local.run(*RUN, "a,b", folder=project, env=env)
    assert {name: row["status"] for name, row in rows_of(project).items()} == dict.fromkeys("ab", "SKIPPED")
    assert verdict(run, "a") == "skip_gpu_arch names A100, and local1 has NVIDIA A100-SXM4-40GB"
    assert not run.events("step.begun")
    local.run(*RUN, "b", "--disable-skip-gpu-arch", folder=project, env=env)
    assert (rows_of(project)["b"]["status"], rows_of(project)["b"]["performance"]) == ("SUCCESS", "1")


@pytest.mark.local
def test_results_that_lay_in_the_models_folder_before_are_no_results(local: Phalanx, place: Path) -> None:
    project = make_project(place, m=("", 'test -z "$WRITE" || echo model,performance,metric > t.csv; exit 0'))
    (project / "scripts" / "m" / "t.csv").write_text("model,performance,metric\nold,99,tok/s\n")
    path = project / "models.json"
    cards = [{**card, "multiple_results": "t.csv"} for card in json.loads(path.read_text())]
    path.write_text(json.dumps(cards))
    run = local.run(*RUN, "m", folder=project, code=3)
    assert rows_of(project)["m"]["status"] == "FAILURE"
    assert "no node left t.csv" in verdict(run)
    script = project / "scripts" / "m" / "run.sh"
    script.write_text("cp -p t.csv kept.csv; cp -p kept.csv t.csv\n")
    local.run(*RUN, "m", folder=project)
    assert rows_of(project)["m_old"]["performance"] == "99"
