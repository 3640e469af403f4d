"""Which steps of a job a script has left behind, by what Slurm says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from phalanx.agent.job_steps import end_left_behind, left_behind


def step(number: str, name: str, starter: str) -> str:
    """A line of Slurm 22.05."""
    return (
        f"StepId={number} UserId=0 StartTime=2026-11-26T10:01:34 TimeLimit=UNLIMITED State=RUNNING "
        f"Partition=lab NodeList=n[1-2] Nodes=2 CPUs=2 Tasks=2 Name={name} Network=(null) "
        f"TRES=cpu=2,mem=512M,node=2 ResvPorts=(null) CPUFreqReq=Default Dist=Block SrunHost:Pid={starter}"
    )


def test_a_step_is_left_behind_when_its_srun_was_here_and_is_gone() -> None:
    text = "\n".join(
        (
            step("2.2", "phalanx-x", "n1:7"),  # agents live without their srun
            step("2.3", "sleep", "n1:8"),
            step("2.4", "sleep", "n1:9"),
            step("2.5", "sleep", "vm:8"),  # from elsewhere: someone else's
            step("2.batch", "batch", "n1:8"),
            step("2.TDB", "sleep", "n1:8"),  # it waits for its turn, and is none yet
            "no such thing",
        )
    )
    assert left_behind(text, "n1", lambda pid: pid == 9) == ["2.3"]


async def test_the_gone_sruns_step_is_killed_by_number_and_only_in_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "n1.example")
    said = tmp_path / "said"
    for name, does in (
        ("scontrol", f"echo '{step('2.3', 'sleep', 'n1:999999999')}'"),
        ("scancel", f'echo "$@ $SLURM_CONF" > {said}'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}:/bin:/usr/bin",
        "SLURM_JOB_ID": "2",
        "SLURM_CONF": "/c",
        "SLURM_STEP_ID": "1",
    }
    assert await end_left_behind({"PATH": str(tmp_path)}) == []
    assert not said.exists()
    assert await end_left_behind(environ) == ["2.3"]
    assert said.read_text() == "--signal=KILL 2.3 /c\n"


async def test_a_node_without_slurms_commands_has_nothing_to_end(tmp_path: Path) -> None:
    assert await end_left_behind({"PATH": str(tmp_path), "SLURM_JOB_ID": "2"}) == []
