"""Where a node keeps its blobs: on a disk of its own, in a directory that nobody else can write to.

Home and scratch directories are shared on clusters: a thousand nodes that write their layers there would do
to the file server what this cache is to spare the registry.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

#: Types of filesystems (proc(5), mountinfo) that many nodes share.
SHARED = frozenset(
    {
        *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "cifs", "smb3", "9p", "afs"),
        *("panfs", "wekafs", "pvfs2", "orangefs", "fuse.glusterfs", "glusterfs", "fuse.sshfs", "gfs2"),
    }
)
_CHOOSE = "set PHALANX_CACHE_DIR of the agents to a directory of your own on a disk of the node"


class PlaceRefused(Exception):
    """Blobs cannot be kept there. The message says why and what to do."""


def cache_place(environ: Mapping[str, str], uid: int) -> Path:
    """PHALANX_CACHE_DIR, else a directory of the user in /var/tmp: on the node, and there after a reboot."""
    return Path(environ.get("PHALANX_CACHE_DIR") or f"/var/tmp/phalanx-{uid}")  # noqa: S108 - checked on use


def layers_place(environ: Mapping[str, str], uid: int) -> Path:
    """The folder in it that holds blobs, and beside them the locks of those who load images of them."""
    return cache_place(environ, uid) / "blobs"


def filesystem_type(path: str, mountinfo: str) -> str:
    """The type of the filesystem under an absolute path without links; "" when the table has none."""
    found, longest = "", -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        parts = before.split()
        if len(parts) < 5 or not after:
            continue
        point = parts[4].encode().decode("unicode_escape") if "\\" in parts[4] else parts[4]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two on one another the later one is seen
            found, longest = after.split()[0], len(point)
    return found


def private_directory(path: Path) -> None:
    """Make a directory of ours, or see that it is: no link, our uid, nobody else can write to it.

    Raises PlaceRefused, or OSError when it cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise PlaceRefused(f"cannot keep blobs in {path}: it is a link or no directory; {_CHOOSE}") from error
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise PlaceRefused(f"cannot keep blobs in {path}: it belongs to uid {found.st_uid}; {_CHOOSE}")
        if stat.S_IMODE(found.st_mode) & 0o022:
            raise PlaceRefused(f"cannot keep blobs in {path}: others can write to it; {_CHOOSE}")
    finally:
        os.close(fd)


def refuse_shared(path: Path) -> None:
    """Raises PlaceRefused when ``path`` lies on a filesystem that nodes share."""
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    kind = filesystem_type(str(path.resolve()), table)
    if kind in SHARED:
        raise PlaceRefused(f"cannot keep blobs in {path}: {kind} is shared between nodes; {_CHOOSE}")
