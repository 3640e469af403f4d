"""A file that several runs write to, locked while one of them does.

The lock is on the file itself: nothing else is left in a user's folder. A writer may put a new file under the
name meanwhile, so a waiter looks whether the file it has locked is still the one of that name.

The controller's umask lets nobody else read what it makes; files in a user's project are as that user's umask
has it. So they are given their mode, and a new file under an old name has that of the old one.

A name may be a link, a device, a pipe or a descriptor of ours (``/dev/stdout``): a rename would take it
away from everybody. So a link is followed, and what is no file is written to, where that can be, as it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: How long another run's append is waited for, in seconds.
LOCK_S = 30.0
#: Links on the way to a file, at most: what Linux follows (path_resolution(7)).
LINKS = 40


class FileBusy(Exception):
    """Another process holds the lock for longer than was waited."""


@contextmanager
def locked(path: Path, wait_s: float = LOCK_S, mode: int | None = None) -> Iterator[int]:
    """A descriptor of the file of this name, made when it is not there, locked while it has the name.

    Blocks up to ``wait_s``. ``mode``: of a file that is made; None as the umask leaves it. Raises FileBusy
    and OSError, also for what is no file.
    """
    _refuse_special(path)
    end = time.monotonic() + wait_s
    while True:
        descriptor = _open(path, mode)
        try:
            _lock(descriptor, path, end)
            if _same(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def replace_file(path: Path, data: bytes, mode: int = 0o644, *, synced: bool = True) -> None:
    """Put a whole file under a name: who reads sees the old one or the new one. Raises OSError.

    What ``is_stream`` gets the data as it is; a pipe blocks until somebody reads it. ``synced`` as for
    ``replacing``.
    """
    if is_stream(path):
        _write_stream(path, data)
        return
    with replacing(path, mode, synced=synced) as descriptor:
        write_at(descriptor, data, 0)


def is_stream(path: Path) -> bool:
    """Whether a name is of a device, a pipe, a socket or an open descriptor of ours. Raises OSError."""
    return _descriptor_of(path) is not None or _is_special(path)


@contextmanager
def replacing(
    path: Path, mode: int = 0o644, *, synced: bool = True, given: int | None = None
) -> Iterator[int]:
    """A descriptor of a new file that gets the name ``path`` when all went well; else it is gone.

    A link is followed to the file that it leads to; what is no file is refused. Raises OSError.
    ``synced``: it and its name are on the disk then, or OSError. Without, for what can be made again, a
    folder that cannot be synced is no error. ``mode`` is as the umask leaves it, ``given`` just as it is.
    """
    _refuse_special(path)
    path = Path(os.path.realpath(path))
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(fresh, flags, mode if given is None else given)
    try:
        try:
            _give_mode(descriptor, given)
            yield descriptor
            if synced:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if synced:
        _sync_folder(path.parent)


def _give_mode(descriptor: int, mode: int | None) -> None:
    """Give an open file of ours its mode, whatever our umask; None leaves it as it is."""
    if mode is not None:
        with suppress(OSError):  # a file system that has no modes to give must not cost the rows
            os.fchmod(descriptor, mode)


def mode_of(path: Path, new: int | None) -> int | None:
    """The mode of the file of this name, ``new`` when there is none. Raises OSError."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return new


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """All of ``data`` at an offset, past nobody's buffer. Raises OSError; part of it may be written then."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _open(path: Path, mode: int | None) -> int:
    """Open a file to write, made when it is not there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_EXCL, 0o644)
    except FileExistsError:
        return os.open(path, flags, 0o644)
    _give_mode(descriptor, mode)
    return descriptor


def _write_stream(path: Path, data: bytes) -> None:
    """All of ``data`` to what is no file; to a descriptor of ours where it stands."""
    own = _descriptor_of(path)
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags) if own is None else os.dup(own)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _descriptor_of(path: Path) -> int | None:
    """The number of ``/dev/stdout``, ``/dev/fd/3`` and links to them, None for other names."""
    ours = os.path.realpath("/proc/self/fd")
    for _ in range(LINKS):
        folder = os.path.realpath(path.parent)
        if folder == ours and path.name.isdecimal():
            return int(path.name)
        try:
            path = Path(folder, path.readlink())
        except OSError:
            return None
    return None


def _is_special(path: Path) -> bool:
    """Whether it is there, and neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _refuse_special(path: Path) -> None:
    if _is_special(path):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), str(path))


def _lock(descriptor: int, path: Path, end: float) -> None:
    pause = 0.01
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        if time.monotonic() > end:
            raise FileBusy(f"cannot write {path}: another process holds its lock; the run has the rows")
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _same(descriptor: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
