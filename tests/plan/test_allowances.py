"""What gives a node away: refused by default, had by the word of the user, never by that of a card."""

from __future__ import annotations

import json

import pytest
from phalanx.controller.plan.codec import from_json, to_json
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.model import Plan
from phalanx.controller.workflow.errors import InputError
from phalanx.protocol.messages import Allowance

from .making import command, models

DANGERS = [
    ("--privileged", "privileged", "--privileged: the container would own the node"),
    ("--pid=host", "host-pid", "--pid=host: the container would see and end"),
    ("--uts host", "host-uts", "--uts=host: the container could rename"),
    ("--userns=host", "host-userns", "--userns=host: "),
    ("--cap-add=ALL", "capabilities", "capability ALL: it reaches over the whole node"),
    ("--cap-add CAP_SYS_MODULE", "capabilities", "capability CAP_SYS_MODULE"),
    ("--cap-add dac_read_search", "capabilities", "capability DAC_READ_SEARCH"),
    (
        "-v /var/run/docker.sock:/x",
        "engine-socket",
        "mount /var/run/docker.sock:/x: it is a container engine",
    ),
    ("-v /run/user/1/podman/podman.sock:/x", "engine-socket", "container engine's socket"),
    ("-v /a:/var/run/docker.sock", "engine-socket", "container engine's socket"),
    ("-v /:/host", "system-paths", "mount /: it is the node's own, not data"),
    ("-v //:/host", "system-paths", "mount /: it is the node's own"),
    ("-v /tmp/..:/host", "system-paths", "mount /: it is the node's own"),
    ("-v /var/run/:/x", "system-paths", "mount /var/run: "),
    ("-v /sys:/sys:ro", "system-paths", "mount /sys: "),
    ("--mount type=bind,source=/etc,target=/x", "system-paths", "mount /etc: "),
    ("-v /data:/dev", "system-paths", "mount /data:/dev: "),
    ("--device /dev/mem", "devices", "device /dev/mem: it is the node's memory"),
    ("--device /dev/sda1", "devices", "device /dev/sda1: it is a disk of the node"),
    ("--device /dev/nvme0n1", "devices", "it is a disk of the node"),
    ("--device /dev/mapper/root", "devices", "it is a disk of the node"),
    ("--device /etc/passwd", "devices", "device /etc/passwd: it is not below /dev"),
]


def of_card(options: str, **more: object) -> Plan:
    return plan_for_tags(models({"additional_docker_run_options": options}, image="x", **more))


@pytest.mark.parametrize(("options", "word", "why"), DANGERS)
def test_what_gives_a_node_away_is_refused_with_the_word_that_allows_it(
    options: str, word: str, why: str
) -> None:
    with pytest.raises(InputError) as caught:
        of_card(options)
    assert "additional_docker_run_options: " in str(caught.value)
    assert why in str(caught.value)
    assert str(caught.value).endswith(f"if that is meant, say --allow {word} (only who runs it can)")
    others = ",".join(one.value for one in Allowance if one.value != word)
    with pytest.raises(InputError, match=f"--allow {word}"):
        of_card(options, allow=(others,))


@pytest.mark.parametrize(("options", "word", "why"), DANGERS)
def test_the_word_of_the_user_allows_it_with_one_line_of_warning(options: str, word: str, why: str) -> None:
    plan = of_card(options, allow=(word,))
    assert plan.cases[0].container.allow == (Allowance(word),)
    warnings = [words for words in plan.warnings if words.startswith("--allow")]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"--allow {word} is used by m0: ")
    assert from_json(to_json(plan)) == plan


def test_what_the_command_line_asks_for_needs_the_word_as_well() -> None:
    for more, words in (
        ({"mounts": ("/etc:/x",)}, "cannot use -v: mount /etc: .*--allow system-paths"),
        ({"devices": ("/dev/sda",)}, "cannot use --device: device /dev/sda: .*--allow devices"),
        ({"context": '{"docker_mounts": {"/x": "/etc"}}'}, r"docker_mounts\./x: mount /etc: "),
    ):
        with pytest.raises(InputError, match=words):
            plan_for_command(command(image="x", **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mount",
    ["/data:/d", "/etc/ssl/certs:/c", "/dev/shm:/s", "/opt/rocm:/opt/rocm", "/sys/class:/sys/class:ro"],
)
def test_data_and_parts_of_the_system_need_no_word(mount: str) -> None:
    assert plan_for_command(command(image="x", mounts=(mount,))).warnings == ()


def test_devices_of_gpus_and_fabrics_need_no_word() -> None:
    devices = (
        "/dev/kfd",
        "/dev/dri/renderD128",
        "/dev/infiniband",
        "/dev/nvidia0",
        "/dev/fuse",
    )
    found = plan_for_command(command(image="x", devices=devices))
    assert [one.source for one in found.cases[0].container.devices] == list(devices)


def test_no_card_and_no_context_can_allow_anything() -> None:
    for place in ({"allow": "privileged"}, {"slurm": {"allow": "privileged"}}):
        with pytest.raises(InputError):
            of_card("--privileged", context=json.dumps(place))
    card = {"additional_docker_run_options": "--privileged --allow privileged"}
    with pytest.raises(InputError, match="--allow is not known here"):
        plan_for_tags(models(card, image="x"))
    card = {"additional_docker_run_options": "--privileged", "env_vars": {"PHALANX_ALLOW": "privileged"}}
    with pytest.raises(InputError, match="PHALANX_ALLOW is set by phalanx"):
        plan_for_tags(models(card, image="x"))
    context = json.dumps({"docker_env_vars": {"PHALANX_ALLOW": "privileged"}})
    with pytest.raises(InputError, match="PHALANX_ALLOW is set by phalanx"):
        of_card("--privileged", context=context)
    with pytest.raises(InputError, match="PHALANX_ALLOW is set by phalanx"):
        of_card("--privileged -e PHALANX_ALLOW=privileged")


def test_the_environment_of_the_login_node_gives_the_default_and_the_option_goes_over_it() -> None:
    environ = {"PHALANX_ALLOW": "privileged, host-pid"}
    plan = of_card("--privileged --pid host", environ=environ)
    assert plan.cases[0].container.allow == (Allowance.PRIVILEGED, Allowance.HOST_PID)
    assert [words.split(" is used")[0] for words in plan.warnings] == [
        "PHALANX_ALLOW privileged",
        "PHALANX_ALLOW host-pid",
    ]
    with pytest.raises(InputError, match="--allow privileged"):
        of_card("--privileged", environ=environ, allow=("devices",))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"allow": ("priviledged",)},
            "cannot use --allow 'priviledged': expected .*did you mean 'privileged'",
        ),
        ({"allow": ("privileged,",)}, "cannot use --allow '': expected privileged, host-pid"),
        ({"environ": {"PHALANX_ALLOW": "hostpid"}}, "cannot use PHALANX_ALLOW 'hostpid': .*'host-pid'"),
    ],
)
@pytest.mark.parametrize("image", ["x", ""])
def test_an_unknown_word_is_refused_with_the_nearest(
    given: dict[str, object], words: str, image: str
) -> None:
    with pytest.raises(InputError, match=words):
        plan_for_command(command(image=image, **given))


def test_a_dry_run_shows_each_allowance_with_its_origin_and_what_uses_it() -> None:
    text = describe(
        of_card("--privileged -v /etc:/x:ro -v /usr:/u:ro", allow=("privileged,system-paths", "devices"))
    )
    assert "privileged, used by --privileged   (--allow)" in text
    assert "system-paths, used by mount /etc, mount /usr   (--allow)" in text
    assert "devices, used by nothing   (--allow)" in text
    assert "! --allow privileged is used by m0: it has every device and capability of the node" in text
    assert "--allow devices is used" not in text
    assert "allowed" not in describe(of_card("--ipc=host"))


def test_the_options_of_a_real_multi_node_training_run_with_two_words() -> None:
    options = (
        "--privileged --group-add render --shm-size 64G --device=/dev/infiniband --cap-add IPC_LOCK "
        "--ulimit memlock=-1 -v /sys:/sys:ro -v /run/udev:/run/udev:ro"
    )
    spec = of_card(options, allow=("privileged", "system-paths")).cases[0].container
    assert spec.privileged
    assert [mount.source for mount in spec.mounts] == ["/sys", "/run/udev"]
    with pytest.raises(InputError, match="--allow system-paths"):
        of_card(options, allow=("privileged",))


def test_a_process_has_no_container_to_allow_anything() -> None:
    plan = plan_for_command(command(allow=("privileged",)))
    assert plan.cases[0].container.allow == ()
    assert plan.warnings == ()
