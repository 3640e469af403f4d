"""What only a container has: users, shells, metadata, mounts, and images that cannot hold a step."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from phalanx.agent.runtimes.base import RuntimeUnavailable
from phalanx.protocol.messages import CaseOpen, Cause, Limits, Mount

from tests.runtimes import archives, dockerd
from tests.runtimes.cases import Bench, running

pytestmark = pytest.mark.docker


async def test_no_value_of_the_environment_is_in_the_engine_s_metadata(
    docker: Bench, engine: dockerd.Dockerd
) -> None:
    place = await docker.open(env={"CASE": "sesame-case"})
    step = await docker.start(
        place, "sleep", "30", env={"RANK_VALUE": "sesame-rank"}, secrets={"TOKEN": "sesame-token"}
    )
    shown = engine.inspect(place.container)
    execs = [json.loads(engine.get(f"/v1.41/exec/{found}/json")) for found in shown["ExecIDs"]]
    assert len(execs) == 1
    assert "sesame" not in json.dumps([shown, execs])
    assert not running("sesame")
    spooled = [path.read_bytes() for path in docker.root.rglob("*") if path.is_file()]
    assert not any(b"sesame" in content for content in spooled)
    await step.stop(0)


async def test_a_container_says_whose_it_is(docker: Bench, engine: dockerd.Dockerd) -> None:
    place = await docker.open(lease_s=60)
    labels = engine.inspect(place.container)["Config"]["Labels"]
    assert place.container == "phx-run_abcd-case-0-cafe"
    assert labels["phalanx.run"] == "20260101-run-abcd"
    assert labels["phalanx.uid"] == "0"
    assert labels["phalanx.node_rank"] == "0"


@pytest.mark.parametrize("user", ["worker", "1234:1234", "4711"])
async def test_a_container_s_own_user_can_work_in_the_case_s_directories(docker: Bench, user: str) -> None:
    work = docker.places().work
    work.mkdir(parents=True)
    (work / "given.txt").write_text("given\n")
    place = await docker.open(user=user)
    script = (
        "id -u; cat given.txt; echo more >>given.txt; echo row >/run/phalanx/results/rows.csv; echo err >&2"
    )
    ended, out, err = await docker.shell(place, script, secrets={"TOKEN": "x"})
    assert (ended.status, ended.detail) == (0, "")
    assert out.split() == ["4711" if user == "4711" else "1234", "given"]
    assert err == "err\n"
    assert (docker.places().results / "rows.csv").read_text() == "row\n"
    step = await docker.start(place, "sleep", "431")
    await step.stop(5)
    assert (await step.wait()).cause is Cause.STOPPED


@pytest.mark.parametrize("shell", ["busybox", "dash", "bash"])
async def test_every_kind_of_shell_holds_the_contract(docker: Bench, shell: str) -> None:
    if url := os.environ.get("PHALANX_TEST_DOCKER_HOST"):
        archive = docker.root / "image.tar"
        archives.write_image(archive, f"phx-test/{shell}:1", shell=shell)
        await asyncio.to_thread(dockerd.load, url, archive)
    docker.image = f"phx-test/{shell}:1"
    place = await docker.open()
    for script, status, cause in (
        ("exit 137", 137, Cause.EXITED),
        ("kill -9 $$", 137, Cause.SIGNALED),
        ("kill -15 $$", 143, Cause.SIGNALED),
        ("kill -11 $$", 139, Cause.SIGNALED),
        ("kill -2 $$", 130, Cause.SIGNALED),
        ("exit 127", 127, Cause.EXITED),
    ):
        ended, _, _ = await docker.shell(place, script)
        assert (script, ended.status, ended.cause) == (script, status, cause)
    odd = {"UID": "7", "IFS": "x", "with-dash": "d", "LINES": "a\nb"}
    ended, out, _ = await docker.run(place, "env", env=odd)
    assert ended.status == 0
    for name, value in odd.items():
        assert f"{name}={value}\n" in out
    script = work_script(docker, "#!/no/such/interpreter\n")
    ended, _, _ = await docker.run(place, script)
    assert (ended.status, ended.cause) == (126, Cause.NOT_STARTED)
    assert "/no/such/interpreter" in ended.detail
    step = await docker.start(
        place, "sh", "-c", "trap '' TERM; sleep 432 & setsid sleep 433 & wait; wait; sleep 9"
    )
    await step.stop(1)
    assert (await step.wait()).cause is Cause.STOPPED
    assert "sleep 43" not in await place.diagnose()
    await place.close(2)


def work_script(docker: Bench, text: str) -> str:
    path = docker.places().work / "script"
    path.write_text(text)
    path.chmod(0o755)
    return "./script"


async def test_an_image_without_a_shell_is_refused_by_name(docker: Bench, engine: dockerd.Dockerd) -> None:
    docker.image = "phx-test/nosh:1"
    with pytest.raises(RuntimeUnavailable, match=r"phx-test/nosh:1 has no /bin/sh"):
        await docker.open()
    assert not [found for found in engine.containers() if "nosh" in found["Image"]]


async def test_an_absent_image_is_refused_by_name(docker: Bench) -> None:
    with pytest.raises(RuntimeUnavailable, match="image no/such:1 is not on this node"):
        await docker.open(image="no/such:1")


async def test_mounts_are_there_and_read_only_is_kept(docker: Bench, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one").write_text("1\n")
    place = await docker.open(mounts=(Mount(str(tmp_path / "data"), "/data", read_only=True),))
    ended, out, err = await docker.shell(place, "cat /data/one; touch /data/two")
    assert (out, ended.status) == ("1\n", 1)
    assert "Read-only" in err
    assert place.inside(tmp_path / "data" / "one") == "/data/one"


async def test_a_link_to_the_engine_s_socket_is_refused(docker: Bench, tmp_path: Path) -> None:
    link = tmp_path / "innocent"
    link.symlink_to(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    with pytest.raises(RuntimeUnavailable, match="socket"):
        await docker.open(mounts=(Mount(str(link), "/innocent"),))


async def test_a_mount_that_is_not_there_is_named(docker: Bench) -> None:
    with pytest.raises(RuntimeUnavailable, match="/no/such/data is not on this node"):
        await docker.open(mounts=(Mount("/no/such/data", "/data"),))


async def test_a_child_killed_for_memory_is_told_with_the_parent_s_own_status(docker: Bench) -> None:
    place = await docker.open(limits=Limits(memory_bytes=64 << 20))
    ended, _, _ = await docker.shell(place, "tail -n 1 /dev/zero; exit 3")
    assert (ended.status, ended.cause) == (3, Cause.EXITED)
    assert "killed 1 of the container's processes for memory" in ended.detail


async def test_the_workload_socket_is_where_the_workload_looks_for_it(docker: Bench) -> None:
    import socket

    path = docker.places().socket
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_PATH)  # the path of a test's folder may be too long for a socket
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        place = await docker.open(user="worker")
        ended, _, _ = await docker.shell(place, "test -S /run/phalanx.sock && test -w /run/phalanx.sock")
    assert ended.status == 0
    assert place.inside(path) == "/run/phalanx.sock"


async def test_an_agent_without_root_gets_back_what_the_container_s_root_made(
    docker: Bench, engine: dockerd.Dockerd
) -> None:
    engine.socket.chmod(0o666)
    engine.directory.chmod(0o711)
    root = Path("/tmp") / f"phx-nobody-{os.getpid()}"
    root.mkdir()
    os.chown(root, 65534, 65534)
    program = root / "agent.py"
    program.write_text(_UNPRIVILEGED)
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this test
        [sys.executable, str(program), str(root), docker.image],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "HOME": "/tmp", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    try:
        assert done.stderr == ""
        assert done.stdout.split() == ["0", "exited", "65534", "65534", "stopped", "clean"]
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=False)  # noqa: ASYNC221 - as above


#: Everything is imported before root is given up: where Python lies may be closed to everyone else.
_UNPRIVILEGED = """
import asyncio, os, shutil, sys
from pathlib import Path
import aiodocker, concurrent.futures.thread, encodings.idna
import phalanx.agent.runtimes.docker
from phalanx.agent.runtimes.base import CasePlaces, Owner
from phalanx.agent.runtimes.selection import runtime
from phalanx.protocol import messages as m

async def main(root, image):
    os.umask(0o077)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    chosen = runtime(m.Runtime.DOCKER, root)
    await chosen.open(None)
    base = root / "run" / "cases" / "case"
    places = CasePlaces(base, base / "work", base / "results", base / "spool", base / "sock")
    spec = m.ContainerSpec(m.Runtime.DOCKER, image=image)
    owner = Owner("run", "n1", 0, "ab", os.getuid(), 60)
    place = await chosen.open_case(m.CaseOpen(1, "case", spec, (0,), 1, None), places, owner)
    def step(*argv):
        return m.StepStart("case", "main", argv, {}, {"TOKEN": "x"}, (0,), 0.0)
    script = "umask 077; echo row >/run/phalanx/results/rows.csv; mkdir made; echo x >made/file"
    running = await place.start(step("sh", "-c", script), 0, {}, places.spool / "main" / "rank0")
    ended = await running.wait()
    print(ended.status, ended.cause.value)
    print((places.results / "rows.csv").stat().st_uid)
    running = await place.start(step("sleep", "441"), 0, {}, places.spool / "other" / "rank0")
    await running.stop(2)
    cause = (await running.wait()).cause.value
    await place.close(1)
    print((places.work / "made" / "file").stat().st_uid)
    print(cause)
    await chosen.close()
    shutil.rmtree(root / "run")
    print("clean")

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_an_opening_that_fails_leaves_no_container(docker: Bench, engine: dockerd.Dockerd) -> None:
    with pytest.raises(RuntimeUnavailable):
        await docker.open(network="no-such-network")
    case = CaseOpen(1, "case", docker.spec(), (0,), 1, None)
    place = await docker.runtime.open_case(case, docker.places(), docker.owner())
    docker.opened.append(place)
    assert len(engine.containers()) == 1
