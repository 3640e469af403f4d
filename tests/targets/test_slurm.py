"""Allocations and agents on a real Slurm: got, used, and given back whatever happens."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from phalanx.controller.plan.model import Plan
from phalanx.controller.targets import make_target
from phalanx.controller.targets.agent_file import agent_file
from phalanx.controller.targets.base import Allocation, AllocationError, AllocationHealth
from phalanx.controller.targets.environment import slurm_environment
from phalanx.controller.targets.slurm import SlurmTarget
from phalanx.controller.targets.slurm_commands import SlurmCommands
from phalanx.controller.targets.slurm_step import SlurmSpawned

from tests.lab import Lab, missing_parts
from tests.targets.plans import SECRET, bootstrap_of, slurm_plan
from tests.targets.scripts import STAYER, STUBBORN, TELLER, Heard, script

pytestmark = pytest.mark.lab
NODES = 4


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    missing = missing_parts(slurm=True)
    if missing:
        pytest.skip(f"no lab here: {', '.join(missing)}")
    lab = Lab.up(name="targets", nodes=NODES)
    yield lab
    lab.down()


@pytest.fixture(autouse=True)
async def login(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The environment of a login node; afterwards no job may be left."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    for name, value in lab.env().items():
        monkeypatch.setenv(name, value)
    yield
    left = living(lab)
    lab.cancel_jobs()
    assert left == []


def state_of(lab: Lab, job: int | str) -> str:
    return lab.ask_slurm(["squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T"]).strip()


def living(lab: Lab) -> list[int]:
    """Jobs that have nodes or may get some; one that completes has lost them."""
    states = {job: state_of(lab, job) for job in lab.job_ids()}
    return [job for job, state in states.items() if state in ("PENDING", "CONFIGURING", "RUNNING")]


def target_of(plan: Plan, words: Heard | None = None) -> SlurmTarget:
    target = make_target(plan, (lambda line: words("", line)) if words else None)
    assert isinstance(target, SlurmTarget)
    return target


async def spawn(
    plan: Plan, target: SlurmTarget, allocation: Allocation, agent: Path, folder: Path, heard: Heard
) -> SlurmSpawned:
    return await target.spawn(allocation, bootstrap_of(plan), agent, folder, heard)


def sallocs(word: str) -> list[int]:
    """Processes of salloc with this argument."""
    found = psutil.process_iter(["cmdline"])
    return [
        one.pid for one in found if "salloc" in (one.info["cmdline"] or []) and word in one.info["cmdline"]
    ]


async def gone(check: object, within_s: float = 20.0) -> None:
    """Wait until a function says False."""
    async with asyncio.timeout(within_s):
        while check():  # type: ignore[operator]
            await asyncio.sleep(0.1)


async def test_nodes_are_got_used_and_given_back(lab: Lab, tmp_path: Path) -> None:
    heard = Heard()
    plan = slurm_plan(NODES, exclusive=True)
    target = target_of(plan)
    allocation = await target.allocate()
    assert allocation.nodes == tuple(lab.nodes) and allocation.owned
    assert (await target.report(allocation)).health is AllocationHealth.RUNNING
    before = time.monotonic()
    spawned = await spawn(plan, target, allocation, script(tmp_path / "agent", TELLER), tmp_path, heard)
    assert await spawned.wait() == (0, "")
    assert time.monotonic() - before < 1.0, "spawning on four nodes took a second or more"
    for rank, node in enumerate(lab.nodes):
        assert sorted(heard.of(node))[1].startswith("told {") and SECRET in sorted(heard.of(node))[1]
        assert sorted(heard.of(node))[0] == f"node {node} id {rank} args run --slurm --remove-self"
    await spawned.end(1)
    assert await target.release(allocation) == ""
    report = await target.report(allocation)
    assert (report.health, report.state) == (AllocationHealth.ENDED, "CANCELLED")


async def test_an_allocation_that_is_there_is_used_in_part_and_left_alone(lab: Lab) -> None:
    target = target_of(slurm_plan(3))
    outer = await target.allocate()
    inner = target_of(slurm_plan(2, job_id=outer.job_id))
    assert inner.allocation_argv() == ()
    allocation = await inner.allocate()
    assert allocation == Allocation(outer.job_id, outer.nodes[:2], owned=False)
    assert await inner.release(allocation) == ""
    assert state_of(lab, outer.job_id) == "RUNNING"
    with pytest.raises(
        AllocationError, match=rf"cannot run on 4 nodes: job {outer.job_id} has 3 \(n\[1-3\]\)"
    ):
        await target_of(slurm_plan(4, job_id=outer.job_id)).allocate()
    assert await target.release(outer) == ""
    with pytest.raises(AllocationError, match=r"it is (CANCELLED|COMPLETING)"):
        await inner.allocate()
    with pytest.raises(AllocationError, match="Invalid job id specified"):
        await target_of(slurm_plan(1, job_id="99999")).allocate()


async def test_a_request_that_is_cancelled_while_it_waits_leaves_the_queue(lab: Lab) -> None:
    heard = Heard()
    target = target_of(slurm_plan(NODES + 5), heard)
    waiting = asyncio.create_task(target.allocate())
    await heard.saw(lambda line: "queued and waiting" in line, 1)
    assert len(lab.job_ids()) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert living(lab) == []


async def test_a_request_that_is_cancelled_at_once_leaves_the_queue(lab: Lab) -> None:
    for delay in (0.0, 0.005, 0.01, 0.02, 0.03, 0.04):
        target = target_of(slurm_plan(NODES))
        waiting = asyncio.create_task(target.allocate())
        await asyncio.sleep(delay)
        waiting.cancel()
        try:
            await target.release(await waiting)
        except asyncio.CancelledError:
            assert waiting.cancelled()
        assert living(lab) == []


async def test_a_wait_that_is_too_long_ends_with_slurms_reason(lab: Lab) -> None:
    target = target_of(slurm_plan(NODES + 5, allocation_timeout_s=1.0))
    with pytest.raises(
        AllocationError, match=r"cannot get 9 nodes within 1 s: .*queued.*--allocation-timeout"
    ):
        await target.allocate()
    assert living(lab) == []


async def test_a_request_dies_with_its_controller(lab: Lab) -> None:
    controller = textwrap.dedent("""
        import asyncio, os, signal
        from tests.targets.plans import slurm_plan
        from phalanx.controller.targets import make_target
        def heard(line):
            if "queued" in line:
                os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(make_target(slurm_plan(99), heard).allocate())
    """)
    run = [sys.executable, "-c", controller]
    done = await asyncio.to_thread(subprocess.run, run, check=False, timeout=30, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    await gone(lambda: living(lab) or sallocs("--nodes=99"))


async def test_what_slurm_refuses_is_told_in_its_words_with_the_request() -> None:
    target = target_of(slurm_plan(1, partition="nope"))
    with pytest.raises(
        AllocationError, match=r"Invalid partition name specified; the request was: salloc .*=nope"
    ):
        await target.allocate()


async def test_an_allocation_cancelled_from_outside_is_reported_as_ended(lab: Lab, tmp_path: Path) -> None:
    heard = Heard()
    plan = slurm_plan(2)
    target = target_of(plan)
    allocation = await target.allocate()
    spawned = await spawn(plan, target, allocation, script(tmp_path / "agent", STAYER), tmp_path, heard)
    await heard.saw(lambda line: line == "up", 2)
    await asyncio.to_thread(lab.ask_slurm, ["scancel", allocation.job_id])
    await spawned.wait()
    report = await target.report(allocation)
    assert report.health is AllocationHealth.ENDED
    assert report.state in ("COMPLETING", "CANCELLED")
    assert await target.release(allocation) == ""
    await spawned.end(1)


async def test_trouble_with_the_scheduler_is_not_known_rather_than_ended(lab: Lab, tmp_path: Path) -> None:
    target = target_of(slurm_plan(1))
    allocation = await target.allocate()
    elsewhere = tmp_path / "slurm.conf"
    conf = lab.topology.etc / "slurm.conf"
    elsewhere.write_text(re.sub(r"(?m)^SlurmctldPort=.*$", "SlurmctldPort=1", conf.read_text()))
    environ = slurm_environment({**os.environ, "SLURM_CONF": str(elsewhere)})
    lost = SlurmTarget(slurm_plan(1), commands=lambda: SlurmCommands(environ, deadline_s=1.0, pauses_s=()))
    report = await lost.report(allocation)
    assert (report.health, report.state) == (AllocationHealth.UNKNOWN, "")
    assert "no answer within 1 s" in report.reason or "contact slurm controller" in report.reason
    assert f"end it with: scancel {allocation.job_id}" in await lost.release(allocation)
    assert await target.release(allocation) == ""


async def test_a_polite_end_reaches_every_agent_and_removes_what_is_left(lab: Lab, tmp_path: Path) -> None:
    heard = Heard()
    plan = slurm_plan(NODES)
    target = target_of(plan)
    allocation = await target.allocate()
    spawned = await spawn(plan, target, allocation, script(tmp_path / "agent", STAYER), tmp_path, heard)
    await heard.saw(lambda line: line == "up", NODES)
    await spawned.end(10)
    assert [line for _, line in heard.lines].count("ended politely") == NODES
    assert lab.ask_slurm(["squeue", "-h", "-s", "-j", allocation.job_id, "-o", "%j"]).split() in (
        [],
        ["extern"],
    )
    assert await target.release(allocation) == ""


async def test_agents_that_ignore_the_polite_end_are_killed_and_their_file_is_removed(
    lab: Lab, tmp_path: Path
) -> None:
    heard = Heard()
    plan = slurm_plan(2)
    target = target_of(plan)
    allocation = await target.allocate()
    spawned = await spawn(plan, target, allocation, script(tmp_path / "agent", STUBBORN), tmp_path, heard)
    await heard.saw(lambda line: line == "up", 2)
    name = f"phalanx-agent-{plan.run_id}"
    assert name in lab.exec("n1", ["ls", "/tmp"]).stdout
    await spawned.end(0.3)
    assert "srun: error: n1: task 0: Killed" in heard.of("n1")
    for node in ("n1", "n2"):
        assert name not in lab.exec(node, ["ls", "/tmp"]).stdout
    assert await target.release(allocation) == ""


async def test_an_srun_that_is_killed_ends_the_spawn_and_leaves_no_agent(lab: Lab, tmp_path: Path) -> None:
    heard = Heard()
    plan = slurm_plan(2)
    target = target_of(plan)
    allocation = await target.allocate()
    spawned = await spawn(plan, target, allocation, script(tmp_path / "agent", STAYER), tmp_path, heard)
    await heard.saw(lambda line: line == "up", 2)
    os.kill(spawned._process.pid, signal.SIGKILL)
    status, words = await spawned.wait()
    assert (status, words.split(";")[0]) == (-signal.SIGKILL, "killed by SIGKILL")
    await spawned.end(2)
    assert plan.run_id not in lab.ask_slurm(["squeue", "-h", "-s", "-o", "%j"])
    assert (await target.report(allocation)).health is AllocationHealth.RUNNING
    assert await target.release(allocation) == ""


async def test_agents_that_outlive_a_killed_srun_are_still_ended_politely(lab: Lab, tmp_path: Path) -> None:
    heard = Heard()
    plan = slurm_plan(2)
    target = target_of(plan)
    allocation = await target.allocate()
    polite = STAYER.replace('echo "ended politely" >&2', f"touch /tmp/polite-{plan.run_id}")
    spawned = await spawn(plan, target, allocation, script(tmp_path / "agent", polite), tmp_path, heard)
    await heard.saw(lambda line: line == "up", 2)
    os.killpg(spawned._process.pid, signal.SIGKILL)
    await spawned.wait()
    await spawned.end(10)
    for node in ("n1", "n2"):
        assert lab.exec(node, ["ls", f"/tmp/polite-{plan.run_id}"]).returncode == 0
    assert plan.run_id not in lab.ask_slurm(["squeue", "-h", "-s", "-o", "%j"])
    assert await target.release(allocation) == ""


async def test_a_node_without_python_says_so_and_the_others_run(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    plan = slurm_plan(NODES)
    target = target_of(plan)
    allocation = await target.allocate()
    lab.hide("n3", "/usr/bin/python3*")
    try:
        real = agent_file(tmp_path / "cache").path
        spawned = await spawn(plan, target, allocation, real, tmp_path, heard)
        await heard.saw(lambda line: "task 2: Exited with exit code 127" in line, 1)
        reason = spawned.reason("n3")
        assert reason.startswith(
            "srun: error: n3: task 2: Exited with exit code 127 → phalanx-agent: cannot start on n3"
        )
        assert spawned.reason("n1") == ""
        await spawned.end(5)
    finally:
        lab.unhide("n3")
    assert f"phalanx-agent-{plan.run_id}" not in lab.exec("n3", ["ls", "/tmp"]).stdout
    assert await target.release(allocation) == ""


async def test_a_node_whose_slurmd_is_gone_is_named_and_the_rest_can_be_spawned_again(
    lab: Lab, tmp_path: Path
) -> None:
    heard, again = Heard(), Heard()
    plan = slurm_plan(NODES)
    target = target_of(plan)
    allocation = await target.allocate()
    lab.exec("n4", ["sh", "-c", "kill -KILL $(cat /run/slurmd.pid)"], check=True)
    try:
        agent = script(tmp_path / "agent", STAYER)
        spawned = await spawn(plan, target, allocation, agent, tmp_path, heard)
        status, _ = await spawned.wait()
        assert status != 0
        assert spawned.failed_nodes() == ("n4",)
        assert "Communication connection failure → its slurmd does not answer" in spawned.reason("n4")
        assert (
            spawned.reason("n1") == "srun ended the agents of all nodes because it could not start one on n4"
        )
        await spawned.end(1)
        rest = Allocation(allocation.job_id, allocation.nodes[:3], owned=True)
        second = await spawn(plan, target, rest, agent, tmp_path, again)
        await again.saw(lambda line: line == "up", 3, within_s=60)
        await second.end(5)
        assert {node for node, line in again.lines if line == "ended politely"} == {"n1", "n2", "n3"}
    finally:
        assert await target.release(allocation) == ""
        lab.start_service("n4", "slurmd")


async def test_what_slurm_thinks_of_a_node_is_told_when_it_is_asked(lab: Lab, tmp_path: Path) -> None:
    plan = slurm_plan(2)
    target = target_of(plan)
    allocation = await target.allocate()
    spawned = await spawn(plan, target, allocation, script(tmp_path / "agent", TELLER), tmp_path, Heard())
    await spawned.wait()
    lab.ask_slurm(["scontrol", "update", "nodename=n2", "state=drain", "reason=bad fan"])
    try:
        await spawned.inquire(["n1", "n2"])
    finally:
        lab.ask_slurm(["scontrol", "update", "nodename=n2", "state=resume"])
    assert "; Slurm says the node is DRAIN (bad fan" in spawned.reason("n2")
    assert "Slurm says" not in spawned.reason("n1")
    await spawned.end(1)
    assert await target.release(allocation) == ""


async def test_the_secret_is_nowhere_but_in_the_agents_stdin(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    monkeypatch.setenv("PHALANX_TEST_TOKEN", "c4n4ry-of-the-login")
    plan = slurm_plan(2)
    target = target_of(plan)
    allocation = await target.allocate()
    body = STAYER.replace("echo up >&2", "env | grep -q c4n4ry && echo leaked >&2; echo up >&2")
    spawned = await spawn(plan, target, allocation, script(tmp_path / "agent", body), tmp_path, heard)
    await heard.saw(lambda line: line == "up", 2)
    assert "leaked" not in [line for _, line in heard.lines]
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            seen = " ".join(process.cmdline()) + str(process.environ())
        except psutil.Error:
            continue
        assert SECRET not in seen, process.name()
    spool = [
        lab.topology.state / "slurmctld",
        *(lab.path(node, "/var/spool/slurmd") for node in ("n1", "n2")),
    ]
    for folder in spool:
        for path in folder.rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), path
    await spawned.end(5)
    assert await target.release(allocation) == ""
    assert SECRET not in (tmp_path / "srun.err").read_text() + (tmp_path / "srun.out").read_text()
