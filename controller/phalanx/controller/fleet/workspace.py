"""What the nodes of a case get of the login node, as one tar: the same bytes for the same content."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..plan.model import Share

#: Bytes and files that a workspace may hold; more than that is data and belongs into an image or a mount.
MOST_BYTES = 2 * 1024**3
MOST_FILES = 100_000
_LEFT_OUT = frozenset({"__pycache__", ".git", "phalanx-runs"})


class WorkspaceTooLarge(Exception):
    """The shares hold more than a workspace may; the message names one and says what to do."""


def pack(shares: Iterable[Share], archive: Path) -> None:
    """Write the regular files and folders of all shares to ``archive``; of two the first counts. Blocks.

    A link to a file counts as the file; a link to a folder is not followed (it could lead round in a ring).
    Raises OSError, or WorkspaceTooLarge.
    """
    with tarfile.open(archive, "w:", format=tarfile.PAX_FORMAT) as tar:
        packing = _Packing(tar)
        for share in shares:
            packing.add(share)


@dataclass(slots=True)
class _Packing:
    """A tar that is being filled. ``names``: what is in it; ``left`` and ``files``: bytes and files."""

    tar: tarfile.TarFile
    names: set[str] = field(default_factory=set)
    left: int = field(default_factory=lambda: MOST_BYTES)
    files: int = 0

    def add(self, share: Share) -> None:
        """All of one share."""
        source, target = Path(share.source), PurePosixPath(share.target)
        if not source.is_dir():
            self._folders_above(target)
            self._file(source, target, source)
            return
        self._folders_above(target / "-")
        for path in _walk(source):
            name = target / path.relative_to(source).as_posix()
            if path.is_dir():
                self._folder(name)
            else:
                self._file(path, name, source)

    def _folders_above(self, name: PurePosixPath) -> None:
        for above in reversed(name.parents[:-1]):
            self._folder(above)

    def _folder(self, name: PurePosixPath) -> None:
        if self._is_new(name):
            member = tarfile.TarInfo(str(name))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            self.tar.addfile(member)

    def _file(self, path: Path, name: PurePosixPath, share: Path) -> None:
        if not self._is_new(name):
            return
        self.files += 1
        if self.files > MOST_FILES:
            raise _too_large(share, f"{MOST_FILES} files")
        self.left -= _add_file(self.tar, path, str(name), self.left)
        if self.left < 0:
            raise _too_large(share, f"{MOST_BYTES} bytes")

    def _is_new(self, name: PurePosixPath) -> bool:
        known = str(name) in self.names
        self.names.add(str(name))
        return not known


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
