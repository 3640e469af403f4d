"""A model's card as an entry of a manifest: as it was written, but for values that look like secrets."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from ..plan.secrets import looks_secret
from ..workflow.card import ModelCard

_OPTIONS = "additional_docker_run_options"


def entry(card: ModelCard) -> dict[str, Any]:
    """The entry with its whole name, paths and arguments. A secret of its environment is left out, one of its
    docker options keeps its name only, which then takes the value from the environment of the run."""
    found: dict[str, Any] = {
        **card.raw,
        "name": card.name,
        "dockerfile": card.dockerfile,
        "scripts": card.scripts,
        "args": card.args,
    }
    if "env_vars" in found:
        found["env_vars"] = open_env(card)
    if any(True for _ in _secret_options(card)):
        found[_OPTIONS] = shlex.join(_open_words(card))
    return found


def open_env(card: ModelCard) -> dict[str, str]:
    """The card's environment without secrets."""
    return {name: value for name, value in card.env_vars.items() if not looks_secret(name)}


def secrets_of_card(card: ModelCard) -> list[str]:
    """Names of secrets whose values stand in the card, and in no manifest."""
    return [*(name for name in card.env_vars if looks_secret(name)), *_secret_options(card)]


def _words(card: ModelCard) -> list[str]:
    try:
        return shlex.split(card.additional_docker_run_options)
    except ValueError:
        return []  # a run refuses it by name


def _secret_options(card: ModelCard) -> Iterator[str]:
    for word, before in zip(_words(card), ["", *_words(card)], strict=False):
        name, equals, _ = _value(word, before).partition("=")
        if equals and looks_secret(name):
            yield name


def _open_words(card: ModelCard) -> Iterator[str]:
    for word, before in zip(_words(card), ["", *_words(card)], strict=False):
        value = _value(word, before)
        name, equals, _ = value.partition("=")
        hidden = equals and looks_secret(name)
        yield word[: len(word) - len(value)] + name if hidden else word


def _value(word: str, before: str) -> str:
    """What a word gives to the environment: ``A=1`` of ``-e A=1``, ``-eA=1`` and ``--env=A=1``, else ""."""
    if before in ("-e", "--env"):
        return word
    for option in ("--env=", "-e"):
        if word.startswith(option) and not word.startswith("--env-"):
            return word[len(option) :]
    return ""
