"""Letting the user of a container write into a case's directories, whoever the agent runs as.

The directories stand below one that only the agent's user can enter, so opening them wider opens them to the
container alone; and what a container's root leaves there must go back to the agent's user, who else could
neither read nor remove it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class User:
    """Who the container's processes are on the node; None where the node does not say (hidepid)."""

    uid: int | None
    gid: int | None

    def owner_on_return(self) -> str:
        """``uid:gid`` to which a container's root hands files over, "-" when they need no handing over."""
        own = os.getuid()
        return f"{own}:{os.getgid()}" if self.uid == 0 and own != 0 else "-"


def user_of(pid: int) -> User:
    """The user of a process of the container, as this node sees it (not as a user namespace shows it)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return User(None, None)
    words = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    return User(int(words["Uid"][1]), int(words["Gid"][1]))


def let_in(user: User, paths: list[Path]) -> None:
    """Make the paths readable and writable for the container's user. Raises OSError."""
    own = os.getuid()
    if user.uid in (0, own):
        return
    for path in paths:
        if own == 0 and user.uid is not None and user.gid is not None:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
        elif path.lstat().st_uid == own:
            mode = path.lstat().st_mode & 0o777
            path.chmod(mode | (0o007 if path.is_dir() else 0o006))


def tree(*roots: Path) -> list[Path]:
    """The roots and everything below, links not followed. Raises OSError."""
    found = list(roots)
    for root in roots:
        for directory, names, files in os.walk(root):
            found.extend(Path(directory) / name for name in [*names, *files])
    return [path for path in found if not path.is_symlink()]
