"""The container of a case: mounts, devices, limits, GPUs, and what is never given away."""

from __future__ import annotations

import json

import pytest
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.quantities import duration, size
from phalanx.controller.workflow.errors import InputError
from phalanx.protocol.messages import ContainerSpec, Limits, Mount, Ulimit

from .making import command, models


def spec(context: str = "", **more: object) -> ContainerSpec:
    return plan_for_command(command(image="img:1", context=context, **more)).cases[0].container  # type: ignore[arg-type]


def test_a_plain_container_has_the_hosts_network_and_no_privilege() -> None:
    found = spec()
    assert (found.network, found.ipc, found.user, found.cap_add, found.devices) == ("host", "", "", (), ())


def test_mounts_of_context_and_command_line_are_joined_the_latter_over_the_former() -> None:
    context = json.dumps({"docker_mounts": {"/data": "/mnt/a", "/ref": "/mnt/ref:ro"}})
    assert spec(context, mounts=("/mnt/b:/data:ro,z", "/x/../y:/y")).mounts == (
        Mount("/mnt/b", "/data", True),
        Mount("/mnt/ref", "/ref", True),
        Mount("/y", "/y"),
    )


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ("/a:/", "/ of the container is taken"),
        ("/a:/proc", "/proc of the container is taken"),
        ("/a:/run/phalanx/../phalanx.sock", "/run/phalanx.sock of the container is taken"),
        ("/a:/run/phalanx/spool", "/run/phalanx/spool of the container is taken"),
        ("relative:/a", "is not an absolute path"),
        ("/a:b", "is not an absolute path"),
        ("/a", "expected SOURCE:TARGET"),
        ("/a:/b:rx", "unknown option 'rx'"),
    ],
)
def test_a_mount_that_is_never_made_is_refused_by_name(mount: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        spec(mounts=(mount,))
    source, _, target = mount.partition(":")
    if target and ":" not in target:
        with pytest.raises(InputError, match="docker_mounts"):
            spec(json.dumps({"docker_mounts": {target: source}}))


def test_one_target_cannot_have_two_sources() -> None:
    with pytest.raises(InputError, match="/t is the target of both /a and /b"):
        spec(mounts=("/a:/t", "/b:/t"))


def test_the_same_mount_twice_is_one() -> None:
    assert spec(mounts=("/a:/t", "/a/:/t/", "/a:/t:rw")).mounts == (Mount("/a", "/t"),)


def test_one_target_both_read_only_and_writable_in_one_place_is_refused() -> None:
    with pytest.raises(InputError, match="-v: /t is to have /a both read-only and writable; leave one out"):
        spec(mounts=("/a:/t:ro", "/a:/t"))


def test_a_later_layer_s_mount_goes_over_an_earlier_one_with_a_warning() -> None:
    card = {"additional_docker_run_options": "-v /card:/data -v /same:/same -v /ref:/ref:ro"}
    context = json.dumps({"docker_mounts": {"/data": "/context", "/same": "/same"}})
    plan = plan_for_tags(models(card, image="x", context=context, mounts=("/ref:/ref",)))
    assert plan.cases[0].container.mounts == (
        Mount("/context", "/data"),
        Mount("/same", "/same"),
        Mount("/ref", "/ref"),
    )
    over = [words for words in plan.warnings if "is mounted at" in words]
    assert len(over) == 2
    assert "docker_mounts./data: /context is mounted at /data, not /card of " in over[0]
    assert over[0].endswith("additional_docker_run_options")
    assert over[1].startswith("-v: /ref is mounted at /ref, not /ref (ro) of ")


def test_limits_are_typed() -> None:
    found = spec(memory="1.5g", cpus="2.5", shm_size="64M", ulimits=("nofile=1024:4096", "memlock=unlimited"))
    assert found.limits == Limits(
        memory_bytes=1610612736,
        cpus=2.5,
        shm_bytes=67108864,
        ulimits=(Ulimit("nofile", 1024, 4096), Ulimit("memlock", -1, -1)),
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"memory": "lots"}, "--memory: expected a size"),
        ({"memory": "-1g"}, "--memory: expected a size"),
        ({"memory": "0"}, "--memory: expected a size"),
        ({"cpus": "nan"}, "--cpus: expected a number"),
        ({"ulimits": ("nofiles=1",)}, "no such limit; did you mean 'nofile'"),
        ({"ulimits": ("nofile=2:1",)}, "the soft limit is above the hard one"),
        ({"ulimits": ("nofile",)}, "expected NAME=SOFT"),
        ({"devices": ("/dev/x:rz",)}, "expected /dev/NAME"),
    ],
)
def test_a_limit_or_device_that_is_none_is_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        spec(**more)  # type: ignore[arg-type]


def test_amd_gpus_bring_their_devices_and_what_the_driver_asks_for() -> None:
    context = {"gpu_vendor": "AMD", "docker_gpus": "1-2,0", "gpu_renderDs": [128, 136, 144], "n_gpus": 2}
    found = spec(json.dumps(context))
    assert [device.source for device in found.devices] == [
        "/dev/kfd",
        "/dev/dri/renderD128",
        "/dev/dri/renderD136",
    ]
    assert (found.ipc, found.group_add, found.cap_add) == ("host", ("video",), ("SYS_PTRACE",))
    every = spec('{"gpu_vendor": "AMD", "n_gpus": -1}')
    assert [device.source for device in every.devices] == ["/dev/kfd", "/dev/dri"]


def test_nvidia_gpus_are_asked_for_from_its_runtime() -> None:
    assert spec('{"gpu_vendor": "NVIDIA", "n_gpus": -1}').gpus == "all"
    assert spec('{"gpu_vendor": "NVIDIA", "n_gpus": 2}').gpus == "0,1"
    assert spec('{"gpu_vendor": "NVIDIA", "docker_gpus": "4-7", "n_gpus": 2}').gpus == "4,5"


def test_no_gpus_are_given_when_nothing_asks_for_them() -> None:
    assert spec('{"gpu_vendor": "AMD"}').devices == ()
    assert plan_for_tags(models({"n_gpus": "8"}, image="x")).cases[0].container.devices == ()


def test_more_gpus_than_there_are_named_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot give 3 GPUs .* names 2"):
        spec('{"gpu_vendor": "AMD", "docker_gpus": "0,1", "n_gpus": 3}')


def test_a_cards_docker_options_become_typed_fields() -> None:
    options = "--shm-size 16G --ulimit memlock=-1 --cap-add=SYS_NICE -v /a:/b -e 'K=v w' --ipc=host -u root"
    plan = plan_for_tags(models({"additional_docker_run_options": options}, image="x", shm_size="1g"))
    [case] = plan.cases
    assert case.container.limits.shm_bytes == 1 << 30
    assert case.container.limits.ulimits == (Ulimit("memlock", -1, -1),)
    assert (case.container.cap_add, case.container.ipc, case.container.user) == (
        ("SYS_NICE",),
        "host",
        "root",
    )
    assert case.container.mounts == (Mount("/a", "/b"),)
    assert case.env["K"].value == "v w"
    assert case.columns["additional_docker_run_options"] == options


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("1h30m", 5400.0), ("2d", 172800.0), ("0", 0.0), ("1.5s", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text, "x") == seconds


@pytest.mark.parametrize(("text", "count"), [("1k", 1024), ("2GiB", 2 << 30), ("10b", 10), ("3 MB", 3 << 20)])
def test_sizes(text: str, count: int) -> None:
    assert size(text, "x") == count
