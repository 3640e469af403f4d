"""A place that is paused stands still; it can still be stopped and closed, and its lease still ends it."""

from __future__ import annotations

import asyncio

import pytest
from phalanx.agent.lease import boottime
from phalanx.protocol.messages import Cause

from tests.runtimes.cases import Bench, running, text


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
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    step = await bench.start(place, "sh", "-c", script)
    async with asyncio.timeout(10):
        while "up" not in text(step, "out"):
            await asyncio.sleep(0.02)
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
