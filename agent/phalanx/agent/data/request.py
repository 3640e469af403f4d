"""What the program is asked to provide: one JSON argument, and what the agent says in variables.

No credential is in it: a source names the variables that hold them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class DataError(Exception):
    """The data set cannot be provided. The message is for people and names what and why."""


@dataclass(frozen=True, slots=True)
class NasHost:
    """A machine that has the data; ``user`` and ``password`` are values, "" for none."""

    name: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """One way to the data. ``refused``: why it cannot be gone, known before the run; "" when it may be.

    ``path``: of the node, or of the machine that has it. ``bucket`` and ``key``: of an object store at
    ``endpoint`` ("" for AWS); without ``user`` its requests are not signed.
    """

    provider: str
    path: str = ""
    bucket: str = ""
    key: str = ""
    endpoint: str = ""
    region: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    hosts: tuple[NasHost, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A data set of a case on this node.

    ``kind`` and ``folder``: its place (see ``places``). ``rank`` of ``nodes``: which node this is.
    ``number``: which data set of the case. ``mirror``: the folder that was to have it, "" for none.
    """

    name: str
    number: int
    sources: tuple[Source, ...]
    kind: str
    folder: Path
    mirror: str
    node: str
    rank: int
    nodes: int
    results: Path
    socket: str
    cache: Path
    library: str = ""

    @property
    def cannot(self) -> str:
        """How every complaint begins."""
        return f"cannot provide data set {self.name} on {self.node}"


def read_request(argv: list[str], environ: Mapping[str, str]) -> Request:
    """The request of an argument and the environment. Raises DataError for what no agent sends."""
    try:
        document = json.loads(argv[0])
        places = {name: (kind, folder) for name, kind, folder in json.loads(environ["PHALANX_DATA"])}
        kind, folder = places[document["name"]]
        return Request(
            name=document["name"],
            number=document["number"],
            sources=tuple(_source(one, environ) for one in document["sources"]),
            kind=kind,
            folder=Path(folder),
            mirror=document["mirror"],
            node=environ["PHALANX_NODE"],
            rank=int(environ["PHALANX_DATA_RANK"]),
            nodes=int(environ["PHALANX_DATA_NODES"]),
            results=Path(environ["PHALANX_RESULTS"]),
            socket=environ["PHALANX_SOCKET"],
            cache=Path(environ["PHALANX_DATA_CACHE"]),
            library=environ.get("PHALANX_LIBRARY", ""),
        )
    except (LookupError, ValueError, TypeError) as error:
        raise DataError(
            f"cannot provide data: this is no request of a controller ({type(error).__name__}); the program "
            "is started by steps of a run"
        ) from None


def _source(said: dict[str, Any], environ: Mapping[str, str]) -> Source:
    values = {name: value for name, value in said.items() if name not in ("user", "password", "hosts")}
    hosts = tuple(
        NasHost(one["name"], one["host"], int(one["port"]), *_login(one, environ))
        for one in said.get("hosts", ())
    )
    user, password = _login(said, environ)
    return Source(**values, user=user, password=password, hosts=hosts)


def _login(said: dict[str, Any], environ: Mapping[str, str]) -> tuple[str, str]:
    """User and password, from the variables that are named; "" for none. Raises KeyError."""
    names = said.get("user", ""), said.get("password", "")
    user, password = (environ[name] if name else "" for name in names)
    return user, password
