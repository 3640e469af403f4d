"""A busy slurmctld is asked again, a refusal is not, and no command can hang its caller."""

from __future__ import annotations

from pathlib import Path

import pytest
from phalanx.controller.targets.slurm_allocation import Request
from phalanx.controller.targets.slurm_commands import CommandError, SlurmCommands

from tests.targets.scripts import script

pytestmark = pytest.mark.local

BUSY = "slurm_load_jobs error: Socket timed out on send/recv operation"
#: Counts its calls in a file and is busy at first.
FLAKY = """
echo call >> "$COUNT"
[ "$(wc -l < "$COUNT")" -gt "$BUSY_CALLS" ] && {{ {then}; }}
echo "{busy}" >&2
exit 1
"""


def commands(folder: Path, busy_calls: int, deadline_s: float = 10.0) -> SlurmCommands:
    environ = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "COUNT": str(folder / "count"),
        "BUSY_CALLS": str(busy_calls),
    }
    return SlurmCommands(environ, deadline_s=deadline_s, pauses_s=(0.0, 0.0))


def calls(folder: Path) -> int:
    return (folder / "count").read_text().count("call")


async def test_a_command_is_tried_again_while_slurmctld_is_busy(tmp_path: Path) -> None:
    squeue = script(tmp_path / "squeue", FLAKY.format(busy=BUSY, then="echo RUNNING; exit 0"))
    answer = await commands(tmp_path, 2).ask([str(squeue)])
    assert (answer.out, calls(tmp_path)) == ("RUNNING\n", 3)


async def test_after_the_last_try_the_error_says_that_it_may_pass(tmp_path: Path) -> None:
    squeue = script(tmp_path / "squeue", FLAKY.format(busy=BUSY, then="exit 0"))
    with pytest.raises(CommandError, match="Socket timed out") as caught:
        await commands(tmp_path, 9).ask([str(squeue)])
    assert caught.value.transient
    assert calls(tmp_path) == 3


async def test_a_refusal_is_final_at_once(tmp_path: Path) -> None:
    squeue = script(
        tmp_path / "squeue", FLAKY.format(busy="squeue: error: Invalid user: nobody9", then="exit 0")
    )
    with pytest.raises(CommandError, match="Invalid user: nobody9") as caught:
        await commands(tmp_path, 9).ask([str(squeue)])
    assert not caught.value.transient
    assert calls(tmp_path) == 1


async def test_a_command_that_hangs_is_ended_at_its_deadline(tmp_path: Path) -> None:
    squeue = script(tmp_path / "squeue", "exec sleep 1000\n")
    with pytest.raises(CommandError, match=r"no answer within 0\.1 s"):
        await commands(tmp_path, 0, deadline_s=0.1).ask([str(squeue)])


async def test_a_machine_without_slurm_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="are Slurm's commands installed here"):
        await commands(tmp_path, 0).ask([str(tmp_path / "squeue")])


async def test_a_request_whose_answer_was_lost_is_withdrawn_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first salloc is queued but its answer is lost: that job goes before a second one is asked for."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    log = tmp_path / "log"
    lost = "salloc: error: Job submit/allocate failed: Socket timed out on send/recv operation"
    body = FLAKY.format(
        busy=lost, then=f"echo salloc >> {log}; echo 'salloc: Granted job allocation 8' >&2; exit 0"
    )
    script(tmp_path / "salloc", body)
    script(
        tmp_path / "squeue",
        f'case "$*" in *--user=*) [ -e {log} ] || echo "7|PENDING|phalanx:r1" ;;\n'
        '*) echo "CANCELLED|None||" ;; esac\n',
    )
    script(tmp_path / "scancel", f'echo "scancel $*" >> {log}\n')
    script(
        tmp_path / "scontrol",
        'case "$*" in *hostnames*) echo n1 ;; *) echo "JobId=8 JobState=RUNNING NodeList=n1" ;; esac\n',
    )
    request = Request(commands(tmp_path, 1), (str(tmp_path / "salloc"),), "r1", lambda line: None)
    allocation = await request.nodes(1, 10.0)
    assert (allocation.job_id, allocation.nodes, allocation.owned) == ("8", ("n1",), True)
    assert log.read_text().splitlines() == ["scancel 7", "salloc"]
