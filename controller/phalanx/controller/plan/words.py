"""Text of a file as words of a command: split as a shell splits, and never given to one."""

from __future__ import annotations

import shlex

from ..workflow.errors import InputError
from ..workflow.placeholders import refuse_within


def split_words(text: str, origin: str) -> list[str]:
    """The words of a text. Raises InputError that names ``origin``: for a NUL, a placeholder, open quotes."""
    if "\0" in text:
        raise InputError(f"cannot use {origin}: it holds a NUL")
    refuse_within(text, origin)
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"cannot use {origin}: {str(error).lower()} in {text!r}") from error
