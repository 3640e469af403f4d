"""Ctrl-C on a terminal: once ends the run in good order, twice kills it, three times leaves."""

from __future__ import annotations

import os
import signal

import pytest

from tests.stories.cluster import Cluster, command_line, nothing_left, until
from tests.stories.payloads import IN_A_HURRY, IN_CONTAINERS, LAST_WORDS
from tests.stories.program import Phalanx, Run

pytestmark = pytest.mark.lab
CTRL_C = b"\x03"
STUBBORN = LAST_WORDS.replace("trap '", "trap '' TERM; trap '")[: len("trap '' TERM; ")] + (
    'echo "rank $RANK met"; while :; do sleep 0.1; done'
)


def started(phalanx: Phalanx, script: str, *more: str) -> Run:
    run = phalanx.start(*IN_CONTAINERS, *IN_A_HURRY, *more, "--", "sh", "-c", script, terminal=True)
    for rank in range(4):
        run.wait_output(f"rank {rank} met")
    return run


def test_ctrl_c_once_lets_the_ranks_say_their_last_words_and_ends_with_130(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    run = started(phalanx, LAST_WORDS)
    run.type(CTRL_C)
    run.ends(130)
    assert "Ctrl-C again kills it" in run.stderr
    assert "cancelled" in run.stderr
    for rank in range(4):
        assert f"last words of {rank}" in run.log(f"n{rank + 1}", f"rank{rank}.out").decode()
    assert run.verdict["state"] == "cancelled"
    nothing_left(cluster)


def test_ctrl_c_twice_kills_ranks_that_do_not_listen(cluster: Cluster, phalanx: Phalanx) -> None:
    run = started(phalanx, STUBBORN, "--stop-grace", "60")
    run.type(CTRL_C)
    run.wait_event("cancel.requested", level=1)
    run.type(CTRL_C)
    run.wait_event("cancel.requested", level=2)
    run.ends(130, within=20)
    assert "killing" in run.stderr
    nothing_left(cluster)


def test_ctrl_c_three_times_leaves_at_once_whatever_the_controller_does(
    cluster: Cluster, phalanx: Phalanx
) -> None:
    run = started(phalanx, LAST_WORDS)
    controller = run.controller
    os.kill(controller, signal.SIGSTOP)
    run.type(CTRL_C)
    run.wait_output("Ctrl-C again kills it")
    run.type(CTRL_C)
    run.wait_output("Ctrl-C again leaves at once")
    run.type(CTRL_C)
    assert run.wait(within=3) == 130
    os.kill(controller, signal.SIGCONT)
    until(lambda: not command_line(controller), 20, "the controller has ended the run by itself")
    assert run.verdict["state"] == "cancelled"
    nothing_left(cluster)
