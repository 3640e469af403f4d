"""Data sets from a file server over ssh: real ssh and rsync, and a server that wants a password."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .file_server import PASSWORD, USER, FileServer, file_server
from .store import Node

pytestmark = pytest.mark.nas


@pytest.fixture(params=["password", "keyboard"])
def server(request: pytest.FixtureRequest) -> Iterator[FileServer]:
    with file_server(keyboard=request.param == "keyboard") as found:
        yield found


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export with space"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_text("a" * 1000)
    (folder / "deep" / "b").write_bytes(os.urandom(300_000))
    (folder / "leads-out").symlink_to("/etc/passwd")
    return folder


@pytest.fixture
def node(node: Node) -> Node:
    node.env = {"NAS_USER": USER, "NAS_PASSWORD": PASSWORD, "WRONG": "canary-wrong"}
    return node


def host(port: int, **more: Any) -> dict[str, Any]:
    said = {"name": "nas1", "host": "127.0.0.1", "port": port, "user": "NAS_USER", "password": "NAS_PASSWORD"}
    return {**said, **more}


def nas(path: Path | str, *hosts: dict[str, Any]) -> dict[str, Any]:
    return {"provider": "nas", "path": str(path), "hosts": list(hosts)}


def test_a_folder_comes_whole_with_a_password_that_nobody_sees(
    server: FileServer, node: Node, export: Path
) -> None:
    said = node.run(nas(export, host(server.port)))
    assert set(node.files()) == {"a", "deep/b"}
    assert node.files()["deep/b"] == (export / "deep" / "b").read_bytes()
    assert f"data set d is taken from nas: nas1:{export}" in said
    assert node.record()["data_provider_type"] == "nas"
    assert node.record()["data_size"] == "294K"
    assert PASSWORD not in said
    for path in node.place.rglob("*"):
        if path.is_file() and not path.is_relative_to(export):
            assert PASSWORD.encode() not in path.read_bytes(), path
    assert "127.0.0.1" in (node.place / "cache" / "known_hosts").read_text()


def test_what_is_there_already_does_not_come_again_and_what_is_gone_goes(
    server: FileServer, node: Node, export: Path
) -> None:
    source = nas(export, host(server.port))
    node.run(source)
    (export / "a").unlink()
    said = node.run(source)
    assert "0 B of " in said
    assert set(node.files()) == {"deep/b"}


def test_a_single_file_comes_under_its_own_name(server: FileServer, node: Node, export: Path) -> None:
    node.run(nas(export / "a", host(server.port)))
    assert node.files() == {"a": b"a" * 1000}


def test_the_first_machine_that_lets_us_in_is_taken(server: FileServer, node: Node, export: Path) -> None:
    wrong = host(server.port, name="locked", password="WRONG")
    said = node.run(nas(export, wrong, host(server.port, name="open")))
    assert f"taken from nas: open:{export}" in said
    assert len(node.files()) == 2


def test_every_machine_says_why_not(server: FileServer, node: Node, export: Path) -> None:
    wrong = host(server.port, name="locked", password="WRONG")
    away = host(1, name="away")
    said = node.run(nas(export, wrong, away), status=1)
    assert f"locked (127.0.0.1 port {server.port}): it refuses the user or the password" in said
    assert "away (127.0.0.1 port 1): ssh: connect to host 127.0.0.1 port 1: Connection refused" in said
    assert "canary-wrong" not in said
    none = node.run(nas(export / "none", host(server.port)), status=1)
    assert "No such file or directory" in none
    assert "Broken pipe" not in none


def test_a_machine_whose_key_has_changed_is_not_given_the_password(
    server: FileServer, node: Node, export: Path
) -> None:
    node.run(nas(export, host(server.port)))
    known = node.place / "cache" / "known_hosts"
    kind, key = known.read_text().split()[1:3]
    forged = key[:-4] + ("AAAA" if key[-4:] != "AAAA" else "BBBB")
    known.write_text(f"[127.0.0.1]:{server.port} {kind} {forged}\n")
    tries = server.tries
    said = node.run(nas(export, host(server.port)), status=1)
    assert "nas: nas1" in said
    assert "the key of the machine is not the one that is known" in said
    assert server.tries == tries


def test_a_program_that_is_not_on_the_node_is_named(node: Node, export: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").symlink_to(str(shutil.which("ssh")))
    node.env["PATH"] = str(programs)
    said = node.run(nas(export, host(1)), status=1)
    assert "nas: rsync is not on this node; install it" in said


def test_a_mirror_keeps_what_others_put_there(server: FileServer, node: Node, export: Path) -> None:
    node.kind = "mirror"
    (node.folder / "mine").write_text("mine")
    node.run(nas(export, host(server.port)), mirror=str(node.folder.parent))
    assert set(node.files()) == {"a", "deep/b", "mine"}
