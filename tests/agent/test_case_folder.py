"""A case's folder: of its own on this node, or of one path on all nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from phalanx.agent.case_folder import make_places, remove, same_folder


def test_every_node_has_the_same_path_and_the_second_agent_of_a_machine_its_own(tmp_path: Path) -> None:
    found = same_folder(tmp_path, "run-1", "demo")
    assert found == tmp_path / f"phalanx-{os.geteuid()}-run-1-all" / "cases" / "demo"
    assert found.stat().st_mode & 0o777 == 0o700
    assert same_folder(tmp_path, "run-1", "demo") is None
    assert same_folder(tmp_path, "run-1", "other") is not None


def test_nothing_is_left_when_the_last_case_is_removed(tmp_path: Path) -> None:
    one, two = same_folder(tmp_path, "run-1", "one"), same_folder(tmp_path, "run-1", "two")
    assert one is not None and two is not None
    make_places(one)
    remove(one)
    assert two.is_dir() and not one.exists()
    remove(two)
    assert not list(tmp_path.iterdir())


def test_an_agents_own_folder_outlives_its_cases(tmp_path: Path) -> None:
    base = tmp_path / "phalanx-0-run-0-abcdef01"
    make_places(base / "cases" / "demo")
    remove(base / "cases" / "demo")
    assert (base / "cases").is_dir()


@pytest.mark.parametrize("evil", ["open", "link", "file"])
def test_what_someone_else_may_have_put_there_is_not_used(tmp_path: Path, evil: str) -> None:
    top = tmp_path / f"phalanx-{os.geteuid()}-run-1-all"
    if evil == "open":
        top.mkdir()
        top.chmod(0o777)
    elif evil == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        top.symlink_to(tmp_path / "elsewhere")
    else:
        top.touch()
    with pytest.raises(OSError, match="is not a folder of this user alone"):
        same_folder(tmp_path, "run-1", "demo")
