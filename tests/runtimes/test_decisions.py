"""The pure parts: leases, verdicts of the janitor, the engine's JSON, shell words, texts of /proc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.agent import lease, steps
from phalanx.agent.runtimes import (
    cgroup,
    container_config,
    creation,
    diagnostics,
    engine,
    engine_limits,
    images,
    janitor,
    process_limits,
    processes,
    spool,
)
from phalanx.agent.runtimes.base import CasePlaces, Owner
from phalanx.protocol.messages import Cause, ContainerSpec, Device, Limits, Mount, Runtime, Tmpfs, Ulimit

OWNER = Owner("20260101-name-beef", "n1", 3, "cafe0123", 1000, 60.0)


def test_a_lease_holds_until_its_moment_and_not_in_another_boot() -> None:
    term = lease.Term(100, "boot-a")
    assert not term.over(99.9, "boot-a")
    assert term.over(100.0, "boot-a")
    assert term.over(1.0, "boot-b")


def test_a_renewed_lease_is_read_back(tmp_path: Path) -> None:
    one = lease.Lease(tmp_path / "expires")
    one.renew(lease.boottime() + 5)
    assert not one.over()
    assert (tmp_path / "expires").stat().st_size == lease.RECORD_BYTES
    one.end()
    assert one.over()


def test_a_lease_is_renewed_in_place_where_no_file_can_be_made(tmp_path: Path) -> None:
    one = lease.Lease(tmp_path / "expires")
    one.end()
    (tmp_path / "expires.tmp").mkdir()
    one.renew(lease.boottime() + 5)
    assert not one.over()


def test_a_lease_that_cannot_be_read_is_over(tmp_path: Path) -> None:
    assert lease.Lease(tmp_path / "none").over()
    (tmp_path / "odd").write_text("not a number\n")
    assert lease.Lease(tmp_path / "odd").over()


OURS = {"phalanx.run": "r", "phalanx.uid": "1000", "phalanx.expires": "500"}


@pytest.mark.parametrize(
    ("labels", "now", "held", "removed"),
    [
        (OURS, 1000.0, False, True),
        (OURS, 1000.0, True, False),
        (OURS, 400.0, None, False),
        (OURS, 600.0, None, True),
        (OURS, 400.0, False, True),
        ({**OURS, "phalanx.uid": "1001"}, 1000.0, False, False),
        ({"phalanx.uid": "1000"}, 1000.0, False, False),
        ({}, 1000.0, False, False),
        ({**OURS, "phalanx.expires": "junk"}, 600.0, None, True),
    ],
)
def test_the_janitor_removes_what_is_ours_and_over(
    labels: dict[str, str], now: float, held: bool | None, removed: bool
) -> None:
    assert bool(janitor.container_verdict(labels, True, 1000, now, held)) is removed


def _spool(root: Path, name: str, until: float | None, age_s: float) -> Path:
    directory = root / name
    control = directory / "cases" / "case" / "control-process"
    control.mkdir(parents=True)
    if until is not None:
        one = lease.Lease(control / "expires")
        one.renew(until)
        os.utime(one.path, (time.time() - age_s,) * 2)
    os.utime(directory, (time.time() - age_s,) * 2)
    return directory


def test_the_janitor_keeps_a_spool_that_someone_may_still_want(tmp_path: Path) -> None:
    now = lease.boottime()
    kept = [
        _spool(tmp_path, "phalanx-7-held-0", now + 60, 5000),
        _spool(tmp_path, "phalanx-7-just-over-0", now - 10, 5000),
        _spool(tmp_path, "phalanx-7-just-ended-0", 0, 10),
        _spool(tmp_path, "phalanx-7-fresh-0", None, 10),
        _spool(tmp_path, "phalanx-8-other-0", 0, 90000),
        _spool(tmp_path, "other-7-0", 0, 90000),
    ]
    gone = [
        _spool(tmp_path, "phalanx-7-over-0", now - 5000, 5000),
        _spool(tmp_path, "phalanx-7-empty-0", None, 90000),
    ]
    for directory in (*kept, *gone):
        os.chown(directory, os.getuid(), -1)
    if os.getuid() == 0:
        for directory in (*kept, *gone):
            os.chown(directory, 7, 7)
    words = janitor.remove_stale_files(tmp_path, 7 if os.getuid() == 0 else os.getuid())
    assert len(words) == len(gone)
    assert all(directory.exists() for directory in kept)
    assert not any(directory.exists() for directory in gone)


def test_a_spool_whose_lease_was_ended_goes_in_the_first_minutes_of_a_boot_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "boottime", lambda: 100.0)
    ended = _spool(tmp_path, f"phalanx-{os.getuid()}-ended-0", 0, 5000)
    over = _spool(tmp_path, f"phalanx-{os.getuid()}-over-0", 90, 5000)
    janitor.remove_stale_files(tmp_path, os.getuid())
    assert not ended.exists()
    assert over.exists()


def test_the_janitor_removes_an_agent_s_file_that_nobody_runs(tmp_path: Path) -> None:
    def file(name: str, age_s: float = 5000) -> Path:
        made = tmp_path / name
        made.write_text("#!/bin/sh\necho up; read word\n")
        made.chmod(0o755)
        os.utime(made, (time.time() - age_s,) * 2)
        return made

    left, fresh, other = file("phalanx-agent-left"), file("phalanx-agent-new", 10), file("agent-left")
    link = tmp_path / "phalanx-agent-link"
    link.symlink_to(other)
    runs = file("phalanx-agent-runs")
    with subprocess.Popen([runs], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        words = janitor.remove_stale_files(tmp_path, os.getuid())
        agent.communicate(b"\n")
    assert words == [f"file {left}: no agent runs from it"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in (fresh, other, link, runs)
    )


def _given(**other: object) -> container_config.Given:
    base = Path("/b")
    places = CasePlaces(base, base / "work", base / "results", base / "spool", base / "sock")
    values: dict[str, object] = {
        "case": "llama/70b",
        "image_id": "sha256:ab",
        "places": places,
        "control": "/b/control-docker",
        "lease_file": "/b/control-docker/expires",
        "owner": OWNER,
        "socket": True,
        "now_unix": 1000.5,
    }
    return container_config.Given(**{**values, **other})  # type: ignore[arg-type]


def test_a_specification_becomes_the_engine_s_json() -> None:
    spec = ContainerSpec(
        Runtime.DOCKER,
        image="x:1",
        workdir="run_directory",
        user="1:2",
        ipc="host",
        mounts=(Mount("/data", "/data", True),),
        devices=(Device("/dev/kfd", "", "rw"),),
        cap_add=("SYS_PTRACE",),
        security_opt=("seccomp=unconfined",),
        group_add=("video",),
        gpus="0,2",
        limits=Limits(1 << 30, 1.5, "0-1", 100, 1 << 20, (Ulimit("memlock", -1, -1),)),
    )
    body = container_config.container_config(spec, _given())
    host = body["HostConfig"]
    assert (body["Image"], body["User"], body["WorkingDir"]) == (
        "sha256:ab",
        "1:2",
        "/myworkspace/run_directory",
    )
    assert body["Entrypoint"] == ["/bin/sh", "/run/phalanx/supervise"]
    assert "Env" not in body
    assert "Privileged" not in host
    assert (host["NetworkMode"], host["IpcMode"]) == ("host", "host")
    assert "ShmSize" not in host  # the node's own is used
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (1 << 30, 1 << 30, 1_500_000_000)
    assert (host["CpusetCpus"], host["PidsLimit"]) == ("0-1", 100)
    assert host["Ulimits"] == [{"Name": "memlock", "Soft": -1, "Hard": -1}]
    assert host["Devices"] == [
        {"PathOnHost": "/dev/kfd", "PathInContainer": "/dev/kfd", "CgroupPermissions": "rw"}
    ]
    assert host["DeviceRequests"] == [{"Driver": "", "Capabilities": [["gpu"]], "DeviceIDs": ["0", "2"]}]
    assert (host["CapAdd"], host["GroupAdd"]) == (["SYS_PTRACE"], ["video"])
    assert {"Type": "bind", "Source": "/data", "Target": "/data", "ReadOnly": True} in host["Mounts"]
    assert json.dumps(body)


def test_every_container_carries_its_labels_and_a_name_of_its_own() -> None:
    assert container_config.labels(_given()) == {
        "phalanx.run": "20260101-name-beef",
        "phalanx.case": "llama/70b",
        "phalanx.node": "n1",
        "phalanx.node_rank": "3",
        "phalanx.incarnation": "cafe0123",
        "phalanx.uid": "1000",
        "phalanx.expires": "1060",
        "phalanx.lease": "/b/control-docker/expires",
    }
    assert container_config.container_name(OWNER, "llama/70b") == "phx-ame_beef-llama_70b-3-cafe"
    assert container_config.container_name(OWNER, "ünï  x") == "phx-ame_beef-n_x-3-cafe"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
def test_any_value_survives_the_shell(value: str) -> None:
    text = steps.shell_file(("printf", "%s", value), {"NAME": value})
    done = subprocess.run(
        ["sh", "-c", 'eval "$1"; shift $(($# - 3)); printf "%s" "$NAME"; printf "<%s>" "$3"', "sh", text],
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == f"{value}<{value}>"


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    spool.prepare(tmp_path / "main" / "rank0")
    directory = tmp_path / "main" / "rank0"
    assert steps.read_status(directory) is None
    spool.write_status(directory, 127, "not_started", "not found: x y")
    assert steps.read_status(directory) == steps.Status(127, Cause.NOT_STARTED, "not found: x y")
    assert (directory / "status").stat().st_size == spool.STATUS_BYTES
    spool.prepare(directory)
    assert steps.read_status(directory) is None


def test_a_status_file_that_makes_no_sense_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("")
    status = steps.read_status(tmp_path)
    assert status is not None
    assert status.number != 0


def test_the_process_table_is_read_whatever_a_process_calls_itself() -> None:
    line = (
        "42 (a) b (c) S 7 42 41 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0 987654 100 25 18446744073709551615 0"
    )
    assert processes.parse(line) == processes.Process(42, 7, 41, "S", 987654, "a) b (c", 3, 200, 25)
    assert processes.parse("") is None
    assert processes.parse("42 (x) S 1") is None


def test_addresses_are_written_as_people_read_them() -> None:
    assert diagnostics.address("0100007F:1F90") == "127.0.0.1:8080"
    assert diagnostics.address("00000000000000000000000001000000:0016") == "[::1]:22"


def test_the_memory_group_is_found_in_both_versions(tmp_path: Path) -> None:
    v1 = tmp_path / "memory" / "docker" / "x"
    v1.mkdir(parents=True)
    (v1 / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (v1 / "memory.limit_in_bytes").write_text("67108864\n")
    group = cgroup._find(["4:memory:/docker/x", "0::/"], tmp_path)
    assert group is not None
    assert (group.kills(), group.limit_bytes()) == (3, 64 << 20)
    v2 = tmp_path / "system.slice" / "x.scope"
    v2.mkdir(parents=True)
    (v2 / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n")
    (v2 / "memory.max").write_text("max\n")
    group = cgroup._find(["0::/system.slice/x.scope"], tmp_path)
    assert group is not None
    assert (group.kills(), group.limit_bytes()) == (1, 0)


def test_processes_refuse_what_needs_a_container_by_name() -> None:
    spec = ContainerSpec(
        Runtime.PROCESS,
        image="x",
        mounts=(Mount("/a", "/b"),),
        limits=Limits(memory_bytes=1, cpus=2.0, ulimits=(Ulimit("nosuch", 1, 1), Ulimit("nofile", 9, 5))),
    )
    words = "; ".join(process_limits.refusals(spec))
    for name in ("image", "mounts", "memory_bytes", "limits.cpus", "nosuch", "nofile"):
        assert name in words
    assert process_limits.refusals(ContainerSpec(Runtime.PROCESS)) == []


def test_limits_of_an_engine_are_read_from_its_process() -> None:
    lines = [
        "Limit                     Soft Limit           Hard Limit           Units     ",
        "Max processes             32768                30000                processes ",
        "Max open files            1024                 20000                files     ",
        "Max locked memory         8388608              unlimited            bytes     ",
        "Max nice priority         0                    20                   ",
    ]
    assert engine_limits.parse(lines) == {"nproc": 30000, "nofile": 20000, "memlock": -1, "nice": 20}
    assert engine_limits.limits_of("tcp://h:1").hard["nofile"] > 0


def test_an_engine_raises_limits_only_with_the_capability_in_the_node_s_own_user_namespace() -> None:
    every, some = "Name:\tdockerd\nCapEff:\t000001ffffffffff\n", "CapEff:\t00000000a80425fb\n"
    node, rootless = "         0          0 4294967295\n", "0 1000 1\n1 100000 65536\n"
    assert engine_limits.may_raise(every, node)
    assert not engine_limits.may_raise(some, node)
    assert not engine_limits.may_raise(every, rootless)
    assert engine_limits.limits_of("tcp://h:1").ceilings == {}


def test_a_container_is_described_to_the_engine_field_by_field() -> None:
    spec = ContainerSpec(
        Runtime.DOCKER,
        privileged=True,
        pid="host",
        uts="host",
        userns="host",
        cap_drop=("ALL",),
        hostname="box",
        extra_hosts=("db:10.0.0.7",),
        tmpfs=(Tmpfs("/tmp", "size=1m"),),
        read_only=True,
        engine_runtime="amd",
    )
    places = CasePlaces(*(Path("/b"), Path("/b/w"), Path("/b/r"), Path("/b/s"), Path("/b/sock")))
    owner = Owner("run", "n1", 0, "ab", 0, 60)
    given = container_config.Given("case", "sha256:0", places, "/c", "/c/expires", owner, False, 0.0)
    made = container_config.container_config(spec, given)
    host = made["HostConfig"]
    assert made["Hostname"] == "box"
    assert (host["Privileged"], host["ReadonlyRootfs"], host["Runtime"]) == (True, True, "amd")
    assert [host[name] for name in ("PidMode", "UTSMode", "UsernsMode")] == ["host"] * 3
    assert (host["CapDrop"], host["ExtraHosts"]) == (["ALL"], ["db:10.0.0.7"])
    assert host["Tmpfs"] == {"/tmp": "size=1m"}
    plain = container_config.container_config(ContainerSpec(Runtime.DOCKER), given)
    assert "Hostname" not in plain
    assert not {"Privileged", "PidMode", "UTSMode", "UsernsMode", "Tmpfs", "ReadonlyRootfs"} & set(
        plain["HostConfig"]
    )


def test_podman_is_told_the_limits_that_it_would_exceed_by_itself() -> None:
    hard = {"nofile": 20000, "nproc": 30000}
    spec = ContainerSpec(Runtime.DOCKER, limits=Limits(ulimits=(Ulimit("nofile", 10, 20),)))
    told = creation.with_engine_defaults(spec, "podman", hard).limits.ulimits
    assert told == (Ulimit("nofile", 10, 20), Ulimit("nproc", 30000, 30000))
    assert creation.with_engine_defaults(spec, "docker", hard) is spec
    plain = ContainerSpec(Runtime.DOCKER)
    assert creation.with_engine_defaults(plain, "podman", hard) is plain


def test_cpus_are_read_as_the_kernel_writes_them() -> None:
    assert process_limits.cpus("0-2,5") == {0, 1, 2, 5}
    assert process_limits.cpus("") == set()
    for text in ("a", "3-1", "-1"):
        with pytest.raises(ValueError, match=r".+"):
            process_limits.cpus(text)


def test_a_reference_is_split_at_its_tag_and_not_at_a_port() -> None:
    assert images.split_reference("host:5000/a/b:c") == ("host:5000/a/b", "c")
    assert images.split_reference("host:5000/a/b") == ("host:5000/a/b", "latest")
    assert images.split_reference("a") == ("a", "latest")


def test_the_engine_is_where_docker_host_says_or_where_dockers_is() -> None:
    assert engine.address({"DOCKER_HOST": "tcp://h:1"}) == "tcp://h:1"
    assert engine.address({}).startswith("unix:///")


def test_the_session_s_part_of_runtimes_is_light_to_import() -> None:
    program = (
        "import sys, phalanx.agent.runtimes.base, phalanx.agent.runtimes.process\n"
        "names = {'aiodocker', 'aiohttp', 'ctypes', 'tarfile', 'phalanx.agent.runtimes.engine'}\n"
        "heavy = names & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_an_agent_loads_before_it_has_joined_is_its_session_alone() -> None:
    program = "import sys, phalanx.agent.main\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    later = ("cases", "collect", "data", "duties", "facts", "relay", "runtimes", "workload")
    assert not {f"phalanx.agent.{name}" for name in later} & set(done.stdout.split())
