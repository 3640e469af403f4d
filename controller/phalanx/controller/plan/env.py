"""The workload's environment: layers of values, the later over the earlier, each with its origin.

A value is literal text, or ``${NAME}`` as a whole: ``workflow/placeholders`` has the rule. What is from a
variable whose name is that of a secret is a secret, whatever it is called here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..workflow.errors import InputError
from ..workflow.placeholders import resolve
from ..workflow.secrecy import url_password
from .model import EnvValue
from .secrets import Secret, Secrets, looks_secret

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What phalanx gives to each rank; a value for all ranks would be wrong on all but one.
PER_RANK = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "NNODES"})
PREFIX = "PHALANX_"
#: Limits of the protocol for one name and one value, in characters.
NAME_LIMIT, VALUE_LIMIT, COUNT_LIMIT = 256, 131072, 2048


@dataclass(slots=True)
class Environment:
    """Values so far and the secrets among them. ``environ`` answers ``${NAME}``."""

    environ: Mapping[str, str]
    values: dict[str, EnvValue] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    of_ranks: bool = True

    def put(self, name: str, value: str, origin: str) -> None:
        """Set a value over an earlier one. Raises InputError."""
        self._check(name, origin)
        resolved = resolve(value, self.environ, origin, name)
        found = resolved.text
        self._fits(name, found, origin)
        if looks_secret(name) or resolved.secret or url_password(found) or name in self.secrets:
            self.secrets[name] = Secret(found, origin)
            self.values[name] = EnvValue("", origin, secret=True)
            return
        self.values[name] = EnvValue(found, origin)

    def put_literal(self, name: str, value: str, origin: str, *, template: bool = False) -> None:
        """A value that is made here: nothing in it stands for anything of the environment.

        ``template``: it has names in it that are filled in for each node.
        """
        self._check(name, origin)
        self._fits(name, value, origin)
        self.values[name] = EnvValue(value, origin, template=template)

    def put_all(self, values: Mapping[str, str], origin: str) -> None:
        """A block of a file; ``origin`` is its key path."""
        self.put_each(values, lambda name: f"{origin}.{name}")

    def put_each(self, values: Mapping[str, str], origin_of: Callable[[str], str]) -> None:
        """Values of several sources; ``origin_of`` says for a name where its value is from."""
        for name, value in values.items():
            self.put(name, value, origin_of(name))

    def put_secret(self, name: str, secret: Secret) -> None:
        """A value that was given as a secret."""
        self._check(name, secret.origin)
        self.secrets[name] = secret
        self.values[name] = EnvValue("", secret.origin, secret=True)

    def put_options(self, options: Iterable[str], option: str) -> None:
        """``-e NAME=VALUE`` and ``-e NAME``, which takes the value from here."""
        for text in options:
            name, equals, value = text.partition("=")
            if equals:
                self.put(name, value, option)
                continue
            if name not in self.environ:
                self._check(name, option)
                raise InputError(
                    f"cannot use {option} {name}: the variable is not set here; say {option} {name}=VALUE"
                )
            self._literal(name, f"{option} (from the environment)")

    def _literal(self, name: str, origin: str) -> None:
        """A variable of this environment as it is: its text is not looked into for placeholders."""
        self._check(name, origin)
        value = self.environ[name]
        if looks_secret(name):
            self.put_secret(name, Secret(value, origin))
        else:
            self.values[name] = EnvValue(value, origin)

    def finished(self) -> tuple[dict[str, EnvValue], Secrets]:
        """The environment and its secrets. Raises InputError when there are too many."""
        if len(self.values) > COUNT_LIMIT:
            raise InputError(
                f"cannot use {len(self.values)} environment variables: {COUNT_LIMIT} are the most"
            )
        return dict(self.values), Secrets(self.secrets)

    def _fits(self, name: str, value: str, origin: str) -> None:
        if "\0" in value or len(value) > VALUE_LIMIT:
            raise InputError(
                f"cannot use {origin}: {name}: it holds a NUL or is longer than {VALUE_LIMIT} characters"
            )

    def _check(self, name: str, origin: str) -> None:
        if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
            raise InputError(
                f"cannot use {origin}: {name[:80]!r} is no name of a variable (letters, digits and _)"
            )
        if self.of_ranks and (name in PER_RANK or name.startswith(PREFIX)):
            raise InputError(f"cannot use {origin}: {name} is set by phalanx for each rank; leave it out")
