"""What a container may not ask for, by default and with an allowance."""

from __future__ import annotations

from pathlib import Path

import pytest
from phalanx.agent.runtimes import creation, forbidden
from phalanx.agent.runtimes.base import RuntimeUnavailable
from phalanx.agent.runtimes.policy import refusals
from phalanx.protocol.messages import Allowance, ContainerSpec, Device, Limits, Mount, Runtime, Tmpfs, Ulimit

EVERYTHING = tuple(Allowance)


def _spec(**asked: object) -> ContainerSpec:
    return ContainerSpec(Runtime.DOCKER, image="x", **asked)  # type: ignore[arg-type]


def _mount(
    source: str, target: str = "/data", read_only: bool = False, allow: tuple[Allowance, ...] = ()
) -> ContainerSpec:
    return _spec(mounts=(Mount(source, target, read_only),), allow=allow)


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "//",
        "/./",
        "/proc",
        "/proc/sys",
        "/sys",
        "/sys/kernel",
        "/dev",
        "/etc",
        "/etc/",
        "/var/lib/docker",
        "/run",
    ],
)
def test_the_node_s_own_paths_are_refused(source: str) -> None:
    assert refusals(_mount(source))
    assert not refusals(_mount(source, allow=(Allowance.SYSTEM_PATHS,)))


@pytest.mark.parametrize(
    "source", ["/var/run/docker.sock", "/run/user/1/podman/podman.sock", "/x/../run/docker.sock"]
)
def test_an_engine_s_socket_is_refused_wherever_it_is(source: str) -> None:
    assert refusals(_mount(source))
    assert refusals(_mount(source, allow=(Allowance.SYSTEM_PATHS,)))
    assert not refusals(_mount(source, allow=(Allowance.ENGINE_SOCKET,)))


@pytest.mark.parametrize(
    "source", ["/data", "/home/user/.ssh", "/dev/shm", "/dev/infiniband", "/etc/ssl/certs", "/opt/rocm"]
)
def test_data_and_parts_of_the_system_are_allowed(source: str) -> None:
    assert not refusals(_mount(source))


def test_a_part_of_sys_may_be_read() -> None:
    assert not refusals(_mount("/sys/class/infiniband", read_only=True))
    assert refusals(_mount("/sys/class/infiniband", read_only=False))


@pytest.mark.parametrize("target", ["/run/phalanx", "/run/phalanx/spool", "/run/phalanx.sock", "/"])
def test_the_supervisor_s_own_places_are_taken(target: str) -> None:
    assert refusals(_mount("/data", target, allow=EVERYTHING))
    assert refusals(_spec(tmpfs=(Tmpfs(target),), allow=EVERYTHING))


def test_relative_paths_are_refused() -> None:
    assert refusals(_mount("data"))
    assert refusals(_mount("/data", "data"))


def test_no_namespace_of_another_container_is_joined() -> None:
    assert refusals(_spec(network="container:abc"))
    assert refusals(_spec(ipc="container:abc"))
    assert not refusals(_spec(network="host", ipc="host"))


def test_what_gpu_workloads_ask_for_is_allowed() -> None:
    spec = _spec(
        devices=(Device("/dev/kfd", "/dev/kfd"), Device("/dev/dri/renderD128", "/dev/dri/renderD128")),
        cap_add=("SYS_PTRACE", "CAP_SYS_ADMIN", "IPC_LOCK"),
        security_opt=("seccomp=unconfined", "apparmor=unconfined"),
        group_add=("video",),
        ipc="host",
    )
    assert refusals(spec) == []


@pytest.mark.parametrize("capability", ["ALL", "all", "CAP_SYS_MODULE", "sys_rawio"])
def test_capabilities_over_the_whole_node_are_refused(capability: str) -> None:
    assert refusals(_spec(cap_add=(capability,)))


@pytest.mark.parametrize("source", ["/dev/mem", "/dev/sda", "/etc/passwd", "/dev/../etc/passwd"])
def test_memory_disks_and_files_are_no_devices(source: str) -> None:
    assert refusals(_spec(devices=(Device(source, source),)))
    assert not refusals(_spec(devices=(Device(source, source),), allow=(Allowance.DEVICES,)))


ASKED = {
    Allowance.PRIVILEGED: {"privileged": True},
    Allowance.HOST_PID: {"pid": "host"},
    Allowance.HOST_UTS: {"uts": "host"},
    Allowance.HOST_USERNS: {"userns": "host"},
    Allowance.CAPABILITIES: {"cap_add": ("CAP_SYS_MODULE",)},
    Allowance.ENGINE_SOCKET: {"mounts": (Mount("/run/docker.sock", "/s"),)},
    Allowance.SYSTEM_PATHS: {"mounts": (Mount("/etc", "/e"),)},
    Allowance.DEVICES: {"devices": (Device("/dev/mem", "/dev/mem"),)},
}


@pytest.mark.parametrize("word", ASKED)
def test_the_agent_refuses_what_its_run_does_not_allow_whatever_else_it_does(word: Allowance) -> None:
    others = tuple(one for one in Allowance if one is not word)
    [refusal] = refusals(_spec(**ASKED[word], allow=others))
    assert refusal.endswith(f"the run does not allow {word.value}")
    assert refusals(_spec(**ASKED[word], allow=(word,))) == []


@pytest.mark.parametrize("word", ASKED)
def test_a_node_forbids_what_the_run_allows_and_says_where(word: Allowance) -> None:
    [refusal] = refusals(_spec(**ASKED[word], allow=(word,)), {word: "/etc/phalanx/forbid"})
    assert refusal.endswith(f"the run allows {word.value}, this node does not: /etc/phalanx/forbid")
    others = {one: "x" for one in Allowance if one is not word}
    assert refusals(_spec(**ASKED[word], allow=(word,)), others) == []


@pytest.mark.parametrize("kind", ["pid", "uts", "userns"])
def test_no_namespace_but_the_node_s_is_named(kind: str) -> None:
    [refusal] = refusals(_spec(**{kind: "container:x"}, allow=EVERYTHING))
    assert refusal.startswith(f"{kind} container:x: ")


def test_words_of_a_node_are_read_from_its_file_and_its_environment(tmp_path: Path) -> None:
    file = tmp_path / "forbid"
    assert forbidden.forbidden_here({}, file) == {}
    file.write_text("# of the fleet's keeper\nprivileged, host-pid # GPUs only\n\n  devices\n")
    assert forbidden.forbidden_here({"PHALANX_FORBID": "host-uts"}, file) == {
        Allowance.PRIVILEGED: str(file),
        Allowance.HOST_PID: str(file),
        Allowance.DEVICES: str(file),
        Allowance.HOST_UTS: "PHALANX_FORBID",
    }
    file.write_text("all\n")
    assert set(forbidden.forbidden_here({}, file)) == set(Allowance)


@pytest.mark.parametrize("content", [b"privileged\nhostpid\n", b"\xff\xfe", b"#" * 70_000])
def test_a_file_that_is_not_understood_forbids_everything(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "forbid"
    file.write_bytes(content)
    found = forbidden.forbidden_here({}, file)
    assert set(found) == set(Allowance)
    assert all(words.startswith(str(file)) for words in found.values())


def test_a_file_that_cannot_be_read_forbids_everything(tmp_path: Path) -> None:
    found = forbidden.forbidden_here({}, tmp_path)
    assert set(found) == set(Allowance)
    assert "cannot be read" in found[Allowance.PRIVILEGED]


def test_a_link_to_a_device_is_that_device(tmp_path: Path) -> None:
    link = tmp_path / "harmless"
    link.symlink_to("/dev/mem")
    spec = _spec(devices=(Device(str(link), "/dev/harmless"),), allow=())
    with pytest.raises(RuntimeUnavailable, match="device /dev/mem: it is the node's memory"):
        creation.check(spec, "docker", {}, {})


def test_a_limit_above_what_the_engine_can_give_is_refused_with_both_numbers() -> None:
    spec = _spec(limits=Limits(ulimits=(Ulimit("nofile", 1024, 2_000_000), Ulimit("memlock", -1, -1))))
    with pytest.raises(RuntimeUnavailable) as caught:
        creation.check(spec, "docker", {}, {"nofile": 1_048_576, "memlock": 65536, "nproc": 10})
    for words in ("nofile=2000000: ", "at most 1048576", "memlock=unlimited: ", "at most 65536"):
        assert words in str(caught.value)
    for enough in ({}, {"nofile": -1, "memlock": -1}, {"nofile": 2_000_000, "nproc": 1}):
        creation.check(spec, "docker", {}, enough)
