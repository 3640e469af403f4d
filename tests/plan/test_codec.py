"""plan.json: what is written is read back as the same plan, and nothing else is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from phalanx.controller.plan.codec import from_json, to_document, to_json
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.make import (
    plan_for_command,
    plan_for_image,
    plan_for_inventory,
    plan_for_tags,
)
from phalanx.controller.plan.model import Plan, SlurmOptions
from phalanx.controller.plan.secrets import read_secrets
from phalanx.controller.workflow.errors import InputError

from .making import command, inputs, models


def rich() -> Plan:
    context = '{"gpu_vendor": "AMD", "n_gpus": 2, "slurm": {"nodes": 4, "exclusive": true}, "timeout": 1}'
    return plan_for_tags(
        models(
            {"args": "--x 'ä b'", "multiple_results": "r.csv", "n_gpus": "2"},
            {"name": "s/two", "timeout": 60},
            context=context,
            image="img@sha256:" + "a" * 64,
            image_archive="img.tar",
            mounts=("/a:/b:ro",),
            ulimits=("nofile=1:2",),
            cpus="1.5",
            secrets=read_secrets(["S"], {"S": "canary"}),
            slurm=SlurmOptions(extra=("--comment=x",)),
            keep=True,
        )
    )


PLANS = [
    rich(),
    plan_for_command(command("true")),
    plan_for_image(inputs(image="a:1", image_archive="a.tar", bulk_rate="200m")),
    plan_for_tags(models(*({"env_vars": {"DOCKER_IMAGE_NAME": name}} for name in "ab"))),
    plan_for_inventory(inputs(image="a:1"), prune=True),
    plan_for_inventory(inputs(), prune=False),
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_comes_back_as_it_was(plan: Plan) -> None:
    assert from_json(to_json(plan)) == plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(extra=1), "extra: it is not a known key"),
        (lambda d: d["cases"][0]["container"].update(mighty=True), r"cases\[0\].container.mighty"),
        (lambda d: d.update(schema=2), "its schema is 2, this version reads 1"),
        (lambda d: d.pop("target"), "target: it is required and missing"),
        (lambda d: d["target"].update(nodes="4"), "target.nodes: expected a whole number, found text '4'"),
        (lambda d: d["target"].update(kind="ssh"), "target.kind: expected 'local' or 'slurm', found"),
        (lambda d: d["cases"][0].update(steps={}), r"cases\[0\].steps: expected a list"),
    ],
)
def test_a_document_that_is_no_plan_is_refused_by_its_key(change: Any, words: str) -> None:
    document = to_document(rich())
    change(document)
    with pytest.raises(InputError, match=words):
        from_json(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{", b"null"])
def test_bytes_that_are_no_plan_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"cannot read plan\.json"):
        from_json(data)


def test_a_dry_run_shows_values_origins_and_what_it_takes_for_granted() -> None:
    text = describe(rich())
    for words in (
        "4 on slurm: ? node[1-4]   (--additional-context: slurm.nodes)",
        "salloc --no-shell",
        "--comment=x",
        "bash run.sh --x 'ä b'",
        "/a → /b (ro)",
        "S=••••   --secret env:S",
        "MAD_MODEL_NAME=s/two   phalanx",
        "within 1 m   (models.json: [1] (s/two): timeout)",
        "from /proj/img.tar",
        "/proj/perf.csv (rows are appended)",
        "! --additional-context: this version does not act on timeout",
        "? names of nodes",
    ):
        assert words in text
    assert "canary" not in text


def test_a_dry_run_lets_no_control_character_through() -> None:
    text = describe(plan_for_command(command("echo", "\x1b]0;x\x07\r", env=("A=1\n2",))))
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    assert "A='1⏎2'" in text
