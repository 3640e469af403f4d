"""--parallel in a plan: what is left to the nodes, what it costs, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from phalanx.controller.plan.codec import from_json, to_json
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.gpus import ALL
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.model import Plan
from phalanx.controller.workflow.errors import InputError

from .making import command, models

TWO = ({"n_gpus": "2"}, {"n_gpus": "4"})
AMD = '{"gpu_vendor": "AMD", "guest_os": "UBUNTU"}'


def of(*cards: dict[str, Any], parallel: int | None = 2, **more: Any) -> Plan:
    return plan_for_tags(models(*(cards or TWO), parallel=parallel, image="train:1", target="local", **more))


def test_the_nodes_give_gpus_that_the_plan_would_have_fixed_for_one_case_at_a_time() -> None:
    alone, at_once = of(parallel=None, context=AMD), of(context=AMD)
    assert [bool(case.container.devices) for case in alone.cases] == [True, True]
    assert [case.gpus for case in alone.cases] == [None, None]
    assert [case.container.devices for case in at_once.cases] == [(), ()]
    assert [(case.gpus.vendor, case.gpus.count) for case in at_once.cases if case.gpus] == [
        ("AMD", 2),
        ("AMD", 4),
    ]
    assert from_json(to_json(at_once)) == at_once


def test_what_a_script_is_told_of_its_gpus_is_the_same() -> None:
    alone, at_once = of(parallel=None, context=AMD), of(context=AMD)
    assert [case.env for case in alone.cases] == [case.env for case in at_once.cases]
    assert [case.columns for case in alone.cases] == [case.columns for case in at_once.cases]


def test_no_more_run_at_a_time_than_there_are_models() -> None:
    assert of(parallel=8).parallel == 2
    assert of({"n_gpus": "2"}, parallel=8).parallel == 1
    assert of(parallel=None).parallel == of(parallel=1).parallel == 1


def test_a_person_is_told_what_it_costs() -> None:
    (words,) = (words for words in of().warnings if "--parallel" in words)
    assert words.startswith("--parallel 2: up to 2 models share the CPUs, memory, disks and network")
    assert not [words for words in of(parallel=1).warnings if "--parallel" in words]


def test_a_dry_run_shows_what_is_left_to_the_nodes() -> None:
    context = '{"gpu_vendor": "NVIDIA", "docker_gpus": "0-7"}'
    text = describe(of({"n_gpus": "2"}, {"n_gpus": str(ALL)}, context=context))
    assert "parallel    up to 2 cases at a time, each on GPUs and with a MASTER_PORT of its own" in text
    assert "gpus        ? 2 that are free of 0-7 on each node   (models.json" in text
    assert "gpus        all of 0-7 on each node   (models.json" in text
    assert "parallel" not in describe(of(parallel=1))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"parallel": 0}, "cannot use --parallel 0: expected 1 to 32"),
        ({"parallel": 33}, "cannot use --parallel 33: expected 1 to 32"),
        (
            {"env": ("MASTER_PORT=4711",)},
            "cannot use --parallel 2: m0 and m1 would both meet on port 4711 (-e); leave it out, and each "
            "gets a free one",
        ),
        (
            {"context": '{"distributed": {"port": 29600}}'},
            "cannot use --parallel 2: m0 and m1 would both meet on port 29600 (distributed.port); leave it "
            "out, and each gets a free one",
        ),
    ],
)
def test_what_two_of_them_cannot_both_have_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        of(**more)
    assert str(refused.value) == words


def test_ports_of_their_own_may_be_stated() -> None:
    cards = [{"distributed": {"launcher": "torchrun", "port": port}} for port in (29600, 29601)]
    assert [case.master_port for case in of(*cards).cases] == [29600, 29601]


def test_deepspeed_is_kept_off_the_port_that_it_has_in_every_run() -> None:
    def runners(**more: Any) -> list[str]:
        cards = [{"n_gpus": "2", "distributed": {"launcher": name}} for name in ("deepspeed", "torchrun")]
        return [case.env["MAD_MULTI_NODE_RUNNER"].value for case in of(*cards, **more).cases]

    torch = "torchrun --standalone --nproc_per_node=2"
    assert runners() == ["deepspeed --num_gpus=2 --master_port={MASTER_PORT}", torch]
    assert runners(parallel=None) == ["deepspeed --num_gpus=2", torch]
    assert "--master_port={MASTER_PORT} --master_port" not in runners(nodes=2)[0]


def test_a_command_is_one_case() -> None:
    with pytest.raises(InputError, match="cannot use --parallel 2 with a command: it is one case"):
        plan_for_command(command(parallel=2))
    assert plan_for_command(command(parallel=1)).parallel == 1
