"""A server of MongoDB's wire protocol, and the command that uploads to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.driver import Done, Phalanx

Database = Any


@pytest.fixture(scope="session")
def secantus() -> Any:
    """The class of servers. Where it is missing its tests are skipped, and the tier says so."""
    return pytest.importorskip("secantus").SecantusDBServer


@pytest.fixture(scope="session")
def server(secantus: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One that anybody may write to, on a port of its own."""
    with secantus(storage_path=str(tmp_path_factory.mktemp("mongo"))) as running:
        yield running


@pytest.fixture
def phalanx(tmp_path: Path) -> Phalanx:
    """``phalanx`` in a folder of its own."""
    return Phalanx(tmp_path, fake=False)


@pytest.fixture
def database(server: Any, tmp_path: Path) -> Iterator[Database]:
    """An empty database, as another client sees it."""
    from pymongo import MongoClient

    client: MongoClient[dict[str, Any]] = MongoClient(server.uri, tz_aware=True)
    with client:
        client.drop_database("perf")
        yield client["perf"]


@pytest.fixture
def upload(phalanx: Phalanx, server: Any) -> Callable[..., Done]:
    """``phalanx database`` of a file to collection ``results`` of that database."""

    def run(path: Path, *words: str, env: dict[str, str] | None = None) -> Done:
        said = {"MONGO_URI": server.uri} if env is None else env
        return phalanx("database", "-f", str(path), "--db", "perf", "-c", "results", *words, env=said)

    return run
