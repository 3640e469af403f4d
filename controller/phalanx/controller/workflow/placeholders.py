"""``${NAME}`` in what users wrote: resolved from the login node's environment or refused, never passed on.

A placeholder is a whole value. Within a longer text it is refused, in every form that a shell would expand:
half-expanded placeholders have replaced real tokens before. Other braces (``${model.name}``) are plain text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import InputError
from .secrecy import PLACEHOLDER, looks_secret

_WITHIN = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)((?::?[-=+?]|[#%/^,@\[])[^}]*)?\}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A value and the variable that it is from, "" when it was written out."""

    text: str = field(repr=False)
    variable: str = ""

    @property
    def secret(self) -> bool:
        """Whether it is from a variable whose name is that of a secret."""
        return looks_secret(self.variable)


def resolve(text: str, environ: Mapping[str, str], where: str, name: str = "it") -> Resolved:
    """The value of a text. ``where``: file and key path, ``name``: what the sentence calls the value.

    Raises InputError for a placeholder whose variable is not set, or that stands within a longer text.
    """
    whole = PLACEHOLDER.fullmatch(text)
    if whole is None:
        refuse_within(text, where, name)
        return Resolved(text)
    if whole[1] not in environ:
        raise InputError(f"cannot use {where}: {name} is {text}, and {whole[1]} is not set here")
    return Resolved(environ[whole[1]], whole[1])


def resolve_shown(text: str, environ: Mapping[str, str], where: str) -> str:
    """The same for a value that plans and commands show: one that is a secret is refused as well."""
    found = resolve(text, environ, where)
    if found.secret:
        raise InputError(
            f"cannot use {where}: {text} is a secret, and this value is shown in plans and commands; "
            "give it to the workload as docker_env_vars"
        )
    return found.text


def refuse_placeholder(text: str, where: str) -> None:
    """For texts that are read as they stand: raises InputError for a placeholder, whole or within."""
    if PLACEHOLDER.fullmatch(text):
        raise InputError(f"cannot use {where}: {text} is not looked up here; write it out, or say it with -c")
    refuse_within(text, where)


def refuse_within(text: str, where: str, name: str = "it") -> None:
    """Raises InputError for a text with a placeholder in it; its default may be a secret and is not shown."""
    if found := _WITHIN.search(text):
        shown = f"${{{found[1]}{'...' if found[2] else ''}}}"
        raise InputError(
            f"cannot use {where}: {name} holds the placeholder {shown} within a text; "
            "write the value out, or give the whole value as ${NAME}"
        )
