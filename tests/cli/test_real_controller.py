"""The command with the real controller and real agents, as processes of this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from .driver import Phalanx, Terminal

pytestmark = pytest.mark.local

#: Says its name and waits to be stopped; on TERM it says goodbye.
WAITS = "trap 'echo bye $RANK; exit 0' TERM; echo hi $RANK; while :; do sleep 0.05; done"


@pytest.fixture
def real(tmp_path: Path) -> Phalanx:
    """``phalanx`` as it is installed."""
    return Phalanx(tmp_path, fake=False)


def test_a_command_on_two_nodes_prints_its_lines_and_succeeds(real: Phalanx) -> None:
    done = real("run", "-N", "2", "--", "bash", "-c", "echo rank $RANK of $WORLD_SIZE")
    assert done.code == 0, done.err
    assert sorted(line.split(": ")[1] for line in done.out.splitlines()) == ["rank 0 of 2", "rank 1 of 2"]
    assert json.loads(real("ps", "--json").out)[0]["state"] == "succeeded"


def test_every_one_of_many_lines_is_shown_before_the_end(real: Phalanx) -> None:
    done = real("run", "-N", "2", "--", "bash", "-c", "seq 1 50000")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) == 100_000
    for node in {line.split(": ")[0] for line in lines}:
        mine = [int(line.split(": ")[1]) for line in lines if line.startswith(f"{node}: ")]
        assert mine == list(range(1, 50_001))


def test_the_rank_that_failed_first_stands_last_and_gives_the_code(real: Phalanx) -> None:
    script = "if [ $RANK = 3 ]; then echo boom >&2; exit 7; fi; sleep 60"
    done = real("run", "-N", "2", "--ntasks-per-node", "2", "--", "bash", "-c", script)
    assert done.code == 7
    tail = done.err[done.err.index("First failure") :]
    assert "rank 3 (local 1)" in tail
    assert "│ boom" in tail
    assert tail.rstrip().splitlines()[-1] == "exit 7"
    failed = json.loads(real("status", "@failed", "--json").out)
    assert sum(group["count"] for group in failed["followers"]) == 3


def test_a_command_that_is_not_there_is_127(real: Phalanx) -> None:
    done = real("run", "--", "no-such-command-anywhere")
    assert done.code == 127
    assert "no-such-command-anywhere" in done.err


def test_a_secret_is_in_the_ranks_environment_and_in_no_file_of_the_run(real: Phalanx) -> None:
    canary = "canary-77aa00"
    script = 'test "$HF_TOKEN" = canary-77aa00 && echo found'
    done = real(
        "run",
        "--secret",
        "HF_TOKEN",
        "--",
        "bash",
        "-c",
        script.replace(canary, "c'a'nary-77aa00"),
        env={"HF_TOKEN": canary},
    )
    assert done.code == 0, done.err
    assert done.out == "found\n"
    holding = [
        path for path in real.only_run().rglob("*") if path.is_file() and canary.encode() in path.read_bytes()
    ]
    assert holding == []


@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_a_file_of_rows_is_as_the_users_umask_has_it_and_the_run_is_private(
    real: Phalanx, umask: int
) -> None:
    before = os.umask(umask)
    try:
        done = real("run", "-o", "rows.csv", "--", "echo", "performance: 1 x")
    finally:
        os.umask(before)
    assert done.code == 0, done.err
    assert (real.place / "rows.csv").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (real.only_run() / "perf.csv").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_on_a_terminal_lets_ranks_say_goodbye(real: Phalanx) -> None:
    with Terminal(real, "run", "-N", "2", "--", "bash", "-c", WAITS) as terminal:
        terminal.until("hi")
        terminal.until("hi")
        terminal.type(b"\x03")
        assert terminal.ended() == 130
        assert terminal.output.count(b"bye") == 2
        assert terminal.settings() == terminal.before
    assert json.loads(real("ps", "--json").out)[0]["state"] == "cancelled"


def test_killing_the_client_changes_nothing_and_another_takes_over(real: Phalanx, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo early; while [ ! -e {gate} ]; do sleep 0.05; done; echo late"
    with real.start("run", "-N", "2", "--", "bash", "-c", script) as client:
        assert client.stdout is not None
        assert client.stdout.readline().endswith(b": early\n")
        client.send_signal(signal.SIGKILL)
    with real.start("logs", "-f") as follower:
        assert follower.stdout is not None
        seen = [follower.stdout.readline() for _ in range(2)]
        gate.touch()
        seen += follower.stdout.read().splitlines(keepends=True)
        assert follower.wait(30) == 0
    assert sorted(line.split(b": ")[1] for line in seen) == [b"early\n", b"early\n", b"late\n", b"late\n"]
    assert real("wait").code == 0


def test_exec_reaches_the_nodes_of_a_live_run_and_cancel_ends_it(real: Phalanx) -> None:
    assert real("run", "-d", "-N", "2", "--", "bash", "-c", WAITS).code == 0
    with real.start("logs", "-f") as follower:
        assert follower.stdout is not None
        assert b"hi" in follower.stdout.readline() + follower.stdout.readline()
        done = real("exec", "--", "bash", "-c", "echo on $PHALANX_NODE_RANK; exit $PHALANX_NODE_RANK")
        assert sorted(re.sub(".*: ", "", line) for line in done.out.splitlines()) == ["on 0", "on 1"]
        assert done.code == 1
        assert [one["state"] for one in json.loads(real("nodes", "--json").out)] == ["joined", "joined"]
        assert real("cancel").code == 0
        assert follower.wait(30) == 0
    assert real("wait").code == 130


def test_standard_streams_that_were_closed_make_no_difference(real: Phalanx) -> None:
    words = shlex.join(real.argv("run", "--", "true"))
    for closed in ("<&-", ">&-", "<&- >&-"):
        done = subprocess.run(
            ["sh", "-c", f"{words} {closed}"], env=real.environ(), cwd=real.place, check=False
        )
        assert done.returncode == 0, closed
    assert [run["state"] for run in json.loads(real("ps", "--json").out)] == ["succeeded"] * 3


def test_the_controller_has_a_name_that_is_not_its_clients(real: Phalanx) -> None:
    assert real("run", "-d", "--", "bash", "-c", WAITS).code == 0
    pid = json.loads((real.only_run() / "control.json").read_text())["pid"]
    assert Path(f"/proc/{pid}/comm").read_text() == "phalanx-control\n"
    assert real("cancel").code == 0
    assert real("wait").code == 130
