"""Options of a card: typed, or refused by name with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.docker_options import DockerOptions, parse_docker_options
from phalanx.controller.plan.docker_refused import REFUSED
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.workflow.errors import InputError
from phalanx.protocol.messages import ContainerSpec, Mount, Tmpfs

from .making import models


def container(options: str, **more: object) -> ContainerSpec:
    inputs = models({"additional_docker_run_options": options}, image="x", **more)
    return plan_for_tags(inputs).cases[0].container


def test_the_options_of_a_container_of_one_s_own_are_typed() -> None:
    found = container(
        "--init --read-only --hostname gpu-box --add-host db:10.0.0.7 --add-host=six=fe80::1 --cap-drop ALL "
        "--cap-drop net_raw --tmpfs /tmp:size=64m,mode=1777,noexec --runtime=amd --pid=private"
    )
    assert (found.read_only, found.hostname, found.engine_runtime, found.pid) == (True, "gpu-box", "amd", "")
    assert found.extra_hosts == ("db:10.0.0.7", "six:fe80::1")
    assert found.cap_drop == ("ALL", "NET_RAW")
    assert found.tmpfs == (Tmpfs("/tmp", "size=64m,mode=1777,noexec"),)
    assert (found.privileged, found.uts, found.userns, found.allow) == (False, "", "", ())


def test_init_needs_nothing_for_every_container_has_one() -> None:
    assert parse_docker_options("--init --init=true", "card") == DockerOptions()


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,source=/a,target=/b", Mount("/a", "/b")),
        ("type=bind,src=/a/,dst=/b/../c,readonly", Mount("/a", "/c", True)),
        ("type=bind,source=/a,destination=/b,ro=true,bind-propagation=rprivate", Mount("/a", "/b", True)),
        ("type=bind,source=/a,target=/b,readonly=false", Mount("/a", "/b")),
    ],
)
def test_a_mount_in_the_long_form_is_the_same_mount(text: str, mount: Mount) -> None:
    assert container(f"--mount {text}").mounts == (mount,)


def test_a_tmpfs_in_the_long_form_is_the_same_tmpfs() -> None:
    found = container("--mount type=tmpfs,target=/scratch,tmpfs-size=1g,tmpfs-mode=1770")
    assert (found.tmpfs, found.mounts) == ((Tmpfs("/scratch", "size=1g,mode=1770"),), ())


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_an_option_that_is_not_for_a_card_is_refused_with_the_reason(option: str) -> None:
    with pytest.raises(InputError, match=f"card: {option} is not allowed: "):
        parse_docker_options(f"{option}=x" if option.startswith("--") else option, "card")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--shm-sise 1g", "--shm-sise is not known here; did you mean '--shm-size'"),
        ("--privilege", "--privilege is not known here; did you mean '--privileged'"),
        ("--privileged=yes", "--privileged 'yes': expected true, false or no value"),
        ("--shm-size", "--shm-size has no value"),
        ("--cap-drop -1", "name one capability"),
        ("--network container:x", "not ours"),
        ("--pid container:x", "expected host"),
        ("--hostname a/b", "expected a host name"),
        ("--hostname a --uts=host", "--hostname would rename the node"),
        ("--add-host db", "expected HOST:ADDRESS"),
        ("--add-host db:somewhere", "expected HOST:ADDRESS"),
        ("--tmpfs relative", "is not an absolute path"),
        ("--tmpfs /run/phalanx", "/run/phalanx of the container is taken"),
        ("--tmpfs /t:context=x", "unknown option 'context=x'"),
        ("--mount type=volume,source=v,target=/v", "expected bind or tmpfs"),
        ("--mount source=v,target=/v", "type=volume: expected bind or tmpfs"),
        ("--mount type=bind,target=/v", "expected type=bind,source=PATH,target=PATH"),
        ("--mount type=bind,source=/a,target=/v,bind-propagation=shared", "mounts of a container stay in it"),
        ("--mount type=bind,sourec=/a,target=/v", "unknown key 'sourec'; did you mean 'source'"),
        ("--mount type=bind,source=/a,src=/b,target=/v", "src is there twice"),
        ("--env-file prod.env", "--secret NAME=file:PATH"),
        ("-it", "-i is not allowed: phalanx starts the container"),
        ("-p 80:80", "every port is open already"),
        ("'open", "No closing quotation"),
        ("image", "im is not known here"),
    ],
)
def test_an_option_that_is_not_understood_is_refused_by_name(options: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_docker_options(options, "card")


@pytest.mark.parametrize("options", ["-v /a:/t --tmpfs /t", "--tmpfs /t --tmpfs /t:size=1m"])
def test_one_place_cannot_have_two_filesystems(options: str) -> None:
    with pytest.raises(InputError, match="/t is the target of"):
        container(options)


def test_a_dry_run_shows_what_the_container_is_like() -> None:
    card = {
        "additional_docker_run_options": "--read-only --hostname box --add-host db:10.0.0.7 --cap-drop ALL "
        "--tmpfs /tmp:size=1m --runtime amd"
    }
    text = describe(plan_for_tags(models(card, image="x")))
    for words in ("read-only", "hostname box", "host db:10.0.0.7", "no cap ALL", "tmpfs /tmp (size=1m)"):
        assert words in text
    assert "engine's runtime amd" in text


@given(st.text(max_size=60))
def test_any_options_text_gives_options_or_a_refusal(text: str) -> None:
    try:
        parse_docker_options(text, "card")
    except InputError as error:
        assert str(error).startswith("cannot use")
