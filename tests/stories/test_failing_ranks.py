"""A rank goes wrong: the first failure is named with node, rank and cause, and nothing runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import cgroup
from tests.lab.image import NAME
from tests.stories.payloads import IN_CONTAINERS, meet
from tests.stories.program import Phalanx, Run

pytestmark = pytest.mark.lab


def first_failure(run: Run) -> str:
    """The last screen from the line that names the first failure on."""
    _, found, tail = run.stderr.partition("First failure")
    assert found, run.story()
    return tail


def followers(run: Run) -> list[str]:
    """Lines of the last screen that fold the ranks which phalanx stopped."""
    head = run.stderr.partition("First failure")[0]
    return [line.strip() for line in head.splitlines() if "stopped by phalanx" in line]


def test_a_rank_that_exits_7_is_named_last_on_the_screen_and_the_others_are_folded(phalanx: Phalanx) -> None:
    dies = '[ $RANK = 2 ] && { echo "cannot find the weights" >&2; exit 7; }'
    script = f'echo "up $RANK"; {meet("up")}; {dies}; sleep 60'
    run = phalanx.run(*IN_CONTAINERS, "--", "sh", "-c", script, code=7)
    last = first_failure(run).splitlines()
    assert "n3 rank 2" in last[0]
    assert last[1].strip() == "exit 7"
    assert "cannot find the weights" in last[2]
    assert last[-1].startswith("exit 7")
    assert len(followers(run)) == 1
    assert followers(run)[0].startswith("n[1-2,4] (3) ranks 0-1,3")
    assert sorted(run.stdout.splitlines()) == [f"n{n}: up {n - 1}" for n in (1, 2, 3, 4)]
    assert "== processes ==" in run.log("n3", "diagnostics.txt").decode()


def test_a_model_whose_rank_exits_7_ends_with_3_and_a_row_that_says_failure(
    phalanx: Phalanx, mad_mini: Path
) -> None:
    given = ("--target", "slurm", "-N4", "--image", NAME)
    run = phalanx.run("run", "--tags", "fail_on_rank", *given, code=3, folder=mad_mini)
    assert "n2 rank 1" in first_failure(run).splitlines()[0]
    assert "exit 7" in first_failure(run).splitlines()[1]
    header, *rows = (mad_mini / "perf.csv").read_text().splitlines()
    assert len(rows) == 1
    assert dict(zip(header.split(","), rows[0].split(","), strict=False))["status"] == "FAILURE"


def test_a_rank_that_is_killed_for_its_memory_is_said_to_be_out_of_memory(phalanx: Phalanx) -> None:
    if "memory" not in cgroup.present():
        pytest.skip("the engines of this lab have no memory controller: this machine's control groups are v2")
    script = '[ $RANK = 1 ] && exec python3 -c "b = bytes(range(256)) * 4 * 1024 * 1024"; sleep 60'
    run = phalanx.run(*IN_CONTAINERS, "--memory", "64m", "--", "sh", "-c", script, code=253)
    last = first_failure(run)
    assert "n2 rank 1" in last.splitlines()[0]
    assert "out of memory" in last.lower()
    assert run.events("step.exited", rank=1)[0]["cause"] == "oom"


def test_ranks_that_run_past_their_deadline_are_ended_and_none_of_them_is_blamed(phalanx: Phalanx) -> None:
    run = phalanx.run(*IN_CONTAINERS, "--timeout", "1s", "--stop-grace", "1", "--", "sleep", "60", code=124)
    assert "no rank failed, all 4 ran until the deadline" in run.stderr
    assert "First failure" not in run.stderr
    ends = run.events("step.exited")
    assert len(ends) == 4
    assert {end["cause"] for end in ends} <= {"deadline", "stopped"}
    assert ends[0]["cause"] == "deadline"
    for end in ends:
        if end["cause"] == "deadline":
            assert b"sleep 60" in run.log(end["node"], "diagnostics.txt"), "looked at before it was ended"


def test_a_command_that_is_not_in_the_image_ends_with_127_and_says_so(phalanx: Phalanx) -> None:
    run = phalanx.run(*IN_CONTAINERS, "--", "no-such-program", code=127)
    assert "no-such-program" in first_failure(run)
    assert "not found" in first_failure(run)
