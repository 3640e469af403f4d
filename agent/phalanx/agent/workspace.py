"""Unpack a workspace: a tar of regular files and folders, nothing else, nowhere else.

``tarfile``'s own filters were bypassed more than once; this takes names, modes and bytes, and refuses every
member that is a link, a device, absolute, or leads out of the folder.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath

#: Members and unpacked bytes of one workspace.
MOST_MEMBERS = 200_000
MOST_BYTES = 16 * 1024**3


class WorkspaceError(Exception):
    """The archive is not what a controller sends; nothing more of it is unpacked."""


def unpack(archive: Path, target: Path) -> None:
    """Unpack into ``target``, a folder that only we can write to. Raises WorkspaceError or OSError."""
    count = total = 0
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            count += 1
            total += max(0, member.size)
            if count > MOST_MEMBERS or total > MOST_BYTES:
                raise WorkspaceError(
                    f"the workspace has more than {MOST_MEMBERS} files or {MOST_BYTES} bytes"
                )
            path = target / _inside(member.name)
            if member.isdir():
                path.mkdir(mode=0o755, parents=True, exist_ok=True)
            elif member.isreg():
                _write(tar, member, path)
            else:
                raise WorkspaceError(f"{member.name}: only files and folders can be in a workspace")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise WorkspaceError(f"{name!r} leads out of the workspace")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise WorkspaceError(f"{member.name}: no content")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    mode = 0o755 if member.mode & 0o100 else 0o644
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        while data := source.read(1 << 20):
            file.write(data)
