"""Archives that a controller never makes: nothing outside the folder changes, each is refused with words."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from phalanx.agent import workspace
from phalanx.agent.workspace import WorkspaceError, unpack


def member(name: str, content: bytes = b"x", **other: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in other.items():
        setattr(info, key, value)
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=target)


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


EVIL: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "a parent": [member("../evil")],
    "a parent within": [member("a/../../evil")],
    "a parent that would stay inside": [member("a/../b")],
    "an absolute name": [member("/tmp/phalanx-evil")],
    "two slashes": [member("//tmp/phalanx-evil")],
    "a link out": [link("evil", "/etc/passwd")],
    "a link within": [member("a"), link("b", "a")],
    "a link and a file through it": [link("sub", ".."), member("sub/evil")],
    "a link to a folder and a file below": [link("sub", "/tmp"), member("sub/phalanx-evil")],
    "a hard link out": [link("evil", "/etc/passwd", tarfile.LNKTYPE)],
    "a hard link within": [member("a"), link("b", "a", tarfile.LNKTYPE)],
    "a hard link to a link": [link("a", ".."), link("b", "a/evil", tarfile.LNKTYPE)],
    "a device": [member("sda", b"", type=tarfile.BLKTYPE, devmajor=8)],
    "a terminal": [member("tty", b"", type=tarfile.CHRTYPE, devmajor=5)],
    "a fifo": [member("fifo", b"", type=tarfile.FIFOTYPE)],
    "an unknown kind": [member("odd", b"", type=b"Z"), link("odd2", "x", b"2")],
    "a name twice": [member("same"), member("same")],
    "a file and a folder below it": [member("same"), member("same/below")],
    "a folder in place of a file": [member("same"), member("same", b"", type=tarfile.DIRTYPE)],
    "a long name that leads out": [member("a/" * 80 + "../" * 90 + "evil")],
    "a pax name that leads out": [member("plain", pax_headers={"path": "../evil"})],
    "a pax link": [
        member("plain", b"", type=tarfile.SYMTYPE, linkname="x", pax_headers={"linkpath": "/etc"})
    ],
    "folders without end": [member("d/" * 200 + "f")],
    "a name with a NUL": [member("evil", pax_headers={"path": "ev\0il"})],
    "a name too long": [member("n" * 300)],
    "only dots": [member("..")],
}


def everything_in(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.stat().st_mode
        for path in folder.rglob("*")
        if "target" not in path.relative_to(folder).parts
    }


@pytest.mark.parametrize("name", EVIL)
def test_what_is_no_file_inside_is_refused(name: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    path = archive(tmp_path / "evil.tar", *EVIL[name])
    before = everything_in(tmp_path)
    with pytest.raises((WorkspaceError, OSError)):
        unpack(path, target)
    assert everything_in(tmp_path) == before
    assert not Path("/tmp/phalanx-evil").exists()
    assert not [one for one in target.rglob("*") if one.is_symlink()]


def raw_header(patch: Callable[[bytearray], None]) -> bytes:
    header = bytearray(tarfile.TarInfo("file").tobuf())
    patch(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def with_size(size: bytes) -> Callable[[bytearray], None]:
    def patch(header: bytearray) -> None:
        header[124:136] = size

    return patch


SPOILT = {
    "no tar": b"PK\3\4" * 1000,
    "empty": b"",
    "cut within a header": tarfile.TarInfo("file").tobuf()[:300],
    "cut within a file": raw_header(with_size(b"00000010000\0")) + b"x" * 100,
    "a size of 2^63": raw_header(with_size(b"\x80\0\0\0" + (1 << 63).to_bytes(8, "big"))),
    "a size below zero": raw_header(with_size(b"\xff" * 12)),
    "a size that is no number": raw_header(with_size(b"zzzzzzzzzzz\0")) + b"x" * 1024,
    "gzip": b"\x1f\x8b\x08" + b"\0" * 600,
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    path = tmp_path / "spoilt.tar"
    path.write_bytes(SPOILT[name])
    with pytest.raises(WorkspaceError):
        unpack(path, target)


def test_a_sparse_file_is_refused_before_it_becomes_large(tmp_path: Path) -> None:
    info, _ = member(
        "huge",
        b"",
        pax_headers={
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "huge",
            "GNU.sparse.realsize": str(1 << 40),
        },
    )
    path = archive(tmp_path / "sparse.tar", (info, b""))
    (tmp_path / "target").mkdir()
    with pytest.raises(WorkspaceError):
        unpack(path, tmp_path / "target")


def test_more_bytes_or_members_than_allowed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "two.tar", member("a", b"x" * 10), member("b", b"x" * 10))
    for name, value in (("MOST_BYTES", 15), ("MOST_MEMBERS", 1), ("RESERVE_BYTES", 1 << 60)):
        with monkeypatch.context() as changed:
            changed.setattr(workspace, name, value)
            target = tmp_path / name
            target.mkdir()
            with pytest.raises(WorkspaceError):
                unpack(path, target)


def test_files_folders_and_the_execute_bit_come_out_as_they_went_in(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    path = archive(
        tmp_path / "good.tar",
        member("./", b"", type=tarfile.DIRTYPE),
        member("sub", b"", type=tarfile.DIRTYPE, mode=0o700),
        member("sub/run.sh", b"#!/bin/sh\n", mode=0o4755),
        member("deep/er/data é.bin", bytes(range(256)), mode=0o600),
        member("empty", b""),
    )
    unpack(path, target)
    assert (target / "sub/run.sh").stat().st_mode & 0o7777 == 0o755 & ~_umask()
    assert (target / "deep/er/data é.bin").read_bytes() == bytes(range(256))
    assert (target / "empty").read_bytes() == b""


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask
