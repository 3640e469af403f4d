"""A stop reaches the whole step, whenever it arrives, and leaves alone what the step does with it."""

from __future__ import annotations

import asyncio
import random
import time

from phalanx.agent.runtimes.processes import Process, Told
from phalanx.protocol.messages import Cause

from tests.runtimes.cases import Bench, running, text

#: A stop that lost its TERM takes this long, in seconds.
GRACE_S = 20.0
CYCLES, AT_ONCE = 240, 8

#: None of them is deaf to TERM.
STARTING = (
    ("sleep", "320"),
    ("sh", "-c", "echo up; [ $RANK = none ] && exit 7; sleep 321"),
    ("sh", "-c", "sleep 322 & sleep 322 & wait"),
    ("sh", "-c", "sh -c 'sh -c \"sleep 323; true\"; true'; true"),
    ("sh", "-c", "while :; do sleep 0.005; done"),
    ("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.01; done"),
)


async def test_a_stop_right_after_the_start_never_waits_for_its_grace(bench: Bench) -> None:
    place = await bench.open()
    chance = random.Random(11)
    slow: list[str] = []

    async def cycle(number: int) -> None:
        argv = STARTING[number % len(STARTING)]
        step = await bench.start(place, *argv, env={"RANK": str(number)})
        await asyncio.sleep(chance.choice((0.0, 0.0, chance.uniform(0, 0.04))))
        asked = time.monotonic()
        await step.stop(GRACE_S)
        ended = await asyncio.wait_for(step.wait(), GRACE_S)
        took = time.monotonic() - asked
        if took > GRACE_S / 2 or ended.status == 137:
            slow.append(f"{argv}: {ended.status} {ended.cause.value} after {took:.1f} s")

    for first in range(0, CYCLES, AT_ONCE):
        await asyncio.gather(*(cycle(number) for number in range(first, first + AT_ONCE)))
        assert not slow
    assert not any(running(f"sleep {number}") for number in range(320, 324))


async def test_what_a_command_starts_to_save_its_work_is_not_told_to_end(bench: Bench) -> None:
    place = await bench.open()
    script = "trap 'sleep 1 && echo saved; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    step = await bench.start(place, "sh", "-c", script)
    async with asyncio.timeout(10):
        while text(step, "out") != "up\n":
            await asyncio.sleep(0.01)
    await step.stop(GRACE_S)
    ended = await step.wait()
    assert (ended.status, ended.cause, text(step, "out")) == (5, Cause.STOPPED, "up\nsaved\n")


def _process(pid: int, parent: int, program: int = 1, started: int = 10) -> Process:
    return Process(pid, parent, pid, "S", started, "x", 1, 0, 0, program)


def test_everyone_is_told_once() -> None:
    told = Told()
    members = [_process(10, 1), _process(11, 10), _process(12, 11)]
    assert told.missing(members) == members
    assert told.missing(members) == []


def test_a_process_that_runs_another_program_is_told_again() -> None:
    told = Told()
    told.missing([_process(10, 1), _process(11, 10)])
    fresh = _process(11, 10, program=2)
    assert told.missing([_process(10, 1), fresh]) == [fresh]
    assert told.missing([_process(10, 1), fresh]) == []


def test_a_newcomer_is_told_unless_its_parent_was_told_and_lives_on() -> None:
    told = Told()
    told.missing([_process(10, 1)])
    saving = _process(11, 10)
    assert told.missing([_process(10, 1), saving]) == []
    orphan = _process(11, 1)
    assert told.missing([orphan]) == [orphan]


def test_a_newcomer_with_the_pid_of_one_that_is_gone_is_told() -> None:
    told = Told()
    told.missing([_process(10, 1)])
    other = _process(10, 1, started=99)
    assert told.missing([other]) == [other]
