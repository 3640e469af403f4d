"""Files that verbs write to: a place that cannot be written to is refused before anything else is done."""

from __future__ import annotations

import os
from pathlib import Path

from phalanx.controller.cli.selecting import refuse
from phalanx.controller.exits import Exit
from phalanx.controller.results.locking import is_stream


def refuse_unwritable(*paths: str) -> None:
    """What is to be written after an hour's build has a place: ends the command otherwise."""
    for path in filter(None, paths):
        if why := _unwritable(Path(path)):
            refuse(f"cannot write {path}: {why}", Exit.USAGE)


def refuse_stream(path: str, why: str) -> None:
    """What has to be a file is none: ends the command with ``why``, which says what to do."""
    try:
        found = bool(path) and is_stream(Path(path))
    except OSError as error:
        refuse(f"cannot write {path}: {error.strerror}", Exit.USAGE)
    if found:
        refuse(f"cannot write {path}: it is no file, {why}", Exit.USAGE)


def _unwritable(path: Path) -> str:
    """Why nothing can be written there, "" when it can be."""
    try:
        if is_stream(path):
            return "" if os.access(path, os.W_OK) else "it is not to be written to"
    except OSError as error:
        return error.strerror or str(error)
    folder = Path(os.path.realpath(path)).parent
    if path.is_dir():
        return "it is a folder"
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return f"{folder} is not there, or not to be written to"
    return ""
