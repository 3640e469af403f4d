"""A folder of the login node as one tar, the same bytes for the same content: what nodes get as workspace."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

#: Bytes and files that a workspace may hold; more than that is data and belongs into an image or a mount.
MOST_BYTES = 2 * 1024**3
MOST_FILES = 100_000
_LEFT_OUT = frozenset({"__pycache__", ".git", "phalanx-runs"})


class WorkspaceTooLarge(Exception):
    """The folder holds more than a workspace may; the message names it and says what to do."""


def pack(folder: Path, archive: Path) -> None:
    """Write the regular files and folders of ``folder`` to ``archive``. Blocks.

    A link to a file counts as the file; a link to a folder is not followed (it could lead round in a ring).
    Raises OSError, or WorkspaceTooLarge.
    """
    left, files = MOST_BYTES, 0
    with tarfile.open(archive, "w:", format=tarfile.PAX_FORMAT) as tar:
        for path in _walk(folder):
            name = path.relative_to(folder).as_posix()
            if path.is_dir():
                _add_folder(tar, name)
                continue
            files += 1
            if files > MOST_FILES:
                raise _too_large(folder, f"{MOST_FILES} files")
            left -= _add_file(tar, path, name, left)
            if left < 0:
                raise _too_large(folder, f"{MOST_BYTES} bytes")


def _too_large(folder: Path, what: str) -> WorkspaceTooLarge:
    return WorkspaceTooLarge(
        f"cannot send {folder} to the nodes: more than {what}; "
        "put large data into the image or mount it with -v"
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Folders and regular files below ``folder``, each folder before what is in it, in the order of names."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name in _LEFT_OUT:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield path
            yield from _walk(path)
        elif entry.is_file():
            yield path


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(member)


def _add_file(tar: tarfile.TarFile, path: Path, name: str, most: int) -> int:
    """Add a file unless it is larger than ``most``; its size as it was when it was opened."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            return found.st_size
        member = tarfile.TarInfo(name)
        member.size = found.st_size
        member.mode = 0o755 if found.st_mode & 0o100 else 0o644
        tar.addfile(member, file)
        return found.st_size
