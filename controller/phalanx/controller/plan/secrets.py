"""Secrets: values that no plan, screen, log or file of a run may show.

They are kept apart from the plan from the moment they are read, under a type whose every text form is masked,
and travel to the controller over stdin. A name marks a secret: one given with ``--secret``, or one that looks
like a secret wherever it is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..workflow.errors import InputError
from ..workflow.place import read_text
from ..workflow.secrecy import looks_secret as looks_secret

MASK = "••••"
#: Largest secret read from a file, in bytes.
SECRET_LIMIT = 64 * 1024
#: Shorter values cannot be masked by their text: they would blot out half of every line.
MASKABLE = 4
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Secret:
    """One value and where it is from ("env:HF_TOKEN"). Its text forms do not show it."""

    value: str
    origin: str

    def __repr__(self) -> str:
        return f"Secret({MASK}, {self.origin!r})"


class Secrets(Mapping[str, Secret]):
    """Secrets by name. ``values_by_name`` is the only way to the values."""

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Mapping[str, Secret] | None = None) -> None:
        self._secrets = dict(secrets or {})

    def __getitem__(self, name: str) -> Secret:
        return self._secrets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._secrets)

    def __len__(self) -> int:
        return len(self._secrets)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(f'{name}={MASK}' for name in self._secrets)})"

    def values_by_name(self) -> dict[str, str]:
        """The values, for the controller's stdin and nothing else."""
        return {name: secret.value for name, secret in self._secrets.items()}

    def mask(self, text: str) -> str:
        """``text`` without any of the values."""
        for secret in sorted(self._secrets.values(), key=lambda one: -len(one.value)):
            for form in {secret.value, _in_json(secret.value)}:
                if len(form) >= MASKABLE:
                    text = text.replace(form, MASK)
        return text


def read_secrets(specs: Iterable[str], environ: Mapping[str, str]) -> Secrets:
    """The secrets of ``--secret NAME``, ``NAME=env:VAR`` and ``NAME=file:PATH``.

    Raises InputError for a name that is none, a variable that is not set, a file that cannot be read.
    """
    found: dict[str, Secret] = {}
    for spec in specs:
        name, _, source = spec.partition("=")
        if not _NAME.fullmatch(name):
            raise InputError(f"cannot use --secret {name!r}: a name has letters, digits and _ only")
        found[name] = _read(name, source or f"env:{name}", environ)
    return Secrets(found)


def _read(name: str, source: str, environ: Mapping[str, str]) -> Secret:
    kind, _, where = source.partition(":")
    if kind == "env" and where:
        if where not in environ:
            raise InputError(f"cannot use --secret {name}: the variable {where} is not set here")
        return Secret(environ[where], f"--secret env:{where}")
    if kind == "file" and where:
        text = read_text(Path(where).expanduser(), where, SECRET_LIMIT)
        return Secret(text.removesuffix("\n"), f"--secret file:{where}")
    raise InputError(
        f"cannot use --secret {name}: expected {name}, {name}=env:VARIABLE or {name}=file:PATH; "
        "a value on the command line can be read by everyone on this machine"
    )


def mask_argv(argv: Iterable[str], secrets: Secrets) -> tuple[str, ...]:
    """phalanx's own arguments as they may be stored: the values gone, short ones with their argument."""
    return tuple(_mask_argument(argument, secrets) for argument in argv)


def _mask_argument(argument: str, secrets: Secrets) -> str:
    for name, secret in secrets.items():
        for prefix in (f"{name}=", f"-e{name}=", f"--env={name}="):
            if argument.startswith(prefix):
                return prefix + MASK
        if _is_placeholder(name, argument) and secret.value not in argument:
            continue  # it says from which variable, which is no secret
        if name in argument and ("{" in argument or 0 < len(secret.value) < MASKABLE):
            return MASK  # a context with the value, however it is quoted; or a value too short to be found
    return secrets.mask(argument)


def _is_placeholder(name: str, argument: str) -> bool:
    """Whether a context gives the variable as ``"NAME": "${OTHER}"``, however it is quoted, and only so."""
    return (
        argument.count(name) == 1
        and re.search(rf"""["']{re.escape(name)}["']\s*:\s*["']\$\{{\w+\}}["']""", argument) is not None
    )


def _in_json(value: str) -> str:
    """The value as it stands inside a JSON text."""
    return json.dumps(value)[1:-1]
