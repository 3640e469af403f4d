"""Which names are names of secrets, and where in a document such values stand.

A value under such a name, from such a variable, or with a password in its URL, is shown and written nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_LOOKS_SECRET = re.compile(
    r"MAD_SECRETS|PASSWORD|PASSWD|(^|_)SECRET(_|$)|(^|_)TOKEN$|CREDENTIAL|(API|ACCESS|PRIVATE|SECRET|AUTH)_?KEY",
    re.IGNORECASE,
)


def looks_secret(name: str) -> bool:
    """Whether a variable of this name is treated as a secret without being told so."""
    return _LOOKS_SECRET.search(name) is not None


# A scheme from its last letter on: from its first, a long word would be read once for each of its letters.
_URL_PASSWORD = re.compile(r"[a-z][0-9+.-]*://[^/\s:@]*:(?P<password>[^/\s@]+)@", re.IGNORECASE)
#: A whole text that stands for a variable; its name is the group.
PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: Blocks that are environments: their values may be secrets, so errors show none of them, and whoever puts
#: them into a process resolves them.
ENVIRONMENTS = ("docker_env_vars", "env_vars", "docker_build_arg")


def url_password(text: str) -> str:
    """The password in a URL (``https://user:password@host``), "" without one."""
    found = _URL_PASSWORD.search(text)
    return found["password"] if found else ""


def secrets_within(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of every secret in a document, however deep. A whole placeholder is none."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from secrets_within(part, str(key))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from secrets_within(part, name)
    elif value is not None and not isinstance(value, bool) and not PLACEHOLDER.fullmatch(str(value)):
        if looks_secret(name) and str(value):
            yield name, str(value)
        elif password := url_password(str(value)):
            yield name, password


def holds_secret(value: Any, name: str = "") -> bool:
    """Whether there is a secret in a document, or in what stands under a name."""
    return any(True for _ in secrets_within(value, name))


def without_secrets(value: Any) -> Any:
    """The document without the keys whose values are secrets."""
    if isinstance(value, Mapping):
        return {
            key: without_secrets(part)
            for key, part in value.items()
            if isinstance(part, (Mapping, list, tuple)) or not holds_secret(part, str(key))
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(part) for part in value]
    return value
