"""What a container may not ask for, by default and with an allowance."""

from __future__ import annotations

import pytest
from phalanx.agent.runtimes.policy import Policy, refusals
from phalanx.protocol.messages import ContainerSpec, Device, Mount, Runtime


def _spec(**asked: object) -> ContainerSpec:
    return ContainerSpec(Runtime.DOCKER, image="x", **asked)  # type: ignore[arg-type]


def _mount(source: str, target: str = "/data", read_only: bool = False) -> ContainerSpec:
    return _spec(mounts=(Mount(source, target, read_only),))


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
    assert not refusals(_mount(source), Policy(system_paths=True))


@pytest.mark.parametrize(
    "source", ["/var/run/docker.sock", "/run/user/1/podman/podman.sock", "/x/../run/docker.sock"]
)
def test_an_engine_s_socket_is_refused_wherever_it_is(source: str) -> None:
    assert refusals(_mount(source))
    assert refusals(_mount(source), Policy(system_paths=True))
    assert not refusals(_mount(source), Policy(engine_socket=True, system_paths=True))


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
    assert refusals(_mount("/data", target), Policy(True, True, frozenset(), True, True))


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


def test_an_allowance_of_capabilities_is_by_name() -> None:
    spec = _spec(cap_add=("CAP_SYS_MODULE", "ALL"))
    assert len(refusals(spec, Policy(capabilities=frozenset({"SYS_MODULE"})))) == 1


@pytest.mark.parametrize("source", ["/dev/mem", "/etc/passwd", "/dev/../etc/passwd"])
def test_memory_and_files_are_no_devices(source: str) -> None:
    assert refusals(_spec(devices=(Device(source, source),)))
