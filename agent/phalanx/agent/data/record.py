"""What a row says of the data: ``.phalanx/data.json`` of the case's results, one text for each column.

Several data sets of a case are joined by commas, in the order of their steps.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FOLDER, FILE = ".phalanx", "data.json"
#: Longest file of ours that is read again, in bytes.
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """Columns of perf.csv. ``data_size`` as ``du -h``, ``data_download_duration`` in seconds; "" unknown."""

    dataname: str
    data_provider_type: str
    data_size: str = ""
    data_download_duration: str = ""


def add_record(results: Path, record: Record) -> None:
    """Join a data set to the file. Raises OSError; what a workload put in its place is replaced."""
    folder = results / FOLDER
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o755)
    here = os.open(folder, os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        joined = _joined(_read(here), record)
        fresh = f".{FILE}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=here)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o644, dir_fd=here), "w", encoding="utf-8") as file:
            file.write(json.dumps(joined) + "\n")
        os.rename(fresh, FILE, src_dir_fd=here, dst_dir_fd=here)
    finally:
        os.close(here)


def _read(here: int) -> dict[str, str]:
    try:
        fd = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        with os.fdopen(fd, "rb") as file:
            found = json.loads(file.read(_LONGEST))
        return {field.name: str(found[field.name]) for field in fields(Record)}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _joined(before: dict[str, str], record: Record) -> dict[str, str]:
    values = asdict(record)
    return {name: f"{before[name]},{value}" for name, value in values.items()} if before else values
