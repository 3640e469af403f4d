"""A model's card as an entry of a manifest: as it was written, but for values that look like secrets."""

from __future__ import annotations

from typing import Any

from ..plan.option_secrets import open_options, secret_options
from ..workflow.card import ModelCard
from ..workflow.manifest import REQUIRED
from ..workflow.secrecy import secrets_within, without_secrets

_OPTIONS = "additional_docker_run_options"


def entry(card: ModelCard) -> dict[str, Any]:
    """The entry with its whole name, paths and arguments. Secrets of it are left out and named: a run takes
    them from its own environment. One of its docker options keeps its name there."""
    found: dict[str, Any] = without_secrets({
        **card.raw,
        "name": card.name,
        "dockerfile": card.dockerfile,
        "scripts": card.scripts,
        "args": card.args,
    })  # fmt: skip
    if secret_options(card.additional_docker_run_options):
        found[_OPTIONS] = open_options(card.additional_docker_run_options)
    required = secrets_of_card(card)
    return found | ({REQUIRED: required} if required else {})


def open_env(card: ModelCard) -> dict[str, str]:
    """The card's environment without secrets."""
    found: dict[str, str] = without_secrets(card.env_vars)
    return found


def secrets_of_card(card: ModelCard) -> list[str]:
    """Names of secrets whose values stand in the card, and in no manifest."""
    said = [name for name, _ in secrets_within(card.raw)]
    return list(dict.fromkeys((*said, *secret_options(card.additional_docker_run_options))))
