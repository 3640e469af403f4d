"""Where control sockets lie: a folder of ours, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from phalanx.controller.control.socket_path import PATH_BYTES, SocketFolderError, make_socket_path


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = make_socket_path("run", {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert path == tmp_path / "phalanx" / "run.sock"
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_runtime_folder_that_is_gone_or_relative_is_passed_over(tmp_path: Path) -> None:
    for given in (str(tmp_path / "gone"), "relative"):
        path = make_socket_path("run", {"XDG_RUNTIME_DIR": given, "TMPDIR": str(tmp_path)})
        assert path.parent == tmp_path / f"phalanx-{os.geteuid()}"


def test_a_folder_that_others_may_enter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "phalanx").mkdir(mode=0o755)
    with pytest.raises(SocketFolderError, match="chmod 700"):
        make_socket_path("run", {"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_link_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "phalanx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SocketFolderError, match="not a folder of ours"):
        make_socket_path("run", {"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_folder_that_others_could_replace_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SocketFolderError, match="others may replace it"):
        make_socket_path("run", {"XDG_RUNTIME_DIR": str(tmp_path)})
    tmp_path.chmod(0o1777)
    assert make_socket_path("run", {"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(SocketFolderError, match="set XDG_RUNTIME_DIR or TMPDIR"):
        make_socket_path("run", {"TMPDIR": str(tmp_path / "gone")})


def test_a_long_run_id_still_fits_into_a_socket_address(tmp_path: Path) -> None:
    path = make_socket_path("r" * 200, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert len(os.fsencode(path)) <= PATH_BYTES
    assert path != make_socket_path("s" * 200, {"XDG_RUNTIME_DIR": str(tmp_path)})
