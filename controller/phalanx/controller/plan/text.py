"""Text that can be stored, sent and given to a node.

Bytes that are no UTF-8, of a command line, a variable or a folder's name, reach Python as half characters. No
message and no file of a run can hold those: what has one is refused by name, while nothing has been touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from ..workflow.errors import InputError
from ..workflow.wording import KeyPath, key_path
from .model import EnvValue, Plan
from .secrets import Secrets


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(value: str, what: str) -> None:
    """``what`` names it, without its value: that may be a secret. Raises InputError."""
    if not is_text(value):
        raise InputError(no_text(what))


def check_folder(path: str) -> None:
    """The name of the folder that a command is given in. Raises InputError."""
    check_text(path, f"the working directory {os.fsencode(path).decode(errors='backslashreplace')}")


def no_text(what: str) -> str:
    """The words about one that is none."""
    return (
        f"cannot use {what}: it is not UTF-8 text, and runs and their files hold no other; "
        "write it in UTF-8, or encode it (base64)"
    )


def check_secrets(secrets: Secrets) -> None:
    """The values of secrets. Raises InputError."""
    for name, secret in secrets.items():
        check_text(secret.value, f"the secret {name} ({secret.origin})")


def checked(plan: Plan, secrets: Secrets) -> Plan:
    """The plan, of which every text can be sent, and its secrets as well. Raises InputError."""
    check_secrets(secrets)
    for what in _half(plan, ()):
        raise InputError(no_text(what))
    return plan


def _half(value: Any, place: KeyPath) -> Iterator[str]:
    """What of a value is no text, in words: where a variable is from, else its key path in the plan."""
    for name, part in _parts(value):
        if isinstance(part, str):
            if not is_text(part):
                yield f"{key_path((*place, name))} of the plan"
        elif isinstance(part, EnvValue) and not is_text(part.value):
            yield f"{name} ({part.origin})"
        elif part is not None and not isinstance(part, (int, float)):
            yield from _half(part, (*place, name))


def _parts(value: Any) -> Iterable[tuple[str | int, Any]]:
    """What a value is made of, by key, index or field."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    return [(name, getattr(value, name)) for name in getattr(value, "__dataclass_fields__", ())]
