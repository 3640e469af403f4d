"""Unpack a workspace: a tar of regular files and folders, nothing else, nowhere else.

``tarfile``'s own filters were bypassed more than once; this takes names, modes and bytes, and refuses every
member that is a link, a device, sparse, absolute, or leads out of the folder.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath

#: Members and unpacked bytes of one workspace, and folders within each other.
MOST_MEMBERS = 200_000
MOST_BYTES = 16 * 1024**3
DEEPEST = 64
#: Bytes that unpacking leaves free on the disk.
RESERVE_BYTES = 64 * 1024 * 1024


class WorkspaceError(Exception):
    """The archive is not what a controller sends; nothing more of it is unpacked."""


def unpack(archive: Path, target: Path) -> None:
    """Unpack into ``target``, a folder that only we can write to. Raises WorkspaceError or OSError."""
    try:
        with tarfile.open(archive, "r:") as tar:
            _unpack(tar, target)
    except FileExistsError as error:
        raise WorkspaceError(f"{error.filename}: it is in the workspace twice") from error
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        # a header or a name that no controller writes: tarfile tells in many ways
        raise WorkspaceError(f"the workspace is not a tar that can be read: {error}") from error


def make_folder(work: Path, name: str) -> None:
    """Make the folder of the workspace in which steps run. Raises WorkspaceError or OSError."""
    (work / _inside(name)).mkdir(mode=0o755, parents=True, exist_ok=True)


def _unpack(tar: tarfile.TarFile, target: Path) -> None:
    total = 0
    about = os.statvfs(target)
    room = about.f_bavail * about.f_frsize - RESERVE_BYTES
    for count, member in enumerate(tar, 1):
        total += member.size
        if count > MOST_MEMBERS or total > MOST_BYTES or member.size < 0:
            raise WorkspaceError(f"the workspace has more than {MOST_MEMBERS} files or {MOST_BYTES} bytes")
        if total > room:
            raise WorkspaceError(f"the workspace does not fit into {target}: set TMPDIR to a larger disk")
        path = target / _inside(member.name)
        if member.isdir():
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif member.isreg() and not member.issparse():
            _write(tar, member, path)
        else:
            raise WorkspaceError(f"{member.name!r}: only files and folders can be in a workspace")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or len(path.parts) > DEEPEST:
        raise WorkspaceError(f"{name!r} leads out of the workspace")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise WorkspaceError(f"{member.name!r}: no content")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    mode = 0o755 if member.mode & 0o100 else 0o644
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    left = member.size
    with os.fdopen(fd, "wb") as file:
        while data := source.read(1 << 20):
            file.write(data)
            left -= len(data)
    if left:
        raise WorkspaceError(f"{member.name!r}: the archive ends within it")
