"""Reproducible zips in a private cache: the same sources give the same bytes on every login node.

What goes to a compute node is named by its digest, so its bytes must depend on its content alone: names are
sorted, times and modes fixed, byte code written without references. A bundle is built once per content and
put into the cache whole or not at all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import os
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

#: The first moment that a zip can name; every member carries it.
EPOCH = (1980, 1, 1, 0, 0, 0)

#: marshal version 2 writes no references, whose presence would depend on who else holds an object.
_MARSHAL_VERSION = 2

#: PEP 552: hash-based and not to be checked against a source file.
_UNCHECKED_HASH = 0b01


class CacheError(Exception):
    """The cache directory cannot be used. The message says why and what to do."""


def cache_directory(environ: Mapping[str, str]) -> Path:
    """PHALANX_CACHE_DIR, else XDG_CACHE_HOME/phalanx, else ~/.cache/phalanx: for what can be made again.

    XDG base directory specification 0.8: a relative XDG_CACHE_HOME is ignored.
    """
    if own := environ.get("PHALANX_CACHE_DIR"):
        return Path(own).absolute()
    shared = environ.get("XDG_CACHE_HOME", "")
    if Path(shared).is_absolute():
        return Path(shared) / "phalanx"
    return Path(environ.get("HOME") or Path.home()) / ".cache" / "phalanx"


def byte_code(name: str, source: bytes) -> bytes:
    """The .pyc of a module for this interpreter, which zipimport takes without looking at the source.

    An interpreter of another minor version sees another magic number and compiles the source instead.
    """
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little")
    return head + importlib.util.source_hash(source) + marshal.dumps(code, _MARSHAL_VERSION)


def with_byte_code(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files with a .pyc beside each .py.

    A source that this interpreter cannot compile goes without: whoever imports it gets the SyntaxError.
    """
    out = dict(files)
    for name, data in files.items():
        if name.endswith(".py"):
            try:
                out[name + "c"] = byte_code(name, data)
            except SyntaxError:
                continue
    return out


def _directories(names: Iterable[str]) -> set[str]:
    """Entries for directories: before Python 3.13 zipimport sees a namespace package only if it has one."""
    return {f"{parent}/" for name in names for parent in Path(name).parents if str(parent) != "."}


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """A deflated zip of ``files`` whose bytes depend on nothing else."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted({*files, *_directories(files)}):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3
            is_directory = name.endswith("/")
            info.external_attr = ((stat.S_IFDIR | 0o755) if is_directory else (stat.S_IFREG | 0o644)) << 16
            info.compress_type = zipfile.ZIP_STORED if is_directory else zipfile.ZIP_DEFLATED
            archive.writestr(info, b"" if is_directory else files[name])
    return out.getvalue()


def content_key(files: Mapping[str, bytes], *more: bytes) -> str:
    """A digest of everything a bundle is made from, this interpreter's byte code version included."""
    digest = hashlib.sha256()
    parts = [repr(sys.version_info[:2]).encode(), importlib.util.MAGIC_NUMBER, *more]
    for name in sorted(files):
        parts += [name.encode(), files[name]]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def private_directory(path: Path) -> None:
    """Make ``path`` (0700) or make sure that nobody else can put files into it. Raises CacheError."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = path.stat()
    except OSError as error:
        why = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise CacheError(
            f"cannot use the cache directory {path}: {why}; set PHALANX_CACHE_DIR to one that can be written"
        ) from error
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise CacheError(
            f"cannot use the cache directory {path}: others can write to it; "
            f"run `chmod go-w {path}` or set PHALANX_CACHE_DIR to a directory of your own"
        )


def _is_ours(path: Path) -> bool:
    """Whether ``path`` is a plain file of ours that nobody else can write."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def cached(cache: Path, name: str, mode: int, make: Callable[[], bytes]) -> tuple[Path, bytes]:
    """The file ``name`` of the cache and its bytes, made when it is not there yet. Raises CacheError."""
    private_directory(cache)
    path = cache / name
    if _is_ours(path):
        return path, path.read_bytes()
    data = make()
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=cache)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                os.fchmod(descriptor, mode)
                stream.flush()
                os.fsync(descriptor)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CacheError(
            f"cannot write {path}: {error.strerror}; make room there or set PHALANX_CACHE_DIR"
        ) from error
    return path, data
