"""Slurm's commands as they are run, whole: what changes here changes on every cluster."""

from __future__ import annotations

from pathlib import Path

from phalanx.controller.plan.model import SlurmOptions
from phalanx.controller.targets import environment, slurm_argv


def test_an_allocation_asks_for_exactly_what_was_said() -> None:
    options = SlurmOptions(
        partition="gpu",
        time="2:00:00",
        account="ml",
        qos="high",
        reservation="r1",
        nodelist="n[1-4]",
        exclude="n9",
        constraint="mi300",
        gres="gpu:8",
        gpus_per_node="8",
        exclusive=True,
        extra=("--mem=0", "srun:--gres=none", "--comment=mine"),
    )
    assert slurm_argv.salloc(options, nodes=4, name="llama", run_id="r7") == (
        *(
            "salloc",
            "--no-shell",
            "--no-bell",
            "--no-kill",
            "--job-name=phalanx-llama",
            "--comment=phalanx:r7",
        ),
        *("--nodes=4", "--partition=gpu", "--time=2:00:00", "--account=ml", "--qos=high", "--reservation=r1"),
        *("--nodelist=n[1-4]", "--exclude=n9", "--constraint=mi300", "--gres=gpu:8", "--gpus-per-node=8"),
        *("--exclusive", "--mem=0", "--comment=mine"),
    )


def test_nothing_is_asked_for_that_was_not_said() -> None:
    command = slurm_argv.salloc(SlurmOptions(exclusive=False), nodes=2, name="x", run_id="r")
    assert command[-1] == "--nodes=2"


def test_the_agents_step_holds_nothing_and_kills_nobody() -> None:
    assert slurm_argv.agents_step(
        SlurmOptions(extra=("--mem=0", "srun:--gres=none")),
        job_id="12",
        nodes=("n1", "n2", "n3"),
        run_id="r7",
        agent=Path("/home/user/agent.pyz"),
        python="/opt/python3",
        export=("PATH", "HOME"),
    ) == (
        *("srun", "--jobid=12", "--job-name=phalanx-r7", "--overlap", "--nodes=3", "--ntasks=3"),
        *("--ntasks-per-node=1", "--distribution=block", "--nodelist=n[1-3]", "--cpu-bind=none", "--mem=0"),
        *("--mpi=none", "--input=all", "--label", "--kill-on-bad-exit=0", "--wait=0", "--no-kill"),
        *("--chdir=/tmp", "--export=PATH,HOME", "--bcast=/tmp/phalanx-agent-r7", "--gres=none"),
        *("/home/user/agent.pyz", "--python", "/opt/python3", "run", "--slurm", "--remove-self"),
    )


def test_many_irregular_names_are_listed_and_not_folded_for_seconds() -> None:
    nodes = [f"x{i}c{i * 7 % 13}b{i}" for i in range(2000)]
    assert slurm_argv.fold(nodes) == ",".join(nodes)
    assert slurm_argv.fold(["n1", "n2", "n3"]) == "n[1-3]"


def test_options_in_disguise_do_not_reach_slurms_commands() -> None:
    given = {
        "PATH": "/bin",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_MEM_PER_CPU": "4G",
        "SQUEUE_FORMAT": "%i",
        "SCANCEL_STATE": "PENDING",
        "SALLOC_ACCOUNT": "ml",
    }
    assert environment.slurm_environment(given) == {
        "PATH": "/bin",
        "SLURM_CONF": "/etc/slurm.conf",
        "SALLOC_ACCOUNT": "ml",
        "SLURM_SEND_LIBS": "no",
    }


def test_an_agent_gets_no_token_of_the_login() -> None:
    given = {
        "PATH": "/bin",
        "HF_TOKEN": "hf_x",
        "LD_LIBRARY_PATH": "/x",
        "TMPDIR": "/t",
        "PYTHONPATH": "/evil",
    }
    assert environment.agent_environment(given) == {"PATH": "/bin", "TMPDIR": "/t"}
    assert environment.agent_names(given) == ("PATH",)
