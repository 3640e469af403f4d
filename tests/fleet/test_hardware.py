"""What GPUs a node has, and which cases are skipped for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.hardware import Hardware, hardware_of, is_architecture, unfit
from phalanx.controller.fleet.meeting import Meeting
from phalanx.controller.plan.gpus import ALL, Gpus
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.plan.model import RunsOn
from phalanx.protocol.messages import CaseOpen

from tests.plan.making import models

from .world import World, make_plan

Shown = dict[str, Any]
MI300: Shown = {
    "vendor": "amd",
    "model": "AMD Instinct MI300X",
    "source": "amd-smi",
    "architecture": "gfx942",
}
A100: Shown = {
    "vendor": "nvidia",
    "model": "NVIDIA A100-SXM4-40GB",
    "source": "nvidia-smi",
    "architecture": "",
}
#: Of one that NVIDIA's driver does not know.
UNKNOWN: Shown = {**A100, "source": "pci", "model": "PCI device 0x20b0"}
LOST = "1 of 1 GPUs cannot be used (PCI device 0x20b0 at an unknown address): its driver does not list it"


def numbered(gpu: Shown, count: int, first_render: int = 0) -> list[Shown]:
    """So many GPUs of a kind, each with its render node when a first one is given."""
    render = [first_render + place if first_render else 0 for place in range(count)]
    return [{**gpu, "index": place, "render_number": render[place]} for place in range(count)]


@pytest.mark.parametrize(
    ("gpus", "found"),
    [
        (numbered(MI300, 8), Hardware("AMD", "gfx942", "AMD Instinct MI300X", "", tuple(range(8)))),
        (numbered(A100, 2), Hardware("NVIDIA", A100["model"], A100["model"], "", (0, 1))),
        ([{**A100, "source": "pci"}], Hardware()),
        ([UNKNOWN], Hardware(unusable=LOST)),
        ([{**MI300, "source": "pci"}], Hardware("AMD", "gfx942", "AMD Instinct MI300X", "", (0,))),
        ([{**MI300, "source": "pci", "architecture": ""}], Hardware()),
        ([A100, MI300], Hardware("NVIDIA", "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB", "", (0,))),
        ([{"vendor": "intel", "source": "pci"}], Hardware()),
        ([], Hardware()),
    ],
)
def test_gpus_with_a_driver_count(gpus: list[dict[str, Any]], found: Hardware) -> None:
    assert hardware_of({"gpus": gpus}) == found


def test_gpus_that_no_driver_gives_are_named_with_the_complaint_of_the_tool() -> None:
    buses = [f"0000:{place}9:00.0" for place in range(4)]
    seen = [{**A100, "index": place, "bus": bus} for place, bus in enumerate(buses)]
    lost = [{**one, "source": "pci"} for one in seen]
    complaint = "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch"
    none_left = hardware_of({"gpus": lost, "gpu_complaint": complaint})
    which = "NVIDIA A100-SXM4-40GB at 0000:09:00.0"
    assert none_left.unusable == f"4 of 4 GPUs cannot be used ({which} and 3 more): {complaint}"
    assert none_left.count == 0
    of_others = hardware_of({"gpus": [lost[0], *seen[1:]], "gpu_complaint": ""})
    assert of_others.unusable == "", "the driver has it, and the scheduler keeps it for another job"
    gone = {**lost[0], "model": "PCI device 0x20b0"}
    one_left = hardware_of({"gpus": [gone, *seen[1:]], "gpu_complaint": ""})
    assert one_left.unusable == LOST.replace("1 of 1", "1 of 4").replace("an unknown address", "0000:09:00.0")
    assert one_left.indexes == (1, 2, 3)
    assert hardware_of({"gpus": seen}).unusable == ""
    beside = {**MI300, "source": "pci", "architecture": ""}
    assert hardware_of({"gpus": [*seen, beside]}).unusable == "", "a display of another vendor is no loss"


def test_a_run_says_once_which_gpus_cannot_be_used_when_a_case_wants_any() -> None:
    plan = make_plan(2, cases=3)
    first, *others = plan.cases
    wanting = (
        replace(others[0], gpu_count=1),
        replace(others[1], container=replace(others[1].container, privileged=True)),
    )

    def notices(*cases: Any) -> list[str]:
        world = World(replace(plan, cases=cases))
        world.gpus = {"n1": [UNKNOWN]}
        assert world.run().state == "succeeded"
        return [f"{one.node}: {one.text}" for one in world.log if isinstance(one, ev.AgentNotice)]

    assert notices(first) == []
    words = f"n1: {LOST}"
    assert notices(first, *wanting) == notices(wanting[0]) == notices(wanting[1]) == [words]
    assert notices(replace(first, gpu_count=ALL)) == [words]


def test_a_case_that_counts_on_more_gpus_than_a_node_has_is_run_with_a_word() -> None:
    plan = make_plan(2)
    [case] = plan.cases

    def notices(count: int) -> list[str]:
        world = World(replace(plan, cases=(replace(case, gpu_count=count),)))
        world.gpus = {"n1": numbered(A100, 2)}
        assert world.run().state == "succeeded"
        return [f"{one.node}: {one.text}" for one in world.log if isinstance(one, ev.AgentNotice)]

    assert notices(2) == notices(0) == notices(ALL) == []
    assert notices(4) == [f"n1: case {case.name} counts on 4 GPUs of every node, and this one has 2"]


def test_the_release_of_rocm_is_told_as_its_first_two_numbers() -> None:
    assert hardware_of({"gpus": [MI300], "rocm": "6.4.1-83"}).hip_version == "6.4"
    assert hardware_of({"gpus": [MI300], "rocm": "?"}).hip_version == ""
    assert hardware_of({"gpus": [A100], "rocm": "6.4.1-83"}).hip_version == ""


def test_of_a_node_without_facts_nothing_is_known() -> None:
    assert hardware_of(None) == Hardware() == hardware_of({})
    assert set(Hardware().values().values()) == {""}


@pytest.mark.parametrize(
    ("name", "node", "same"),
    [
        ("gfx942", hardware_of({"gpus": [MI300]}), True),
        ("GFX942:sramecc+", hardware_of({"gpus": [MI300]}), True),
        ("gfx94", hardware_of({"gpus": [MI300]}), False),
        ("A100", hardware_of({"gpus": [A100]}), True),
        ("a100", hardware_of({"gpus": [A100]}), True),
        ("NVIDIA A100-SXM4-40GB", hardware_of({"gpus": [A100]}), True),
        ("A10", hardware_of({"gpus": [A100]}), False),
    ],
)
def test_an_architecture_is_amds_target_or_a_word_of_nvidias_name(
    name: str, node: Hardware, same: bool
) -> None:
    assert is_architecture(name, node) is same


def test_a_case_is_skipped_where_one_node_is_known_to_have_other_gpus() -> None:
    amd, nvidia = hardware_of({"gpus": [MI300]}), hardware_of({"gpus": [A100]})
    nodes = [("n1", Hardware()), ("n2", amd)]
    assert unfit(RunsOn(), nodes) == unfit(RunsOn("AMD", "gfx942"), nodes) == ""
    assert unfit(RunsOn("NVIDIA"), nodes) == "its image is for GPUs of NVIDIA, and n2 has AMD"
    assert unfit(RunsOn("AMD", "gfx90a"), nodes) == "its image is for gfx90a, and n2 has gfx942"
    assert unfit(RunsOn(skip=("A100", "gfx942")), nodes) == "skip_gpu_arch names gfx942, and n2 has gfx942"
    assert unfit(RunsOn(skip=("A100",)), [("n1", nvidia)]).startswith("skip_gpu_arch names A100")
    assert unfit(RunsOn("NVIDIA", "x", ("gfx942",)), [("n1", Hardware())]) == ""


def test_a_case_that_is_not_for_these_gpus_is_skipped_before_its_image_is_asked_for() -> None:
    plan = make_plan(2, cases=2, docker=True, images=2)
    first, second = plan.cases
    second = replace(second, runs_on=RunsOn(skip=("gfx942",)))
    world = World(replace(plan, cases=(first, second)))
    world.gpus = {"n0": [MI300], "n1": [MI300]}
    finished = world.run()
    [judged] = [one for one in world.log if isinstance(one, ev.CaseFinished) and one.case == second.name]
    assert (judged.status, judged.reason) == ("SKIPPED", "skip_gpu_arch names gfx942, and n0 has gfx942")
    assert (finished.state, finished.exit_code) == ("succeeded", 0)
    assert not any(isinstance(one, ev.ImageRequested) for one in world.log)


def test_a_container_is_given_the_gpus_of_its_node_when_the_plan_does_not_know_whose_they_are() -> None:
    plan = make_plan(3, docker=True)
    [case] = plan.cases
    world = World(replace(plan, cases=(replace(case, gpus=Gpus("", 2, "models.json: n_gpus")),)))
    world.gpus = {"n0": [MI300] * 8, "n1": [A100] * 8}
    assert world.run().state == "succeeded"
    specs = {node: message.spec for node, message in world.told_to(CaseOpen)}
    assert [device.source for device in specs["n0"].devices] == ["/dev/kfd", "/dev/dri"]
    assert (specs["n0"].group_add, specs["n0"].ipc) == (("video",), "host")
    assert (specs["n1"].gpus, specs["n1"].devices) == ("0,1", ())
    assert specs["n2"] == replace(case.container, image_id=specs["n2"].image_id)


def test_scripts_are_told_what_their_own_node_has_and_nothing_of_what_nobody_knows() -> None:
    card = {"n_gpus": "-1"}
    env = plan_for_tags(models(card, image="x", nodes=2)).cases[0].env
    meeting = Meeting(("a", "b"), 1, (hardware_of({"gpus": [MI300] * 4}), Hardware()))
    told = meeting.rendered(env, 0)
    of_the_node = ("MAD_SYSTEM", "MAD_GPU", "MAD_RUNTIME")
    assert {name: told[name] for name in told if name.startswith(of_the_node)} == {
        "MAD_GPU_VENDOR": "AMD",
        "MAD_SYSTEM_NGPUS": "4",
        "MAD_SYSTEM_GPU_ARCHITECTURE": "gfx942",
        "MAD_SYSTEM_GPU_PRODUCT_NAME": "AMD Instinct MI300X",
        "MAD_RUNTIME_NGPUS": "4",
    }
    assert not any("SYSTEM" in name or "VENDOR" in name for name in meeting.rendered(env, 1))
    said = '{"docker_env_vars": {"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx90a"}}'
    env = plan_for_tags(models(card, image="x", context=said)).cases[0].env
    assert meeting.rendered(env, 0)["MAD_SYSTEM_GPU_ARCHITECTURE"] == "gfx90a"
