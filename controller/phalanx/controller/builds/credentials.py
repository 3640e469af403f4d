"""Credentials of a project: ``credential.json`` and the environment over it, in madengine's form.

They are secrets from the moment they are read: no value is ever part of a plan, a message or a file of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..plan.secrets import SECRET_LIMIT, Secret, Secrets
from ..plan.text import check_text
from ..workflow.errors import InputError
from ..workflow.place import parse_json, read_json, read_text
from ..workflow.wording import kind_of
from .naming import on_hub

FILE = "credential.json"
#: Entries that may each be given whole, as JSON, in the environment.
IN_ENVIRONMENT = ("NAS_NODES", "MAD_AWS_S3", "MAD_MINIO", "PUBLIC_GITHUB_ROCM_KEY")
HUB_KEY = "dockerhub"
_HUB_VARIABLES = {
    "username": "MAD_DOCKERHUB_USER",
    "password": "MAD_DOCKERHUB_PASSWORD",
    "repository": "MAD_DOCKERHUB_REPO",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Login:
    """What a registry is shown."""

    username: str
    password: str = field(repr=False)
    origin: str = ""


@dataclass(frozen=True, slots=True)
class CredentialBook:
    """All entries by name. Its text form shows names only."""

    entries: Mapping[str, Any] = field(default_factory=dict, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict)

    def login(self, registry: str) -> Login | None:
        """For a registry by its name; None when there is no entry. Raises InputError for half a one."""
        key = HUB_KEY if on_hub(registry) else registry
        if key not in self.entries:
            return None
        entry, origin = self.entries[key], self.origins.get(key, FILE)
        if not isinstance(entry, Mapping):
            raise InputError(f"cannot use {origin}: {key}: expected an object, found {_kind(entry)}")
        missing = [name for name in ("username", "password") if not _text(entry.get(name))]
        if missing:
            raise InputError(f"cannot use {origin}: {key}.{missing[0]}: it is required and missing")
        return Login(str(entry["username"]), str(entry["password"]), origin)

    def repository(self, registry: str) -> str:
        """The repository into which images are pushed, "" when none is configured."""
        entry = self.entries.get(HUB_KEY if on_hub(registry) else registry)
        return str(entry.get("repository") or "") if isinstance(entry, Mapping) else ""

    def arguments(self, cred: str) -> Iterator[tuple[str, Secret]]:
        """``<cred>_<KEY>`` for each key of a model's entry: build arguments and environment of that model.

        Raises InputError when a name cannot be a variable's.
        """
        entry, origin = self.entries[cred], f"{self.origins.get(cred, FILE)}: {cred}"
        if not isinstance(entry, Mapping):
            raise InputError(f"cannot use {origin}: expected an object, found {_kind(entry)}")
        for key, value in entry.items():
            name = f"{cred}_{str(key).upper()}"
            if not _NAME.fullmatch(name):
                raise InputError(f"cannot use {origin}.{key}: {name!r} is no name of a variable")
            if not isinstance(value, (str, int, float)):
                raise InputError(f"cannot use {origin}.{key}: expected text, found {_kind(value)}")
            yield name, Secret(str(value), f"{origin}.{key}")


def run_credentials(
    project: Path, creds: Iterable[str], environ: Mapping[str, str]
) -> tuple[dict[str, Secrets], tuple[str, ...]]:
    """What each ``cred`` of cards gives at a run, and words for those that nobody has. Raises InputError.

    ``<cred>_SSH_KEY`` is the content of ``ssh_key_file``: nodes need not have that file.
    """
    wanted = tuple(dict.fromkeys(filter(None, creds)))
    if not wanted:
        return {}, ()
    book = read_credentials(project, environ)
    found = {
        cred: Secrets(dict((*book.arguments(cred), *_key_of(book, cred, project))))
        for cred in wanted
        if cred in book.entries
    }
    return found, tuple(f"cred: {missing_credentials(cred)}" for cred in wanted if cred not in found)


def _key_of(book: CredentialBook, cred: str, project: Path) -> Iterator[tuple[str, Secret]]:
    origin = f"{book.origins.get(cred, FILE)}: {cred}.ssh_key_file"
    if path := _text(book.entries[cred].get("ssh_key_file")):
        file = project / Path(path).expanduser()
        yield f"{cred}_SSH_KEY", Secret(read_text(file, f"{file} ({origin})", SECRET_LIMIT), origin)


def missing_credentials(cred: str) -> str:
    """That there are no credentials by this name, in words."""
    return (
        f"neither {FILE} nor the environment has the credentials {cred!r}; "
        f"add them to {FILE} beside models.json"
    )


def read_credentials(project: Path, environ: Mapping[str, str]) -> CredentialBook:
    """The file, and the environment over it. Raises InputError; a missing file is no error."""
    entries: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = project / FILE
    if path.is_file():
        found = read_json(path, FILE)
        if not isinstance(found, dict):
            raise InputError(f"cannot read {FILE}: expected an object, found {_kind(found)}")
        entries.update(found)
        origins.update(dict.fromkeys(found, FILE))
    for name in IN_ENVIRONMENT:
        if text := environ.get(name, ""):
            entries[name] = parse_json(text, f"the variable {name}")
            origins[name] = f"env:{name}"
    hub = {key: environ.get(name, "") for key, name in _HUB_VARIABLES.items()}
    for key, name in _HUB_VARIABLES.items():
        check_text(hub[key], f"the variable {name}")
    if hub["username"] and hub["password"]:
        entries[HUB_KEY] = {key: value for key, value in hub.items() if value}
        origins[HUB_KEY] = "env:MAD_DOCKERHUB_USER"
    return CredentialBook(entries, origins)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _kind(value: object) -> str:
    """The kind of a value, without the value: it may be the secret."""
    return (
        "text"
        if isinstance(value, str)
        else "a number"
        if isinstance(value, (int, float))
        else kind_of(value)
    )
