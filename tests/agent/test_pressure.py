"""A workload that writes more than the controller takes is paused: the disk is spared, no byte is lost."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from phalanx.agent.pressure import RESERVE_BYTES, SHORT_BYTES, Gauge
from phalanx.protocol import messages as m

from .agent import Agent
from .controller import Controller

MIB = 1 << 20
ROOMY = RESERVE_BYTES * 4
#: What may be written until a pause takes hold. Here agent, controller and workload share an event loop and
#: the processors with other tests; still far less than is written in all.
SLACK = 320 * MIB


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
async def test_600_mb_beyond_a_small_quota_wait_in_the_workload_and_all_arrive(tmp_path: Path) -> None:
    quota, size = 16 * MIB, 600_000_000
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap(), quota=quota) as agent:
        controller.keep = controller.acking = False
        await controller.open_case()
        # a child that has left the group and the session of its parent is held as well
        script = f"setsid sh -c 'yes 0123456789abcdef | head -c {size}' & wait"
        controller.shell("main", script)
        assert "is paused" in (await controller.heard(m.Notice)).text
        held = await steady(agent.base)
        assert held < quota + SLACK
        most = 0
        controller.ack_all()
        exited = asyncio.create_task(controller.heard(m.StepExited))
        while not exited.done():
            most = max(most, spool_bytes(agent.base))
            await asyncio.sleep(0.01)
        assert exited.result().status == 0
        assert most < quota + SLACK
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
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap(), quota=4 * MIB):
        controller.keep = controller.acking = False
        await controller.open_case()
        controller.shell(
            "main", "trap 'echo saved >saved; exit 0' TERM; while :; do head -c 100000 /dev/zero; done"
        )
        await controller.heard(m.Notice)
        controller.tell(m.StepStop("demo", "main", 20.0))
        assert (await controller.heard(m.StepExited)).cause is m.Cause.STOPPED
        assert (tmp_path / "base/cases/demo/work/saved").exists()
