"""Nodes that stop with their test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.relay.nodes import Node, until

MakeNode = Callable[..., Node]


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[MakeNode]:
    """Makes nodes; none of their threads outlives the test."""
    before = set(threading.enumerate())
    nodes: list[Node] = []

    def make(name: str, **options: Any) -> Node:
        nodes.append(Node(tmp_path, name, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        node.stop()
    until(lambda: set(threading.enumerate()) <= before, seconds=2.0)
