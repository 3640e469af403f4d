"""Makes modules importable on a node that does not have them: the engine's client, and that of S3.

The bundle is unpacked rather than put on sys.path as a zip: a zip is compiled anew at each start (0.50 s of
CPU for aiodocker), a directory once (0.40 s with the unpacking, then 0.16 s). The directory is named by the
digest of the bundle, lies in a private cache, and appears whole or not at all, so that agents of one node can
share it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from pathlib import Path

#: Largest bundle that is unpacked, in bytes; the real ones have 2.3 MB and 15.5 MB.
_MOST_BYTES = 64 * 1024 * 1024


class LibraryUnusable(Exception):
    """The bundle cannot be made importable. The message says why and what to do."""


def kept(digest: bytes, cache_dir: Path) -> Path | None:
    """The bundle of that sha256 that an earlier run has left in ``cache_dir``, None without one. Blocks."""
    path = _bundle(cache_dir, digest.hex())
    try:
        _ensure_private(cache_dir)
        with path.open("rb") as stream:
            return path if hashlib.file_digest(stream, "sha256").digest() == digest else None
    except (OSError, LibraryUnusable):
        return None


def _bundle(cache_dir: Path, digest: str) -> Path:
    return cache_dir / f"library-{digest[:32]}.zip"


def add_library(zip_path: Path, cache_dir: Path) -> None:
    """Make the modules in ``zip_path`` importable, unpacked once into ``cache_dir``.

    What the node itself has goes first: the bundle is the last place that is searched. Blocks for tenths of a
    second. Raises LibraryUnusable.
    """
    directory = unpack_library(zip_path, cache_dir)
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
    importlib.invalidate_caches()


def unpack_library(zip_path: Path, cache_dir: Path) -> Path:
    """The directory into which a bundle is unpacked, once. Blocks. Raises LibraryUnusable."""
    try:
        return _unpacked(zip_path, cache_dir)
    except (OSError, zipfile.BadZipFile) as error:
        raise LibraryUnusable(
            f"cannot unpack the modules {zip_path} into {cache_dir}: {error}; "
            "make room there, or install aiodocker and obstore on the node"
        ) from error


def _unpacked(zip_path: Path, cache_dir: Path) -> Path:
    with zip_path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ensure_private(cache_dir)
        directory = cache_dir / f"library-{digest[:32]}"
        with zipfile.ZipFile(stream) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if any(name.startswith("/") or ".." in name.split("/") for name in archive.namelist()):
                raise LibraryUnusable(f"cannot unpack {zip_path}: it names files outside itself")
            if sum(member.file_size for member in members) > _MOST_BYTES:
                raise LibraryUnusable(f"cannot unpack {zip_path}: it holds more than {_MOST_BYTES} bytes")
            if not _is_whole(directory, members):
                _unpack(archive, directory, cache_dir)
    _keep(zip_path, _bundle(cache_dir, digest))
    return directory


def _keep(zip_path: Path, place: Path) -> None:
    """Leave the bundle to later runs, which need not fetch it again. Two cases may do so at once."""
    if zip_path == place:
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".library.", dir=place.parent) as aside:
            Path(shutil.copyfile(zip_path, Path(aside, place.name))).replace(place)
    except OSError:
        return  # then they do


def _ensure_private(directory: Path) -> None:
    """Refuse a directory into which someone else could put code; a link is refused too."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise LibraryUnusable(
            f"cannot use {directory}: someone else can write to it; "
            "remove it, or set PHALANX_CACHE_DIR to a directory of your own"
        )


def _is_whole(directory: Path, members: list[zipfile.ZipInfo]) -> bool:
    """Whether all is there in its size: cleaners of /tmp take single files out of a directory."""
    if not directory.is_dir():
        return False
    _ensure_private(directory)
    try:
        return all((directory / member.filename).stat().st_size == member.file_size for member in members)
    except OSError:
        return False


def _unpack(archive: zipfile.ZipFile, directory: Path, cache_dir: Path) -> None:
    """Unpack beside the place and rename into it; another agent that was faster has made the same."""
    aside = Path(tempfile.mkdtemp(prefix=".library.", dir=cache_dir))
    try:
        fresh = aside / "fresh"
        fresh.mkdir(mode=0o700)
        archive.extractall(fresh)
        members = [member for member in archive.infolist() if not member.is_dir()]
        if directory.exists() and not _is_whole(directory, members):
            directory.rename(aside / "broken")
        try:
            fresh.rename(directory)
        except OSError:
            if not _is_whole(directory, members):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
