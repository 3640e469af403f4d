"""One S3 server for all tests of data, and a node for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .store import Node, Store, served


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    with served() as found:
        yield found


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
