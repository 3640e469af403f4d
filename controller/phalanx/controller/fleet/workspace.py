"""A folder of the login node as one tar, the same bytes for the same content: what nodes get as workspace."""

from __future__ import annotations

import tarfile
from pathlib import Path

#: Bytes that a workspace may hold; more than that is data and belongs into an image or a mount.
MOST_BYTES = 2 * 1024**3
_LEFT_OUT = frozenset({"__pycache__", ".git", "phalanx-runs"})


class WorkspaceTooLarge(Exception):
    """The folder holds more than a workspace may; the message names it and says what to do."""


def pack(folder: Path, archive: Path) -> None:
    """Write the regular files and folders of ``folder``, links followed, to ``archive``. Blocks.

    Raises OSError, or WorkspaceTooLarge.
    """
    total = 0
    with tarfile.open(archive, "w:", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if _LEFT_OUT & set(relative.parts):
                continue
            if path.is_dir():
                member = tarfile.TarInfo(relative.as_posix())
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            elif path.is_file():
                total += path.stat().st_size
                if total > MOST_BYTES:
                    raise WorkspaceTooLarge(
                        f"cannot send {folder} to the nodes: more than {MOST_BYTES} bytes; "
                        "put large data into the image or mount it with -v"
                    )
                _add(tar, path, relative.as_posix())


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    with path.open("rb") as file:
        member.size = path.stat().st_size
        member.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        tar.addfile(member, file)
