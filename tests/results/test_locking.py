"""A name that is no file of its own: a link, a pipe, a descriptor. Nothing is ever renamed over it."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from phalanx.controller.results.locking import is_stream, locked, replace_file, replacing

pytestmark = pytest.mark.local


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    behind = tmp_path / "shared" / "summary.json"
    behind.write_text("old")
    link = tmp_path / "summary.json"
    link.symlink_to("shared/summary.json")
    replace_file(link, b"new")
    assert link.is_symlink()
    assert (behind.read_text(), behind.is_symlink()) == ("new", False)
    behind.unlink()
    replace_file(link, b"again")
    assert (link.is_symlink(), behind.read_text()) == (True, "again")
    assert [path.name for path in behind.parent.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("through", ["pipe", "link"])
def test_a_pipe_stays_one_and_gets_the_data(tmp_path: Path, through: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    data = b"x" * 200_000
    replace_file(tmp_path / through, data)
    reader.join(20)
    assert got == [data]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_descriptor_of_ours_is_written_to_where_it_stands(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before ")
        out.flush()
        replace_file(Path(f"/dev/fd/{out.fileno()}"), b"after")
        out.write(b" then")
    assert (tmp_path / "out").read_bytes() == b"before after then"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_must_be_a_file_is_refused_where_it_is_none(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="Operation not supported"), locked(pipe):
        pass
    with pytest.raises(OSError, match="Operation not supported"), replacing(pipe):
        pass
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_socket_stays_one_and_the_error_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert is_stream(path)
        with pytest.raises(OSError, match="No such device or address"):
            replace_file(path, b"data")
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_files_folders_and_free_names_are_no_streams(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    assert not any(is_stream(tmp_path / name) for name in ("file", "gone", "nowhere", "."))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels"):
        is_stream(tmp_path / "loop")
