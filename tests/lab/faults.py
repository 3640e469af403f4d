"""Faults of a node's filesystem: a path that is not there, a disk that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.lab import node
from tests.lab.errors import LabError
from tests.lab.topology import Topology, parse_size

# A covered path is a bind mount of one of these, in the node's own mount namespace: gone with its next boot.
_HIDE = """
store=/run/phalanx-lab-hidden
mkdir -p $store/folder; [ -e $store/file ] || { : > $store/file; chmod 0 $store/file; }
for path in $1; do
  [ -e "$path" ] || continue
  real=$(readlink -f "$path")
  if [ "$real" -ef $store/file ] || [ "$real" -ef $store/folder ]; then continue; fi
  kind=file; if [ -d "$real" ]; then kind=folder; fi
  mount --bind $store/$kind "$real" || exit 3
  echo "$real" | tee -a $store/list
done
"""
_UNHIDE = """
store=/run/phalanx-lab-hidden
[ -e $store/list ] || exit 0
: > $store/rest
while read -r real; do
  keep=1
  for path in ${1:-"$real"}; do [ "$path" -ef "$real" ] && keep=0; done
  if [ $keep = 1 ]; then echo "$real" >> $store/rest; else umount "$real" && echo "$real"; fi
done < $store/list
mv $store/rest $store/list
"""
FILLER = "var/lib/docker/phalanx-lab-fill"


def hide(lab: Topology, name: str, pattern: str) -> list[str]:
    """Cover each path that the shell pattern matches on the node; the real paths that were covered.

    A file becomes an empty one without any permission (not executable for root either), a folder an empty
    one.
    """
    done = node.run(lab, name, ["sh", "-c", _HIDE, "hide", pattern])
    covered = done.stdout.split()
    if done.returncode:
        raise LabError(
            f"cannot hide {pattern} on {name}: {done.stderr.strip()}; unhide {name} and try another path"
        )
    if not covered:
        raise LabError(
            f"cannot hide {pattern} on {name}: no such path, or hidden already; check it with exec {name} ls"
        )
    return covered


def unhide(lab: Topology, name: str, pattern: str = "") -> list[str]:
    """Uncover what matches the pattern, or all that was hidden on the node; the paths that are back."""
    done = node.run(lab, name, ["sh", "-c", _UNHIDE, "unhide", pattern])
    if done.returncode:
        raise LabError(
            f"cannot unhide {pattern or 'all'} on {name}: {done.stderr.strip()}; end what uses it, "
            f"or boot the node"
        )
    return done.stdout.split()


def fill(lab: Topology, name: str, leave: str = "0") -> int:
    """Fill the node's disk until `leave` (such as "50M") is free; the bytes free then.

    The disk of a node holds its /tmp, /var and the engine's data.
    """
    if not lab.request.disk:
        raise LabError(f"cannot fill {name}: it uses the machine's own disk; bring the lab up with --disk 1G")
    path, keep = _filler(lab, name), parse_size(leave)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        size = os.fstat(handle).st_size
        chunk = _free(path) - keep
        while chunk >= 4096:
            try:
                os.posix_fallocate(handle, size, chunk)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise LabError(f"cannot fill {name}: {error.strerror}; see `df` on the node") from error
                chunk //= 2
                continue
            size += chunk
            chunk = min(chunk, _free(path) - keep)
    finally:
        os.close(handle)
    return _free(path)


def unfill(lab: Topology, name: str) -> int:
    """Give the space back; the bytes free then."""
    path = _filler(lab, name)
    path.unlink(missing_ok=True)
    return _free(path)


def _filler(lab: Topology, name: str) -> Path:
    return Path(f"/proc/{node.pid(lab, name)}/root/{FILLER}")


def _free(path: Path) -> int:
    stat = os.statvfs(path.parent)
    return stat.f_bavail * stat.f_frsize
