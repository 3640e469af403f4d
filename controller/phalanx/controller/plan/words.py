"""Text of a file as words of a command: split as a shell splits, and never given to one."""

from __future__ import annotations

import re
import shlex

from ..workflow.errors import InputError
from ..workflow.placeholders import refuse_within

#: A text in single quotes, one in double quotes, a quoted character, anything else up to the next of them.
_PARTS = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^'"\\]+""", re.DOTALL)
_QUOTED = re.compile(r"\\.", re.DOTALL)
#: What a shell acts on in double quotes, and outside of quotes.
_EXPANDED = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*|\$\(|`")
_ACTED_ON = re.compile(_EXPANDED.pattern + r"|[*?;|&<>]")


def split_words(text: str, origin: str) -> list[str]:
    """The words of a text. Raises InputError that names ``origin``: for a NUL, a placeholder, open quotes."""
    if "\0" in text:
        raise InputError(f"cannot use {origin}: it holds a NUL")
    refuse_within(text, origin)
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"cannot use {origin}: {str(error).lower()} in {text!r}") from error


def unexpanded(text: str, origin: str) -> list[str]:
    """A warning of the first thing in a text of words that a shell would act on; none when it is quoted."""
    found = next(filter(None, map(_acted_on, _PARTS.findall(text))), "")
    if not found:
        return []
    return [
        f"{origin}: {found} reaches the script as it is written: its arguments pass through no shell; "
        "work it out in the script, or put it in single quotes if it is meant so"
    ]


def _acted_on(part: str) -> str:
    """What a shell would act on in one part of a text, "" for nothing."""
    if part.startswith(("'", "\\")):
        return ""
    pattern = _EXPANDED if part.startswith('"') else _ACTED_ON
    found = pattern.search(_QUOTED.sub("", part))
    return found[0] if found else ""
