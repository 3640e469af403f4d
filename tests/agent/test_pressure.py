"""A workload that writes more than the controller takes: it is paused, the disk is spared, no byte is lost."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from phalanx.agent.lease import boottime
from phalanx.agent.pressure import RESERVE_BYTES, SHORT_BYTES, Gauge
from phalanx.protocol import messages as m
from phalanx.protocol.messages import Cause

from tests.runtimes.cases import Bench, running
from tests.runtimes.conftest import *  # noqa: F403 - the runtimes under test

from .agent import Agent
from .controller import Controller

MIB = 1 << 20
ROOMY = RESERVE_BYTES * 4


def test_a_case_is_paused_before_its_quota_is_full_and_goes_on_below_half() -> None:
    gauge = Gauge(quota=100 * MIB)
    answers = [gauge.judge(size * MIB, ROOMY) for size in (0, 30, 60, 85, 85, 60, 51, 50, 60, 49)]
    assert answers == [False, False, False, True, True, True, True, False, False, False]


def test_a_disk_that_fills_up_pauses_who_has_output_waiting_and_nobody_else() -> None:
    gauge = Gauge(quota=100 * MIB)
    assert not gauge.judge(SHORT_BYTES // 4, RESERVE_BYTES - 1)
    assert gauge.judge(SHORT_BYTES, RESERVE_BYTES - 1)
    assert gauge.judge(SHORT_BYTES, RESERVE_BYTES - 1)
    assert not gauge.judge(SHORT_BYTES, RESERVE_BYTES)


def spool_bytes(base: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in base.glob("cases/*/spool/*/*/out"))


@pytest.mark.local
async def test_300_mb_beyond_a_small_quota_wait_in_the_workload_and_all_arrive(tmp_path: Path) -> None:
    quota, size = 16 * MIB, 300_000_000
    async with Controller() as controller:
        async with Agent(tmp_path, controller.bootstrap(), quota=quota) as agent:
            controller.keep = controller.acking = False
            await controller.open_case()
            # a child that has left the group and the session of its parent is held as well
            script = f"setsid sh -c 'yes 0123456789abcdef | head -c {size}' & wait"
            controller.shell("main", script)
            assert "is paused" in (await controller.heard(m.Notice)).text
            held = await steady(agent.base)
            assert held < quota + 64 * MIB
            most = 0
            controller.ack_all()
            exited = asyncio.create_task(controller.heard(m.StepExited))
            while not exited.done():
                most = max(most, spool_bytes(agent.base))
                await asyncio.sleep(0.01)
            assert exited.result().status == 0
            assert most < quota + 64 * MIB
            await asyncio.wait_for(controller.log("main").whole.wait(), 60)
            line = b"0123456789abcdef\n"
            expected = hashlib.sha256((line * (size // len(line) + 1))[:size])
            assert controller.log("main").digest.digest() == expected.digest()
            assert "goes on" in (await controller.heard(m.Notice)).text


async def steady(base: Path) -> int:
    """The size of the spool once it has not grown for half a second."""
    seen, since = -1, 0
    while since < 50:
        size = spool_bytes(base)
        since = since + 1 if size == seen else 0
        seen = size
        await asyncio.sleep(0.01)
    return seen


@pytest.mark.local
async def test_a_paused_step_that_is_stopped_can_still_save_its_work(tmp_path: Path) -> None:
    async with Controller() as controller:
        async with Agent(tmp_path, controller.bootstrap(), quota=4 * MIB):
            controller.keep = controller.acking = False
            await controller.open_case()
            controller.shell(
                "main", "trap 'echo saved >saved; exit 0' TERM; while :; do head -c 100000 /dev/zero; done"
            )
            await controller.heard(m.Notice)
            controller.tell(m.StepStop("demo", "main", 20.0))
            assert (await controller.heard(m.StepExited)).cause is m.Cause.STOPPED
            assert (tmp_path / "base/cases/demo/work/saved").exists()


async def test_what_is_paused_stands_still_and_goes_on_when_it_may(bench: Bench) -> None:
    place = await bench.open()
    step = await bench.start(place, "sh", "-c", "while [ ! -e go ]; do echo .; done; echo went on")
    out = step.directory / "out"
    while not out.exists() or out.stat().st_size == 0:
        await asyncio.sleep(0.01)
    await place.pause()
    size, same = -1, 0
    async with asyncio.timeout(20):
        while same < 20:
            same = same + 1 if out.stat().st_size == size else 0
            size = out.stat().st_size
            await asyncio.sleep(0.02)
    (bench.places().work / "go").touch()
    await place.resume()
    assert (await step.wait()).status == 0
    assert out.read_bytes().endswith(b"went on\n")


async def test_a_paused_place_ends_with_its_lease(bench: Bench) -> None:
    place = await bench.open()
    step = await bench.start(place, "sleep", "321.5")
    await place.pause()
    place.lease.renew(boottime())
    ended = await asyncio.wait_for(step.wait(), 20)
    assert ended.cause in (Cause.STOPPED, Cause.ENGINE)
    assert not running("sleep 321.5")


@pytest.mark.parametrize("grace_s", [0.0, 10.0])
async def test_a_paused_step_can_be_stopped(bench: Bench, grace_s: float) -> None:
    place = await bench.open()
    step = await bench.start(place, "sh", "-c", "trap 'echo bye; exit 3' TERM; while :; do sleep 0.1; done")
    await place.pause()
    await asyncio.wait_for(step.stop(grace_s), 20)
    ended = await step.wait()
    assert ended.cause is Cause.STOPPED
    assert ended.status == (3 if grace_s else 137)


async def test_a_paused_place_can_be_closed(bench: Bench) -> None:
    place = await bench.open()
    await bench.start(place, "sleep", "322.5")
    await place.pause()
    await asyncio.wait_for(place.close(5.0), 30)
    assert not running("sleep 322.5")
