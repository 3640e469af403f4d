"""What is not UTF-8 is refused by name while nothing has been touched."""

from __future__ import annotations

import dataclasses

import pytest
from phalanx.controller.plan.make import plan_for_command, plan_for_image
from phalanx.controller.plan.secrets import Secret, Secrets
from phalanx.controller.plan.text import is_text
from phalanx.controller.workflow.errors import InputError

from .making import command

HALF = b"caf\xe9".decode("utf-8", "surrogateescape")


def test_only_whole_characters_are_text() -> None:
    assert is_text("") and is_text("café") and is_text("\U0001f600")
    assert not is_text(HALF) and not is_text("\ud83d")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"env": ("A",), "environ": {"A": HALF}}, r"A \(-e \(from the environment\)\)"),
        ({"environ": {"pipeline": HALF}}, r"cases\[0\]\.columns\.pipeline of the plan"),
        ({"cwd": f"/home/{HALF}"}, "cwd of the plan"),
        ({"argv": ("phalanx", HALF)}, r"argv\[1\] of the plan"),
        ({"command": ("echo", HALF)}, r"cases\[0\]\.steps\[0\]\.argv\[1\] of the plan"),
        ({"secrets": Secrets({"A": Secret(HALF, "env:A")})}, r"the secret A \(env:A\)"),
        ({"env": ("A_TOKEN",), "environ": {"A_TOKEN": HALF}}, r"the secret A_TOKEN \(-e"),
    ],
)
def test_a_plan_with_half_a_character_says_where_and_shows_no_value(
    more: dict[str, object], what: str
) -> None:
    with pytest.raises(InputError, match=rf"^cannot use {what}.*: it is not UTF-8 text") as refused:
        plan_for_command(command(**more))
    assert "caf" not in str(refused.value)


def test_plans_of_images_are_looked_at_as_well() -> None:
    inputs = dataclasses.replace(command(), command=(), image="img:1", cwd=HALF)
    with pytest.raises(InputError, match="cannot use cwd of the plan"):
        plan_for_image(inputs)
