"""How providers of data are reached: addresses as plain values, credentials as names of secrets.

The entries are those of ``credential.json`` or the environment, in madengine's form: ``MAD_MINIO``,
``MAD_AWS_S3``, ``NAS_NODES``. A provider without what it needs is not an error: another may be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..workflow.errors import InputError, did_you_mean
from .secrets import Secret

#: The entry of each provider that has one.
ENTRIES = {"minio": "MAD_MINIO", "aws": "MAD_AWS_S3", "nas": "NAS_NODES"}
REGION = "us-east-2"
SSH_PORT = 22
MOST_HOSTS = 64
_STORE_KEYS = ("USERNAME", "PASSWORD", "MINIO_ENDPOINT", "AWS_ENDPOINT_URL_S3", "REGION")
_HOST_KEYS = ("NAME", "HOST", "PORT", "USERNAME", "PASSWORD")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+(/[\w./-]*)?")
#: Neither can be taken for an option by ssh or rsync.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*|::[0-9A-Fa-f:.]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]*")


@dataclass(frozen=True, slots=True)
class Access:
    """A provider's part of a request: ``values`` as the agent's program takes them, ``secrets`` by variable.

    ``refused``: why the provider cannot be used, "" when it may be.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    refused: str = ""


def access_of(entries: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, Access]:
    """The access to each provider that needs one. Raises InputError; no value of an entry is in its words."""
    found = {}
    for provider, name in ENTRIES.items():
        entry, origin = entries.get(name), f"{origins.get(name, 'credential.json')}: {name}"
        found[provider] = _hosts(entry, origin) if provider == "nas" else _store(provider, entry, origin)
    return found


def _store(provider: str, entry: Any, origin: str) -> Access:
    """An object store. AWS without credentials is asked without a signature: for public buckets."""
    name = ENTRIES[provider]
    said = _texts(entry or {}, origin, _STORE_KEYS)
    endpoint = said.get("AWS_ENDPOINT_URL_S3") or said.get("MINIO_ENDPOINT", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        raise InputError(f"cannot use {origin}: its endpoint is no address such as http://minio:9000")
    if provider == "minio" and not entry:
        return Access(refused=f"there is no {name}, neither in credential.json nor in the environment")
    if provider == "minio" and not endpoint:
        return Access(refused=f"{name} has no MINIO_ENDPOINT")
    if bool(said.get("USERNAME")) != bool(said.get("PASSWORD")):
        raise InputError(f"cannot use {origin}: USERNAME and PASSWORD belong together, and one is missing")
    values: dict[str, Any] = {"endpoint": endpoint.rstrip("/"), "region": said.get("REGION") or REGION}
    secrets = {
        f"{name}_{key}": Secret(said[key], f"{origin}.{key}")
        for key in ("USERNAME", "PASSWORD")
        if said.get(key)
    }
    if secrets:
        values |= {"user": f"{name}_USERNAME", "password": f"{name}_PASSWORD"}
    return Access(values, secrets)


def _hosts(entry: Any, origin: str) -> Access:
    if not entry:
        return Access(refused="there are no NAS_NODES, neither in credential.json nor in the environment")
    if not isinstance(entry, list):
        raise InputError(f"cannot use {origin}: expected a list of machines")
    if len(entry) > MOST_HOSTS:
        raise InputError(f"cannot use {origin}: {MOST_HOSTS} machines are the most")
    hosts: list[dict[str, Any]] = []
    secrets: dict[str, Secret] = {}
    for number, one in enumerate(entry):
        where = f"{origin}[{number}]"
        said = _texts(one, where, _HOST_KEYS)
        host = said.get("HOST", "")
        if not _HOST.fullmatch(host):
            raise InputError(f"cannot use {where}.HOST: it is missing, or no name or address of a machine")
        port = said.get("PORT") or str(SSH_PORT)
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise InputError(f"cannot use {where}.PORT: it is no port")
        if said.get("USERNAME") and not _USER.fullmatch(said["USERNAME"]):
            raise InputError(f"cannot use {where}.USERNAME: it is no name of a user")
        made: dict[str, Any] = {"name": said.get("NAME", ""), "host": host, "port": int(port)}
        for key, part in (("USERNAME", "user"), ("PASSWORD", "password")):
            if said.get(key):
                made[part] = variable = f"NAS_NODES_{number}_{key}"
                secrets[variable] = Secret(said[key], f"{where}.{key}")
        hosts.append(made)
    return Access({"hosts": hosts}, secrets)


def _texts(entry: Any, origin: str, known: tuple[str, ...]) -> dict[str, str]:
    """An object of texts and whole numbers with no other keys. Raises InputError."""
    if not isinstance(entry, Mapping):
        raise InputError(f"cannot use {origin}: expected an object")
    for key, value in entry.items():
        if key not in known:
            raise InputError(f"cannot use {origin}.{key}: it is not a known key{did_you_mean(key, known)}")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"cannot use {origin}.{key}: expected text")
        if any(not character.isprintable() for character in str(value)):
            raise InputError(f"cannot use {origin}.{key}: it holds control characters")
    return {key: str(value) for key, value in entry.items()}
