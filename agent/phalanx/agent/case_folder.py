"""The folder of a case on this node: made for it alone, and gone with it.

A case whose script starts programs on the other nodes has a folder of the same path on all of them: ``srun``
starts its tasks in the folder that it was started in, and a script hands on paths of its own folder. Agents
have folders of different names, so that several can be on one machine; the second of a machine does without
the shared name: there is the folder already.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from phalanx.agent.runtimes.base import CasePlaces


def same_folder(root: Path, run_id: str, case: str) -> Path | None:
    """Make the folder that is the same on all nodes, 0700; None when an agent of this machine has it.

    Raises OSError, also where someone else has put something in its place: a program of theirs would be run.
    """
    top = root / f"phalanx-{os.geteuid()}-{run_id}-all"
    with contextlib.suppress(FileExistsError):
        top.mkdir(mode=0o700)
    about = top.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise PermissionError(f"{top} is not a folder of this user alone; remove it or set TMPDIR")
    (top / "cases").mkdir(mode=0o700, exist_ok=True)
    try:
        (top / "cases" / case).mkdir(mode=0o700)
    except FileExistsError:
        return None
    return top / "cases" / case


def make_places(base: Path) -> CasePlaces:
    """The paths of a case, and their folders with mode 0700. Raises OSError."""
    places = CasePlaces(
        base=base,
        work=base / "work",
        results=base / "results",
        spool=base / "spool",
        socket=base / "sock" / "phalanx.sock",
    )
    for made in (base, places.work, places.results, places.spool, places.socket.parent):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    return places


def remove(base: Path) -> None:
    """Remove the folder of a case, and those above it that are the case's own and empty."""
    shutil.rmtree(base, ignore_errors=True)
    if base.parent.parent.name.endswith("-all"):
        with contextlib.suppress(OSError):  # another case is in it
            base.parent.rmdir()
            base.parent.parent.rmdir()
