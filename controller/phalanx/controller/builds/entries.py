"""A model's card as an entry of a manifest: as it was written, but for values that look like secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from ..plan.secrets import looks_secret
from ..workflow.card import ModelCard
from ..workflow.manifest import REQUIRED
from ..workflow.secrecy import secrets_within, without_secrets

_OPTIONS = "additional_docker_run_options"
#: Options after which the next word goes to the environment, clusters of short ones (``-te``) included.
_GIVES = re.compile(r"-[A-Za-z]*e|--env")


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
    hidden = list(_secret_options(card))
    if hidden:
        found[_OPTIONS] = shlex.join(_open_words(card))
    required = secrets_of_card(card)
    return found | ({REQUIRED: required} if required else {})


def open_env(card: ModelCard) -> dict[str, str]:
    """The card's environment without secrets."""
    found: dict[str, str] = without_secrets(card.env_vars)
    return found


def secrets_of_card(card: ModelCard) -> list[str]:
    """Names of secrets whose values stand in the card, and in no manifest."""
    said = [name for name, _ in secrets_within(card.raw)]
    return list(dict.fromkeys((*said, *_secret_options(card))))


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
    if _GIVES.fullmatch(before):
        return word
    for option in ("--env=", "-e"):
        if word.startswith(option) and not word.startswith("--env-"):
            return word[len(option) :]
    return ""
