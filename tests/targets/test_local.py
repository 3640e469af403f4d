"""Agents as processes of this machine: started, heard, ended, none left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from phalanx.controller.plan.model import TargetPlan
from phalanx.controller.targets import make_target
from phalanx.controller.targets.base import AllocationHealth, SpawnError
from phalanx.controller.targets.local import LocalSpawned, LocalTarget

from tests.targets.plans import SECRET, bootstrap_of, plan_for
from tests.targets.scripts import STAYER, STUBBORN, TELLER, Heard, script

pytestmark = pytest.mark.local


async def spawn(nodes: int, agent: Path, folder: Path, heard: Heard, python: str = "") -> LocalSpawned:
    plan = plan_for(TargetPlan("local", nodes, agent_python=python))
    target = make_target(plan)
    assert isinstance(target, LocalTarget)
    return await target.spawn(await target.allocate(), bootstrap_of(plan), agent, folder, heard)


def child_of(heard: Heard, node: str) -> int:
    return next(int(line.split()[1]) for line in heard.of(node) if line.startswith("child "))


def ended(pid: int) -> bool:
    """Gone, or waiting for the machine's first process to take note."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_each_agent_is_told_who_it_is_and_reads_the_bootstrap_line(tmp_path: Path) -> None:
    heard = Heard()
    spawned = await spawn(3, script(tmp_path / "agent", TELLER), tmp_path, heard)
    assert await spawned.wait() == (0, "")
    for rank, node in enumerate(("local1", "local2", "local3")):
        told, who = heard.of(node)
        assert told.startswith("told {") and SECRET in told
        assert who.endswith(f"args run --node {node} --node-rank {rank}")
    await spawned.end(1)


async def test_a_chosen_python_is_passed_on_first(tmp_path: Path) -> None:
    heard = Heard()
    spawned = await spawn(1, script(tmp_path / "agent", TELLER), tmp_path, heard, python="/opt/python3")
    await spawned.wait()
    assert heard.of("local1")[1].endswith("args --python /opt/python3 run --node local1 --node-rank 0")
    assert spawned.argv[:3] == (str(tmp_path / "agent"), "--python", "/opt/python3")


async def test_the_secret_is_neither_in_argv_nor_in_the_environment(tmp_path: Path) -> None:
    heard = Heard()
    spawned = await spawn(1, script(tmp_path / "agent", STAYER), tmp_path, heard)
    await heard.saw(lambda line: line.startswith("child "), 1)
    process = psutil.Process(psutil.Process(child_of(heard, "local1")).ppid())
    assert SECRET not in " ".join(process.cmdline())
    assert SECRET not in str(process.environ())
    assert os.getsid(process.pid) == process.pid
    await spawned.end(5)


async def test_an_agent_that_fails_is_explained_by_its_last_words(tmp_path: Path) -> None:
    agent = script(
        tmp_path / "agent", 'read -r l; echo "cannot reach 10.0.0.1" >&2; [ $3 = local2 ] && exit 7; exit 0\n'
    )
    spawned = await spawn(2, agent, tmp_path, Heard())
    assert await spawned.wait() == (7, "local2: exit status 7")
    assert spawned.reason("local2") == "agent ended with exit status 7: cannot reach 10.0.0.1"
    await spawned.end(1)


async def test_a_polite_end_lets_agents_finish_and_takes_what_they_left(tmp_path: Path) -> None:
    heard = Heard()
    spawned = await spawn(2, script(tmp_path / "agent", STAYER), tmp_path, heard)
    await heard.saw(lambda line: line.startswith("child "), 2)
    assert spawned.reason("local1") == ""
    await spawned.end(10)
    assert [line for _, line in heard.lines].count("ended politely") == 2
    async with asyncio.timeout(5):
        while not all(ended(child_of(heard, node)) for node in ("local1", "local2")):
            await asyncio.sleep(0.01)
    assert await spawned.wait() == (0, "")


async def test_an_agent_that_ignores_the_polite_end_is_killed_after_the_grace(tmp_path: Path) -> None:
    heard = Heard()
    spawned = await spawn(1, script(tmp_path / "agent", STUBBORN), tmp_path, heard)
    await heard.saw(lambda line: line == "up", 1)
    await spawned.end(0.2)
    assert await spawned.wait() == (-signal.SIGKILL, "local1: killed by SIGKILL")


async def test_a_file_that_cannot_be_started_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(SpawnError, match=r"cannot start an agent .*/none: No such file"):
        await spawn(2, tmp_path / "none", tmp_path, Heard())


async def test_loopback_is_all_that_local_agents_need() -> None:
    target = make_target(plan_for(TargetPlan("local", 2, advertise=("eth9",))))
    assert target.listen_addresses() == ("127.0.0.1",)
    assert target.allocation_argv() == ()
    allocation = await target.allocate()
    assert (await target.report(allocation)).health is AllocationHealth.RUNNING
    assert await target.release(allocation) == ""


def test_agents_outlive_a_controller_that_is_killed(tmp_path: Path) -> None:
    agent = script(
        tmp_path / "agent",
        'read -r l; echo $$ > "$(dirname "$0")/pid.new"; mv "$(dirname "$0")/pid.new" '
        '"$(dirname "$0")/pid"; trap "" HUP; exec sleep 1000\n',
    )
    controller = textwrap.dedent(f"""
        import asyncio, os, signal, time
        from pathlib import Path
        from tests.targets.scripts import Heard
        from tests.targets.test_local import spawn
        async def main():
            await spawn(1, Path({str(agent)!r}), Path({str(tmp_path)!r}), Heard())
            while not Path({str(tmp_path / "pid")!r}).exists():
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """)
    done = subprocess.run([sys.executable, "-c", controller], check=False, timeout=30, start_new_session=True)
    assert done.returncode == -signal.SIGKILL
    process = psutil.Process(int((tmp_path / "pid").read_text()))
    assert process.status() != psutil.STATUS_ZOMBIE
    process.kill()


async def test_a_cancelled_wait_leaves_the_agents_alone(tmp_path: Path) -> None:
    heard = Heard()
    spawned = await spawn(1, script(tmp_path / "agent", STAYER), tmp_path, heard)
    await heard.saw(lambda line: line == "up", 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await spawned.wait()
    assert spawned.reason("local1") == ""
    await spawned.end(5)
    assert "ended politely" in heard.of("local1")
