"""A case whose script drives the nodes, on one real agent: its folder, its environment, its results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from phalanx.protocol import messages as m

from .agent import Agent
from .controller import Controller

pytestmark = pytest.mark.local
JOB = {"SLURM_JOB_ID": "12", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_ID": "0", "SLURM_LABELIO": "1"}


async def opened(controller: Controller, *places: str) -> None:
    spec = m.ContainerSpec(m.Runtime.PROCESS, workdir="run_directory")
    env = {"NNODES": "2"}
    controller.tell(m.CaseOpen(7, "demo", spec, (0,), 2, None, env, driven=True, result_places=places))
    assert (await controller.heard(m.CaseOpened)).error == ""


async def test_its_script_has_the_job_and_a_folder_of_a_name_that_every_node_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "scontrol").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    async with Controller() as controller, Agent(tmp_path, told := controller.bootstrap()) as agent:
        await opened(controller)
        controller.shell("main", "pwd; env")
        assert (await controller.heard(m.StepExited)).status == 0
        folder, *env = (await controller.whole("main")).decode().splitlines()
        top = agent.base.parent / f"phalanx-{os.geteuid()}-{told.run_id}-all"
        assert folder == str(top / "cases" / "demo" / "work" / "run_directory")
        assert {"SLURM_JOB_ID=12", "SLURM_NNODES=2", "NNODES=2"} <= set(env)
        names = {line.partition("=")[0] for line in env}
        assert not names & {
            "SLURM_STEP_ID",
            "SLURM_LABELIO",
            "NODE_RANK",
            "RANK",
            "WORLD_SIZE",
            "PHALANX_NODE",
        }
        controller.tell(m.CaseClose(8, "demo", 0.0))
        assert (await controller.heard(m.CaseClosed)).error == ""
        assert not top.exists()


async def test_ranks_of_other_cases_do_not_see_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        controller.start("main", "env", ranks=(0,))
        assert (await controller.heard(m.StepExited)).status == 0
        assert b"SLURM_" not in await controller.whole("main", rank=0)


async def test_what_it_leaves_in_its_places_comes_back_and_what_lay_there_does_not(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (left / "perf_old.csv").write_text("old")
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await opened(controller, str(left / "perf*.csv"), "perf.csv")
        controller.shell("main", f"echo new > {left}/perf_new.csv; echo mine > perf.csv")
        assert (await controller.heard(m.StepExited)).status == 0
        controller.tell(m.Collect(9, "demo", ("perf.csv",), 25.0))
        offers = {(await controller.heard(m.FileOffer)).path for _ in range(2)}
        assert offers == {f"{m.SCRIPT_RESULTS}/perf_new.csv", "perf.csv"}
        assert (await controller.heard(m.Collected)).files == 2
