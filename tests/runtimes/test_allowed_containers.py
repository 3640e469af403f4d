"""Containers that are mightier or poorer than others, in a real engine: had with the word, not without it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from phalanx.agent.runtimes import engine_limits
from phalanx.agent.runtimes.base import Running, RuntimeUnavailable
from phalanx.agent.runtimes.docker import DockerRuntime
from phalanx.protocol.messages import Allowance, Cause, Limits, Mount, Tmpfs, Ulimit

from tests.runtimes import dockerd
from tests.runtimes.cases import Bench, running, text

pytestmark = pytest.mark.docker

NO_CAPABILITIES = "CapEff:\t0000000000000000"


@contextlib.contextmanager
def bystander(seconds: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the node that no container may end."""
    process = subprocess.Popen(["sleep", seconds], start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"pid": "host"}, "host-pid"),
        ({"uts": "host"}, "host-uts"),
        ({"userns": "host"}, "host-userns"),
        ({"cap_add": ("SYS_MODULE",)}, "capabilities"),
        ({"mounts": (Mount("/etc", "/e"),)}, "system-paths"),
    ],
)
async def test_without_the_word_no_container_is_made(
    docker: Bench, engine: dockerd.Dockerd, asked: dict[str, object], word: str
) -> None:
    with pytest.raises(RuntimeUnavailable, match=f"on n1: .*the run does not allow {word}"):
        await docker.open(**asked)
    assert engine.containers() == []
    await docker.open(**asked, allow=(Allowance(word),))
    assert len(engine.containers()) == 1


async def test_a_node_that_forbids_it_says_so_with_its_name_and_the_file(
    docker: Bench, engine: dockerd.Dockerd, tmp_path: Path
) -> None:
    file = tmp_path / "forbid"
    file.write_text("privileged\n")
    docker.runtime = DockerRuntime(tmp_path, file)
    await docker.runtime.open(None)
    with pytest.raises(RuntimeUnavailable, match=f"on n1: .*this node does not: {file}"):
        await docker.open(privileged=True, allow=(Allowance.PRIVILEGED,))
    assert engine.containers() == []


async def test_a_privileged_container_has_the_node_s_devices_and_capabilities(
    docker: Bench, engine: dockerd.Dockerd
) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"on n1: .*the run does not allow privileged"):
        await docker.open(privileged=True)
    assert engine.containers() == []
    script = "grep CapEff /proc/self/status; ls /dev"
    try:
        place = await docker.open(privileged=True, allow=(Allowance.PRIVILEGED,))
    except RuntimeUnavailable as error:
        # the engine was asked: only it can know what it has not to give; newer ones give what they have
        assert not _every_capability()
        assert "engine has not every capability itself" in str(error)
        assert "apply caps" in str(error)
        assert engine.containers() == []
        return
    _, out, _ = await docker.shell(place, script)
    mighty, devices = out.split("\n", 1)
    await place.close(0)
    place = await docker.open()
    _, out, _ = await docker.shell(place, script)
    plain, fewer = out.split("\n", 1)
    assert int(mighty.split()[1], 16) > int(plain.split()[1], 16)
    assert set(devices.split()) > set(fewer.split())


async def test_with_the_node_s_processes_in_sight_a_step_is_stopped_and_nobody_else(docker: Bench) -> None:
    with bystander("461") as other:
        place = await docker.open(pid="host", allow=(Allowance.HOST_PID,))
        _, out, _ = await docker.shell(place, "cat /proc/1/comm; kill -0 $PPID && echo sees")
        assert out.splitlines() == [_first_of_the_node(), "sees"]
        step = await docker.start(
            place, "sh", "-c", "sleep 462 & setsid sleep 463 & echo up; wait; wait; sleep 9"
        )
        await _says(step, "up")
        await step.stop(2)
        assert (await step.wait()).cause is Cause.STOPPED
        assert not running("sleep 462")
        assert not running("sleep 463")
        assert other.poll() is None


async def test_with_the_node_s_processes_in_sight_pausing_and_closing_reach_the_container_only(
    docker: Bench,
) -> None:
    with bystander("464") as other:
        place = await docker.open(pid="host", allow=(Allowance.HOST_PID,))
        step = await docker.start(place, "sh", "-c", "setsid sleep 465 & echo up; sleep 466")
        await _says(step, "up")
        await place.pause()
        await _until(lambda: _states("sleep 465", "sleep 466") == {"T"}, "they stand still")
        assert _states("sleep 464") <= {"S"}
        await place.resume()
        await _until(lambda: _states("sleep 465", "sleep 466") == {"S"}, "they go on")
        await place.close(1)
        assert not running("sleep 465")
        assert not running("sleep 466")
        assert other.poll() is None


async def test_with_the_node_s_processes_in_sight_the_lease_ends_the_container_only(docker: Bench) -> None:
    with bystander("467") as other:
        place = await docker.open(pid="host", allow=(Allowance.HOST_PID,), lease_s=3)
        step = await docker.start(place, "sh", "-c", "trap '' TERM; setsid sleep 468 & echo up; sleep 469")
        await _says(step, "up")
        ended = await asyncio.wait_for(step.wait(), 30)
        assert ended.cause is Cause.STOPPED
        await _until(lambda: not running("sleep 468") and not running("sleep 469"), "they are gone")
        assert other.poll() is None


@pytest.mark.parametrize("shell", ["busybox", "dash", "bash"])
async def test_every_kind_of_shell_tells_its_container_from_the_node(docker: Bench, shell: str) -> None:
    if os.environ.get("PHALANX_TEST_DOCKER_HOST"):
        pytest.skip("its engine has one kind of image")
    docker.image = f"phx-test/{shell}:1"
    with bystander("471") as other:
        place = await docker.open(pid="host", allow=(Allowance.HOST_PID,))
        step = await docker.start(place, "sh", "-c", "setsid sleep 472 & echo up; sleep 473")
        await _says(step, "up")
        await place.close(1)
        assert not running("sleep 472")
        assert not running("sleep 473")
        assert other.poll() is None


async def test_the_node_s_own_name_is_seen_with_its_uts_namespace(docker: Bench) -> None:
    place = await docker.open(uts="host", allow=(Allowance.HOST_UTS,))
    _, out, _ = await docker.shell(place, "cat /proc/sys/kernel/hostname")
    assert out.strip() == os.uname().nodename


async def test_a_container_can_have_a_name_of_its_own_and_know_one_more_host(docker: Bench) -> None:
    place = await docker.open(hostname="gpu-box", extra_hosts=("db:10.0.0.7",))
    _, out, _ = await docker.shell(place, "cat /proc/sys/kernel/hostname; grep db /etc/hosts")
    assert out.split() == ["gpu-box", "10.0.0.7", "db"]


async def test_dropped_capabilities_are_gone_and_steps_still_run_and_stop(docker: Bench) -> None:
    place = await docker.open(cap_drop=("ALL",))
    ended, out, _ = await docker.shell(
        place, "grep CapEff /proc/self/status; echo row >/run/phalanx/results/r"
    )
    assert (ended.status, out.strip()) == (0, NO_CAPABILITIES)
    assert (docker.places().results / "r").read_text() == "row\n"
    step = await docker.start(place, "sleep", "474")
    await step.stop(2)
    assert (await step.wait()).cause is Cause.STOPPED


async def test_a_read_only_image_leaves_tmpfs_and_the_case_s_own_folders_to_write(docker: Bench) -> None:
    place = await docker.open(read_only=True, tmpfs=(Tmpfs("/tmp", "size=1m,mode=1777"),))
    script = "touch /x; touch /tmp/x /myworkspace/x /run/phalanx/results/x && grep ' /tmp ' /proc/mounts"
    ended, out, err = await docker.shell(place, script)
    assert ended.status == 0
    assert "size=1024k" in out
    assert "Read-only" in err


@pytest.mark.parametrize("shell", ["busybox", "dash", "bash"])
async def test_every_container_has_an_init_that_reaps_orphans(docker: Bench, shell: str) -> None:
    if os.environ.get("PHALANX_TEST_DOCKER_HOST"):
        pytest.skip("its engine has one kind of image")
    docker.image = f"phx-test/{shell}:1"
    place = await docker.open()
    # each is left by its parent, ends, and stays a zombie until PID 1 has waited for it
    script = (
        "for n in 1 2 3 4 5; do sh -c 'sleep 0.1 & exit 0'; done; sleep 3; grep -h State /proc/[0-9]*/status"
    )
    ended, out, _ = await docker.shell(place, script)
    assert ended.status == 0
    assert "S (sleeping)" in out
    assert "zombie" not in out


async def test_a_limit_that_no_engine_can_give_is_refused_before_the_start(
    docker: Bench, engine: dockerd.Dockerd
) -> None:
    most = engine_limits.limits_of(os.environ["DOCKER_HOST"]).ceilings["nofile"]
    assert most >= 1024
    with pytest.raises(RuntimeUnavailable, match=f"ulimit nofile={most + 1}: .* at most {most}"):
        await docker.open(limits=Limits(ulimits=(Ulimit("nofile", 1024, most + 1),)))
    assert engine.containers() == []


def _every_capability() -> bool:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("CapBnd"))
    return int(line.split()[1], 16) == (1 << int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1) - 1


def _first_of_the_node() -> str:
    return Path("/proc/1/comm").read_text().strip()


def _states(*commands: str) -> set[str]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip() in commands:
                found.add((entry / "stat").read_text().rpartition(")")[2].split()[0])
    return found


async def _says(step: Running, words: str) -> None:
    await _until(lambda: words in text(step, "out"), f"it says {words}")


async def _until(happened: Callable[[], bool], what: str) -> None:
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within 20 s: {what}")
