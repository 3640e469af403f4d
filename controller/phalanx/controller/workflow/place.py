"""Reading what users wrote: bounded, strict, and with an error that names the file.

A project is other people's input. A file is read up to a limit, JSON must be JSON (no NaN, no key twice), and
nothing is looked for outside the project's folder.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from .errors import InputError

#: Largest models.json, context or credential file, in bytes; the largest public collection has 0.3 MB.
FILE_LIMIT = 16 * 1024 * 1024


def read_text(path: Path, shown: str = "", limit: int = FILE_LIMIT) -> str:
    """The text of a regular file of at most ``limit`` bytes. Raises InputError."""
    name = shown or str(path)
    try:
        with reading(path) as file:
            status = os.fstat(file.fileno())
            if not is_regular(file):
                raise InputError(f"cannot read {name}: it is not a regular file")
            # Python makes room for all that is asked for: with the limit, 16 MiB for each small file.
            data = file.read(min(status.st_size, limit) + 1)
            if len(data) > status.st_size:
                data += file.read(max(0, limit + 1 - len(data)))  # it has grown meanwhile
    except OSError as error:
        raise InputError(f"cannot read {name}: {os.strerror(error.errno or 0)}") from error
    if len(data) > limit:
        raise InputError(f"cannot read {name}: it is larger than {limit // (1024 * 1024)} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {name}: byte {error.start} is not UTF-8 text") from error


def reading(path: Path) -> BinaryIO:
    """A file to be read. Of a pipe nobody at its other end is waited for: who opens it looks what it is.

    Raises OSError.
    """
    return open(path, "rb", opener=_at_once)


def _at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)


def is_regular(file: IO[Any]) -> bool:
    """Whether what was opened is a regular file: no pipe, device or folder."""
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def parse_json(text: str, name: str, *, nan_is_null: bool = False) -> Any:
    """The value of a JSON text. Raises InputError that says line and column.

    ``nan_is_null``: NaN and Infinity, which are no JSON but which pandas writes, are null.
    """
    constant = _null if nan_is_null else _no_constant
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=constant)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError as error:
        raise InputError(f"cannot read {name}: it holds half a character (a lone surrogate)") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"cannot read {name}: line {error.lineno} column {error.colno}: {error.msg}"
        ) from error
    except ValueError as error:
        raise InputError(f"cannot read {name}: {error}") from error
    except RecursionError as error:
        raise InputError(f"cannot read {name}: it is nested too deeply") from error


def read_json(path: Path, shown: str = "") -> Any:
    """The value of a JSON file. Raises InputError."""
    return parse_json(read_text(path, shown), shown or str(path))


def is_file(path: Path) -> bool:
    """Whether there is a regular file, also under a name that no file system takes.

    Raises InputError where nobody lets us look: what is hidden is not taken for what is not there.
    """
    try:
        return path.is_file()
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    except OSError:
        return False


def without_comments(document: Any, kept: Collection[str] = ()) -> Any:
    """The document without keys that begin with ``_``; what stands under a key of ``kept`` stays whole."""
    if isinstance(document, list):
        return [without_comments(part, kept) for part in document]
    if not isinstance(document, dict):
        return document
    return {
        key: value if key in kept else without_comments(value, kept)
        for key, value in document.items()
        if not key.startswith("_")
    }


def inside(root: PurePosixPath, path: str) -> PurePosixPath | None:
    """``root/path`` normalised by its words alone; None when it is absolute or leaves the project."""
    joined = inside_text(str(root), path)
    return None if joined is None else PurePosixPath(joined)


def inside_text(root: str, path: str) -> str | None:
    """The same as text, for thousands of cards: making a path takes ten times as long as joining words."""
    if path.startswith("/") or "\0" in path:
        return None
    joined = os.path.normpath(f"{root}/{path}")
    return None if joined == ".." or joined.startswith("../") else joined


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice in one object")
        found[key] = value
    return found


def _null(name: str) -> None:
    """NaN, Infinity or -Infinity as a missing value."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
