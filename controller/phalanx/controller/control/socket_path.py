"""Where the control socket of a run lies: a folder that only its owner can enter, on a path that fits."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

#: Bytes of a unix socket's path: sun_path has 108, the last one is NUL (unix(7)).
PATH_BYTES = 107


class SocketFolderError(Exception):
    """The folder for control sockets cannot be trusted; the message names it and says why."""


def socket_folder(environ: Mapping[str, str]) -> Path:
    """``$XDG_RUNTIME_DIR/phalanx``, else ``$TMPDIR`` or ``/tmp`` with ``/phalanx-<uid>``; not yet made."""
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or "/nowhere")
    if runtime.is_absolute() and runtime.is_dir() and os.access(runtime, os.W_OK | os.X_OK):
        return runtime / "phalanx"
    return Path(environ.get("TMPDIR") or "/tmp") / f"phalanx-{os.geteuid()}"  # noqa: S108 - checked below


def make_socket_path(run_id: str, environ: Mapping[str, str] = os.environ) -> Path:
    """A path for the socket of a run; its folder is ours and 0700, or SocketFolderError.

    A long run id gives its digest instead.
    """
    folder = socket_folder(environ).absolute()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _check(folder)
    except OSError as error:
        raise SocketFolderError(
            f"cannot make {folder} for control sockets: {error.strerror}; set XDG_RUNTIME_DIR or TMPDIR"
        ) from error
    path = folder / f"{run_id}.sock"
    if len(os.fsencode(path)) > PATH_BYTES:
        path = folder / f"{hashlib.sha256(run_id.encode()).hexdigest()[:24]}.sock"
    if len(os.fsencode(path)) > PATH_BYTES:
        raise SocketFolderError(
            f"cannot use {folder} for control sockets: its path is too long; set XDG_RUNTIME_DIR or TMPDIR"
        )
    return path


def _check(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SocketFolderError(f"cannot use {folder} for control sockets: it is not a folder of ours")
    if stat.S_IMODE(found.st_mode) != 0o700:
        raise SocketFolderError(
            f"cannot use {folder} for control sockets: others may enter it; run `chmod 700 {folder}`"
        )
    above = folder.parent.stat()
    if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
        raise SocketFolderError(
            f"cannot use {folder} for control sockets: others may replace it in {folder.parent}; "
            "set XDG_RUNTIME_DIR or TMPDIR to a folder of your own"
        )
