"""A workspace as a tar: the same bytes for the same content, files and folders alone, and not too much."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from phalanx.controller.fleet import workspace
from phalanx.controller.fleet.workspace import WorkspaceTooLarge, pack
from phalanx.controller.plan.model import Share


def make(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    names = ["run.sh", "a/b.py", "a.py", "z/deep/er.txt"]
    first = make(tmp_path / "first", names)
    second = make(tmp_path / "second", names[::-1])
    for path in second.rglob("*"):
        os.utime(path, (1, 1))
    for folder in (first, second):
        (folder / "run.sh").chmod(0o755)
        pack((Share(str(folder)),), folder.with_suffix(".tar"))
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    with tarfile.open(tmp_path / "first.tar") as tar:
        assert {one.name: oct(one.mode) for one in tar} == {
            "a": "0o755",
            "a/b.py": "0o644",
            "a.py": "0o644",
            "run.sh": "0o755",
            "z": "0o755",
            "z/deep": "0o755",
            "z/deep/er.txt": "0o644",
        }


def test_caches_repositories_runs_pipes_and_links_to_folders_stay_behind(tmp_path: Path) -> None:
    folder = make(tmp_path / "w", ["x", ".git/config", "p/__pycache__/y.pyc", "phalanx-runs/1/log"])
    os.mkfifo(folder / "pipe")
    (folder / "ring").symlink_to(folder)
    (folder / "dangling").symlink_to("nowhere")
    (folder / "link").symlink_to("x")
    pack((Share(str(folder)),), tmp_path / "w.tar")
    with tarfile.open(tmp_path / "w.tar") as tar:
        assert tar.getnames() == ["link", "p", "x"]
        assert all(one.isreg() or one.isdir() for one in tar)


@pytest.mark.parametrize(("limit", "value"), [("MOST_BYTES", 10), ("MOST_FILES", 3)])
def test_too_large_a_folder_is_refused_with_what_to_do(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, limit, value)
    folder = make(tmp_path / "w", ["aaa", "bbb", "ccc", "ddd"])
    with pytest.raises(WorkspaceTooLarge, match="put large data into the image or mount it"):
        pack((Share(str(folder)),), tmp_path / "w.tar")


def test_a_folder_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pack((Share(str(tmp_path / "gone")),), tmp_path / "w.tar")


def test_of_two_shares_with_the_same_file_the_first_counts(tmp_path: Path) -> None:
    first = make(tmp_path / "first", ["run.sh", "a/b.py"])
    make(tmp_path / "second", ["run.sh", "a/c.py"])
    (first / "run.sh").write_text("of the first")
    shares = (
        Share(str(first / "run.sh"), "model/run.sh"),
        Share(str(tmp_path / "second"), "model"),
        Share(str(first / "a" / "b.py"), "scripts/common/b.py"),
    )
    pack(shares, tmp_path / "w.tar")
    with tarfile.open(tmp_path / "w.tar") as tar:
        files = [one.name for one in tar if one.isreg()]
        assert files == ["model/run.sh", "model/a/c.py", "scripts/common/b.py"]
        assert [one.name for one in tar if one.isdir()] == ["model", "model/a", "scripts", "scripts/common"]
        kept = tar.extractfile("model/run.sh")
        assert kept is not None and kept.read() == b"of the first"
