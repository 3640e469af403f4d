"""What is shipped to nodes, and the engine's client, which is made before a node asks for it."""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from pathlib import Path

import pytest
from phalanx.controller.fleet.content import UNMADE, Content
from phalanx.controller.fleet.instructions import Ship
from phalanx.controller.plan.model import Share
from phalanx.protocol.messages import Leave, Runtime, RuntimeOpen

DOCKER = RuntimeOpen(1, Runtime.DOCKER, None)


def test_the_client_is_named_once_it_is_made_and_to_engines_alone(tmp_path: Path) -> None:
    content = Content(tmp_path / "cache", tmp_path / "stage")
    assert content.named(DOCKER) == DOCKER
    asyncio.run(content.make_client())
    made = content.file(Ship("library", (), ("n1",)))
    digest = hashlib.sha256(made.read_bytes()).digest()
    assert content.named(DOCKER) == RuntimeOpen(1, Runtime.DOCKER, digest)
    other = RuntimeOpen(1, Runtime.DOCKER, b"x" * 32)
    for message in (other, RuntimeOpen(1, Runtime.PROCESS, None), Leave("over", 0.0)):
        assert content.named(message) == message


def test_a_client_that_cannot_be_made_is_told_of_when_a_node_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    content = Content(tmp_path / "cache", tmp_path / "stage")
    asyncio.run(content.make_client())
    assert content.named(DOCKER) == DOCKER
    with pytest.raises(UNMADE, match="cache"):
        content.file(Ship("library", (), ("n1",)))


def test_workspaces_are_made_below_the_stage_each_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("true")
    content = Content(tmp_path / "cache", tmp_path / "stage")
    ship = Ship("workspace", (Share(str(tmp_path / "run.sh"), "run.sh"),), ("n1",))
    first, second = content.file(ship), content.file(ship)
    assert first != second
    assert first.parent == tmp_path / "stage"
    with tarfile.open(first) as tar:
        assert "run.sh" in tar.getnames()
