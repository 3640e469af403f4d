"""Nothing runs on after its agent, its engine or both were killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from phalanx.agent.lease import Lease, boottime
from phalanx.agent.runtimes.base import Running, RuntimeUnavailable
from phalanx.protocol.messages import Cause

from tests.runtimes import dockerd
from tests.runtimes.cases import IMAGE, Bench, running, text

LEASE_S = 3.0


async def _quietly(*argv: str) -> None:
    await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True)


def _fake_agent(bench: Bench, script: str, lease_s: float = LEASE_S) -> subprocess.Popen[bytes]:
    agent = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.runtimes.fake_agent", bench.kind.value),
            *(str(bench.root), bench.image, str(lease_s), script),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"running\n"
    return agent


async def test_after_kill_9_of_the_agent_everything_ends_with_the_lease(bench: Bench) -> None:
    script = "trap '' TERM; setsid sleep 411 & (setsid sleep 412 &) ; env -i sleep 413; sleep 414"
    agent = await asyncio.to_thread(_fake_agent, bench, script)
    await asyncio.to_thread(dockerd.until, lambda: running("sleep 413"), 10, "the command runs")
    agent.kill()
    agent.wait()
    assert agent.stdout is not None
    agent.stdout.close()
    names = ("sleep 411", "sleep 412", "sleep 413", "sleep 414")
    took = await asyncio.to_thread(
        dockerd.until, lambda: not any(map(running, names)), LEASE_S + 10, "all processes are gone"
    )
    assert took <= LEASE_S + 2
    words = await bench.runtime.sweep()
    if bench.docker:
        assert any("phx-" in word for word in words)


@pytest.mark.local
async def test_a_killed_supervisor_takes_its_commands_along_and_the_sweep_finds_the_rest(
    process: Bench,
) -> None:
    bench = process
    place = await bench.open(lease_s=2)
    step = await bench.start(place, "sh", "-c", "setsid sleep 415 & sleep 416")
    await asyncio.to_thread(dockerd.until, lambda: running("sleep 415"), 10, "the command runs")
    place.supervisor.kill()  # type: ignore[attr-defined]
    ended = await step.wait()
    assert ended.cause is Cause.SIGNALED
    Lease(place.lease.path).renew(0)
    await bench.runtime.sweep()
    names = ("sleep 415", "sleep 416")
    await asyncio.to_thread(dockerd.until, lambda: not any(map(running, names)), 2, "all processes are gone")


@pytest.mark.docker
async def test_after_kill_9_of_the_engine_the_workload_goes_on_and_ends_with_the_lease(
    own_engine: dockerd.Dockerd, docker_bench_of_own: Bench
) -> None:
    bench = docker_bench_of_own
    place = await bench.open(lease_s=60)
    step = await bench.start(place, "sh", "-c", "while [ ! -e go ]; do sleep 0.1; done; echo went")
    lasting = await bench.start(place, "sleep", "421", rank=1)
    own_engine.kill()
    (bench.places().work / "go").touch()
    ended = await asyncio.wait_for(step.wait(), 10)
    assert (ended.status, ended.cause, text(step, "out")) == (0, Cause.EXITED, "went\n")
    place.lease.renew(boottime() + 2)
    started = time.monotonic()
    ended = await asyncio.wait_for(lasting.wait(), 10)
    assert time.monotonic() - started <= 2 + 2
    assert ended.cause is Cause.STOPPED
    assert not running("sleep 421")


@pytest.mark.docker
async def test_a_hung_engine_costs_a_call_its_deadline_and_hides_no_result(
    own_engine: dockerd.Dockerd, docker_bench_of_own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = docker_bench_of_own
    place = await bench.open()
    step = await bench.start(place, "sh", "-c", "while [ ! -e go ]; do sleep 0.1; done; exit 4")
    lasting = await bench.start(place, "sleep", "422", rank=1)
    own_engine.signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(RuntimeUnavailable, match=r"look at image .* does not answer"):
            await bench.runtime.image_id(IMAGE)
        assert time.monotonic() - started < 20
        (bench.places().work / "go").touch()
        assert (await asyncio.wait_for(step.wait(), 5)).status == 4
        await asyncio.wait_for(lasting.stop(2), 10)
        assert (await lasting.wait()).cause is Cause.STOPPED
        monkeypatch.setattr("phalanx.agent.runtimes.container.CREATE_S", 2.0)
        with pytest.raises(RuntimeUnavailable, match="remove container"):
            await place.close(1)
        assert not running("sleep 422")
    finally:
        own_engine.signal(signal.SIGCONT)


@pytest.mark.docker
async def test_a_container_ended_from_outside_is_no_fault_of_the_command(docker: Bench) -> None:
    place = await docker.open()
    step = await docker.start(place, "sleep", "423")
    await place.life.container.kill()  # type: ignore[attr-defined]
    ended = await asyncio.wait_for(step.wait(), 10)
    assert (ended.status, ended.cause) == (137, Cause.ENGINE)
    assert place.container in ended.detail


_POLITE = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"


async def _is_up(step: Running) -> None:
    async with asyncio.timeout(10):
        while text(step, "out") != "up\n":
            await asyncio.sleep(0.01)


@pytest.mark.docker
async def test_a_command_that_ends_politely_with_its_container_has_not_done_its_work(docker: Bench) -> None:
    place = await docker.open()
    step = await docker.start(place, "sh", "-c", _POLITE)
    await _is_up(step)
    before, _, _ = await docker.run(place, "true")
    assert (before.status, before.cause) == (0, Cause.EXITED)
    await place.life.container.stop(t=10)  # type: ignore[attr-defined]
    ended = await asyncio.wait_for(step.wait(), 15)
    assert (ended.status, ended.cause) == (143, Cause.ENGINE)
    assert "from outside" in ended.detail


async def test_a_command_that_ends_politely_with_its_lease_has_not_done_its_work(bench: Bench) -> None:
    place = await bench.open()
    step = await bench.start(place, "sh", "-c", _POLITE)
    await _is_up(step)
    place.lease.end()
    ended = await asyncio.wait_for(step.wait(), 15)
    # an agent that slept for long may renew a lease on which its places have acted already
    place.lease.renew(boottime() + 60)
    assert ended.cause is Cause.STOPPED
    assert "lease" in ended.detail


@pytest.mark.docker
async def test_a_new_incarnation_removes_the_container_of_the_one_before(docker: Bench) -> None:
    from phalanx.protocol.messages import CaseOpen

    first = await docker.open()
    await docker.start(first, "sleep", "424")
    case = CaseOpen(1, "case", docker.spec(), (0,), 1, None)
    owner = docker.owner(incarnation="beef02")
    second = await docker.runtime.open_case(case, docker.places(), owner)
    docker.opened.append(second)
    assert second.container != first.container
    assert not running("sleep 424")
    ended, _, _ = await docker.run(second, "true")
    assert ended.status == 0


@pytest.mark.docker
async def test_the_sweep_leaves_alone_what_holds_and_what_is_not_ours(
    docker: Bench, engine: dockerd.Dockerd
) -> None:
    place = await docker.open(lease_s=60)
    create = ["docker", "-H", engine.url, "create", "--name"]
    for name, labels in (
        ("stranger", ["--label=phalanx.uid=0"]),
        ("other-uid", ["--label=phalanx.uid=4711", "--label=phalanx.run=x", "--label=phalanx.expires=1"]),
        ("expired", ["--label=phalanx.uid=0", "--label=phalanx.run=x", "--label=phalanx.expires=1"]),
    ):
        await _quietly(*create, name, *labels, IMAGE, "true")
    words = await docker.runtime.sweep()
    left = {entry["Names"][0].lstrip("/") for entry in engine.containers()}
    assert {place.container, "stranger", "other-uid"} <= left
    assert "expired" not in left
    assert [word for word in words if "container" in word] == [
        "container expired of run x: it has ended and its lease is over"
    ]
    for name in ("stranger", "other-uid"):
        await _quietly("docker", "-H", engine.url, "rm", name)


@pytest.mark.docker
async def test_closing_removes_the_container(docker: Bench, engine: dockerd.Dockerd) -> None:
    place = await docker.open()
    await docker.start(place, "sleep", "425")
    await place.close(1)
    assert place.container not in str(engine.containers())
    assert not running("sleep 425")
    await place.close(1)


_IN_A_SMALL_GROUP = """
import asyncio, os, sys
from pathlib import Path
from phalanx.agent.runtimes.base import CasePlaces, Owner
from phalanx.agent.runtimes.process import ProcessRuntime
from phalanx.protocol import messages as m

async def main(root, group):
    (group / "cgroup.procs").write_text(str(os.getpid()))
    base = root / "cases" / "case"
    places = CasePlaces(base, base / "work", base / "results", base / "spool", base / "sock")
    spec = m.ContainerSpec(m.Runtime.PROCESS)
    owner = Owner("run", "n1", 0, "ab", os.getuid(), 60)
    runtime = ProcessRuntime(root)
    place = await runtime.open_case(m.CaseOpen(1, "case", spec, (0,), 1, None), places, owner)
    step = m.StepStart("case", "main", ("tail", "-n", "1", "/dev/zero"), {}, {}, (0,), 0.0)
    running = await place.start(step, 0, {}, places.spool / "main" / "rank0")
    ended = await running.wait()
    await place.close(0)
    print(ended.status, ended.cause.value)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.mark.docker
def test_a_job_s_memory_that_runs_out_is_named_without_a_container_too(tmp_path: Path) -> None:
    version_1 = Path("/sys/fs/cgroup/memory")
    group = (version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")) / f"phx-test-{tmp_path.name}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if version_1.is_dir() else "memory.max")).write_text(str(128 << 20))
        program = [sys.executable, "-c", _IN_A_SMALL_GROUP, str(tmp_path), str(group)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("137 oom\n", "")
    finally:
        dockerd.until(lambda: not (group / "cgroup.procs").read_text(), 10, "it is empty")
        group.rmdir()
