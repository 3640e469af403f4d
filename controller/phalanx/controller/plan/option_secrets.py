"""Secrets among a card's docker options (``-e HF_TOKEN=...``): found, and taken out of the text. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from ..workflow.secrecy import holds_secret

#: Options after which the next word goes to the environment, clusters of short ones (``-te``) included.
_GIVES = re.compile(r"-[A-Za-z]*e|--env")


def secret_options(text: str) -> list[str]:
    """Names of the variables whose values are secrets."""
    return [name for name, hidden, _ in _given(text) if hidden]


def open_options(text: str) -> str:
    """The options as they may be shown and written: of such a variable the name only, which then means the
    value that the environment has."""
    if not secret_options(text):
        return text
    return shlex.join(
        word[: len(word) - len(value)] + name if hidden else word
        for name, hidden, (word, value) in _given(text)
    )


def _given(text: str) -> Iterator[tuple[str, bool, tuple[str, str]]]:
    """Of each word the variable that it gives ("" for none), whether it is a secret, and the word itself."""
    try:
        words = shlex.split(text)
    except ValueError:
        return  # a run refuses it by name
    for word, before in zip(words, ["", *words], strict=False):
        value = _value(word, before)
        name, equals, said = value.partition("=")
        hidden = bool(equals) and holds_secret(said, name)
        yield name, hidden, (word, value)


def _value(word: str, before: str) -> str:
    """What a word gives to the environment: ``A=1`` of ``-e A=1``, ``-eA=1`` and ``--env=A=1``, else ""."""
    if _GIVES.fullmatch(before):
        return word
    for option in ("--env=", "-e"):
        if word.startswith(option) and not word.startswith("--env-"):
            return word[len(option) :]
    return ""
