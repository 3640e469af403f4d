"""Exit codes are an interface; this table is its contract."""

from __future__ import annotations

import pytest
from phalanx.controller.exits import MEANINGS, Exit, RankEnd, code_words, of_ranks, status_words
from phalanx.protocol.messages import Cause

OK = RankEnd(0, Cause.EXITED)
SEVEN = RankEnd(7, Cause.EXITED)
ONE = RankEnd(1, Cause.EXITED)
SEGV = RankEnd(139, Cause.SIGNALED)
OOM = RankEnd(137, Cause.OOM)
LATE = RankEnd(143, Cause.DEADLINE)
STOPPED = RankEnd(143, Cause.STOPPED)
NOT_FOUND = RankEnd(127, Cause.NOT_STARTED)
NO_START = RankEnd(255, Cause.NOT_STARTED)
LOST = RankEnd(255, Cause.LOST)


PUBLISHED = {
    "OK": 0,
    "FAILURE": 1,
    "BUILD": 2,
    "RUN": 3,
    "USAGE": 4,
    "VALIDATION": 5,
    "WARNINGS": 6,
    "REGRESSION": 7,
    "JOIN": 8,
    "IMAGE": 9,
    "SCHEDULER": 10,
    "LOST_CONTACT": 75,
    "TIMEOUT": 124,
    "LAUNCH": 125,
    "NOT_EXECUTABLE": 126,
    "NOT_FOUND": 127,
    "INTERRUPTED": 130,
    "OUT_OF_MEMORY": 253,
}


def test_the_published_codes_never_change() -> None:
    assert {member.name: int(member) for member in Exit} == PUBLISHED


def test_every_code_has_a_meaning_in_words() -> None:
    assert set(MEANINGS) == set(Exit)
    assert code_words(8) == "not all nodes joined"
    assert code_words(42) == ""


@pytest.mark.parametrize(
    ("ends", "workflow", "first", "highest", "any_"),
    [
        ([], 0, 0, 0, 0),
        ([OK, OK], 0, 0, 0, 0),
        ([OK, ONE, SEVEN], 3, 1, 7, 1),
        ([SEVEN, ONE], 3, 7, 7, 1),
        ([SEVEN, STOPPED, STOPPED], 3, 7, 7, 1),
        ([ONE, SEGV], 3, 1, 139, 1),
        ([SEGV], 3, 139, 139, 1),
        ([OOM, ONE], 3, 253, 253, 1),
        ([LATE, STOPPED], 3, 124, 124, 1),
        ([NOT_FOUND], 3, 127, 127, 1),
        ([NO_START, ONE], 3, 125, 125, 1),
        ([LOST, ONE], 3, 3, 3, 1),
        ([STOPPED, STOPPED], 3, 143, 143, 1),
        ([RankEnd(0, Cause.STOPPED)], 3, 1, 1, 1),
    ],
)
def test_the_code_of_a_run_by_its_ranks_and_the_policy(
    ends: list[RankEnd], workflow: int, first: int, highest: int, any_: int
) -> None:
    assert of_ranks(ends, "workflow") == workflow
    assert of_ranks(ends, "first") == first
    assert of_ranks(ends, "max") == highest
    assert of_ranks(ends, "any") == any_


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (7, "exit 7"),
        (126, "exit 126 (not executable)"),
        (127, "exit 127 (command not found)"),
        (139, "exit 139 (SIGSEGV: Segmentation fault)"),
        (137, "exit 137 (SIGKILL: Killed)"),
        (255, "exit 255"),
    ],
)
def test_a_status_in_words(status: int, words: str) -> None:
    assert status_words(status) == words
