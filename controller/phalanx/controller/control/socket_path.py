"""Where the control socket of a run lies: a folder that only its owner can enter, on a path that fits."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path


class SocketFolderError(Exception):
    """The folder for control sockets cannot be trusted; the message names it and says why."""


def socket_folder(environ: Mapping[str, str]) -> Path:
    """``$XDG_RUNTIME_DIR/phalanx``, else ``/tmp/phalanx-<uid>``; not yet made."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "phalanx"
    return Path(environ.get("TMPDIR") or "/tmp") / f"phalanx-{os.geteuid()}"  # noqa: S108 - checked below


def make_socket_path(run_id: str, environ: Mapping[str, str] = os.environ) -> Path:
    """A path for the socket of a run; its folder is ours and 0700, or SocketFolderError.

    A socket's path has at most 107 bytes: a long run id gives its digest instead.
    """
    folder = socket_folder(environ)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SocketFolderError(f"cannot use {folder} for control sockets: it is not a folder of ours")
    if stat.S_IMODE(found.st_mode) != 0o700:
        raise SocketFolderError(
            f"cannot use {folder} for control sockets: others may enter it; run `chmod 700 {folder}`"
        )
    path = folder / f"{run_id}.sock"
    if len(os.fsencode(path)) > 100:
        path = folder / f"{hashlib.sha256(run_id.encode()).hexdigest()[:24]}.sock"
    return path
