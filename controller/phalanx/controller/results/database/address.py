"""Where the MongoDB is and who asks, from the environment: MONGO_*, as madengine has them, and five more.

User and password reach the client as arguments of their own, so no character of theirs has to be escaped. The
password is shown nowhere; what the client says of an address goes through ``masked`` first.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ...plan.secrets import Secret, Secrets
from ...workflow.errors import InputError
from ...workflow.place import read_text

HOST, PORT, AUTH_SOURCE, TIMEOUT_MS = "localhost", 27017, "admin", 5000
#: Longest wait for a server to be found, in milliseconds: an hour.
LONGEST_MS = 3_600_000
#: Largest password file, in bytes.
PASSWORD_LIMIT = 4096
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_URI = re.compile(
    r"(?P<scheme>mongodb(\+srv)?)://((?P<user>[^:@/]*)(:(?P<password>[^@/]*))?@)?"
    r"(?P<hosts>[^@/?]+)(/(?P<rest>[^@]*))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A server and a login. ``seen`` is how it is called on screen; the rest goes to the client."""

    seen: str
    uri: str = field(repr=False)
    tls: bool
    timeout_ms: int
    by_uri: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    auth_source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def origin(self) -> str:
        """The variables that an error of the client is about."""
        said = "MONGO_URI" if self.by_uri else "MONGO_HOST"
        return f"{said} with MONGO_TLS_CA_FILE" if "tlsCAFile" in self.options else said

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of the client, beside the address."""
        return {
            "serverSelectionTimeoutMS": self.timeout_ms,
            "connectTimeoutMS": self.timeout_ms,
            **self.options,
        }

    def masked(self, text: str) -> str:
        """``text`` without the password and without the address that may hold one."""
        uri = self.uri if "@" in self.uri else ""
        texts = (uri, self.password, unquote(self.password))
        return Secrets({str(place): Secret(text, "") for place, text in enumerate(texts)}).mask(text)

    def warning(self) -> str:
        """What to know before a login goes out, "" when all is well."""
        if not self.user or self.tls or _all_local(self.seen):
            return ""
        return (
            f"the login of {self.user} and all rows go to {self.seen} unencrypted; set MONGO_TLS=1, "
            "with MONGO_TLS_CA_FILE for a certificate of your own"
        )


def address_of(environ: Mapping[str, str]) -> Address:
    """The address. Raises InputError, which never shows a password. Empty variables count as unset."""
    env = {name: value for name, value in environ.items() if name.startswith("MONGO_") and value}
    if "MONGO_URI" in env:
        return _by_uri(env)
    host, port = _host(env.get("MONGO_HOST", HOST)), _number(env, "MONGO_PORT", PORT, 65535)
    ca_file, tls = _tls(env)
    login = _login(env)
    source = env.get("MONGO_AUTH_SOURCE", AUTH_SOURCE)
    return Address(
        seen=f"{host}:{port}",
        uri=f"mongodb://{host}:{port}",
        tls=bool(tls),
        timeout_ms=_number(env, "MONGO_TIMEOUT_MS", TIMEOUT_MS, LONGEST_MS),
        user=login.get("username", ""),
        password=login.get("password", ""),
        auth_source=source,
        options={**login, **({"authSource": source} if login else {}), **_tls_options(ca_file, tls)},
    )


def _by_uri(env: Mapping[str, str]) -> Address:
    for name in ("MONGO_HOST", "MONGO_PORT"):
        if name in env:
            raise InputError(f"cannot use MONGO_URI beside {name}: both say where the server is; unset one")
    found = _URI.fullmatch(env["MONGO_URI"])
    if found is None:
        raise InputError(
            "cannot use MONGO_URI: expected mongodb://HOST[:PORT]/[?OPTIONS] or mongodb+srv://HOST/; "
            "user and password go into MONGO_USER and MONGO_PASSWORD_FILE, where nothing needs escaping"
        )
    ca_file, tls = _tls(env)
    login = _login(env, user_elsewhere=bool(found["user"]))
    options = {**login, **_tls_options(ca_file, tls)}
    if source := env.get("MONGO_AUTH_SOURCE"):
        options["authSource"] = source
    return Address(
        seen=unquote(found["hosts"]),
        uri=env["MONGO_URI"],
        by_uri=True,
        tls=_tls_of_uri(found) if tls is None else tls,
        timeout_ms=_number(env, "MONGO_TIMEOUT_MS", TIMEOUT_MS, LONGEST_MS),
        user=login.get("username") or unquote(found["user"] or ""),
        password=login.get("password") or found["password"] or "",
        auth_source=source or "",
        options=options,
    )


def _login(env: Mapping[str, str], *, user_elsewhere: bool = False) -> dict[str, str]:
    password = env.get("MONGO_PASSWORD", "")
    if path := env.get("MONGO_PASSWORD_FILE"):
        if password:
            raise InputError("cannot use MONGO_PASSWORD_FILE beside MONGO_PASSWORD: unset one")
        password = _password(path)
    user = env.get("MONGO_USER", "")
    if user and not password:
        raise InputError(
            f"cannot log in as {user}: set MONGO_PASSWORD_FILE or MONGO_PASSWORD, or unset MONGO_USER"
        )
    if not password:
        return {}
    if not user:
        hint = "leave the user out of MONGO_URI and set MONGO_USER" if user_elsewhere else "set MONGO_USER"
        raise InputError(f"cannot log in: there is a password and no MONGO_USER; {hint}")
    return {"username": user, "password": password}


def _password(shown: str) -> str:
    path = Path(shown).expanduser()
    try:
        about = path.stat()
    except OSError as error:
        raise InputError(
            f"cannot read MONGO_PASSWORD_FILE {shown}: {os.strerror(error.errno or 0)}"
        ) from error
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
        raise InputError(
            f"cannot use MONGO_PASSWORD_FILE {shown}: others may read it; run: chmod 600 {shown}"
        )
    password = (
        read_text(path, f"MONGO_PASSWORD_FILE {shown}", PASSWORD_LIMIT).removesuffix("\n").removesuffix("\r")
    )
    if not password or "\n" in password:
        raise InputError(f"cannot use MONGO_PASSWORD_FILE {shown}: expected the password on one line")
    return password


def _host(host: str) -> str:
    """A host as addresses have it. The value is not shown when it may hold a login."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host.strip("[]")).version == 6 else host
    except ValueError:
        pass
    if _HOST.fullmatch(host):
        return host
    seen = "" if "@" in host else f" {host!r}"
    raise InputError(
        f"cannot use MONGO_HOST{seen}: expected the name or address of one host; the port goes into "
        "MONGO_PORT, several hosts and options into MONGO_URI"
    )


def _number(env: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = env.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise InputError(f"cannot use {name}={text}: expected a number from 1 to {most}")
    return int(text)


def _tls(env: Mapping[str, str]) -> tuple[str, bool | None]:
    """The CA file, "" without; and whether TLS is wanted, None when nothing was said."""
    ca_file, said = env.get("MONGO_TLS_CA_FILE", ""), env.get("MONGO_TLS", "").lower()
    if said and said not in _TRUE | _FALSE:
        raise InputError(f"cannot use MONGO_TLS={said}: expected 1 or 0")
    if ca_file and said in _FALSE:
        raise InputError("cannot use MONGO_TLS_CA_FILE with MONGO_TLS=0: unset one")
    if ca_file:
        read_text(Path(ca_file).expanduser(), f"MONGO_TLS_CA_FILE {ca_file}")
    return ca_file, (said in _TRUE if said else True if ca_file else None)


def _tls_options(ca_file: str, tls: bool | None) -> dict[str, Any]:
    options: dict[str, Any] = {} if tls is None else {"tls": tls}
    return {**options, "tlsCAFile": str(Path(ca_file).expanduser())} if ca_file else options


def _tls_of_uri(found: re.Match[str]) -> bool:
    said = re.search(r"[?&](?:tls|ssl)=(\w+)", f"?{(found['rest'] or '').partition('?')[2]}", re.IGNORECASE)
    return said[1].lower() == "true" if said else found["scheme"] == "mongodb+srv"


def _all_local(hosts: str) -> bool:
    return all(_is_local(host) for host in hosts.split(","))


def _is_local(host: str) -> bool:
    name = re.sub(r":[^:\]]*$", "", host).strip("[]")
    if name == "localhost" or name.endswith(".sock"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
