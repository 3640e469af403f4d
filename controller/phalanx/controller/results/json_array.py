"""A JSON array that grows by a few records with each case and is read by programs that want the whole.

A new file under the old name would be the safest for a reader, and costs the more the longer the array is:
with 100,000 records of 1.5 KB, copying it takes 0.2 s, parsing and writing it 5 s
(``benchmarks/results.py``), all under the lock that every other run waits for, and 150 MB to the disk for a
record of 1.5 KB. So a record is a line, and new ones are written over the closing bracket: one write, a few
milliseconds at any length. The room is asked for first, so a full disk changes nothing. Until the last byte
of that write the array is not closed for somebody who reads without the lock; what a crash leaves half
written is cut off by the next append, back to the last whole line, and the run still has it.

A file that another program wrote is read once, its NaN become null, and is a file of this form from then on.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .locking import LOCK_S, FileBusy, locked, replacing, write_at

#: An array of ours begins and ends with these; a line in between is one record.
BEGIN, CLOSE = b"[\n{", b"\n]\n"
#: Largest file of another program that is taken over, in bytes: it is read into memory once.
FOREIGN_LIMIT = 64 * 1024 * 1024
#: How far back the last whole line is looked for after a crash; a case writes less than that at once.
TORN_LIMIT = 128 * 1024 * 1024

Record = Mapping[str, Any]


class JsonArrayError(Exception):
    """Records could not be written. The message is for the user."""


def append_records(
    path: Path,
    records: Sequence[Record],
    first: Callable[[], None] = lambda: None,
    wait_s: float = LOCK_S,
    mode: int | None = None,
) -> None:
    """Append records to the array in a file, which is made when it is not there. Blocks up to ``wait_s``.

    ``first`` is called under the lock, before. ``mode``: of a file that is made; None as the umask leaves it.
    Raises JsonArrayError; the array then is as it was.
    """
    target = Path(os.path.realpath(path))
    lines = b",\n".join(line_of(record) for record in records)
    try:
        with locked(target, wait_s, mode) as file:
            first()
            size = os.fstat(file).st_size
            if not size:
                _write(file, b"[\n" + lines + CLOSE, 0, 0)
            elif os.pread(file, len(BEGIN), 0) == BEGIN:
                _write(file, b",\n" + lines + CLOSE, _end_of_records(file, size, path), size)
            else:
                _take_over(file, target, size, lines)
    except FileBusy as error:
        raise JsonArrayError(str(error)) from error
    except OSError as error:
        raise JsonArrayError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error


def line_of(record: Record) -> bytes:
    """A record as one line of strict JSON, ASCII, so that no reader can break it elsewhere."""
    return json.dumps(record, allow_nan=False).encode()


def _write(file: int, data: bytes, place: int, size: int) -> None:
    """Put ``data`` over the end of the file from ``place``; failing leaves the records before it, closed."""
    try:
        _reserve(file, size, max(place + len(data) - size, 0))
        write_at(file, data, place)
        os.ftruncate(file, place + len(data))
        os.fsync(file)
    except OSError:
        os.ftruncate(file, place)
        if place:
            write_at(file, CLOSE, place)
        raise


def _reserve(file: int, size: int, more: int) -> None:
    """Room for ``more`` bytes behind the end, or OSError before anything has changed."""
    try:
        if more:
            os.posix_fallocate(file, size, more)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _end_of_records(file: int, size: int, path: Path) -> int:
    """Where the last whole record ends. Raises JsonArrayError when there is none."""
    if os.pread(file, len(CLOSE), size - len(CLOSE)) == CLOSE:
        return size - len(CLOSE)
    begin = max(size - TORN_LIMIT, 0)
    tail = os.pread(file, size - begin, begin)
    start, end = tail.find(b"\n") + 1, 0
    while start:
        stop = tail.find(b"\n", start)
        line = tail[start : stop if stop >= 0 else len(tail)].rstrip(b"\0").removesuffix(b",")
        if not _is_record(line):  # what comes after it may look whole and is not to be believed
            break
        end, start = start + len(line), stop + 1
    if not end:
        raise JsonArrayError(f"cannot append to {path}: it is not readable as JSON; move it away")
    return begin + end


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _take_over(file: int, target: Path, size: int, lines: bytes) -> None:
    """Put an array of another program into our form, with the new records, by a new file. Raises both."""
    if size > FOREIGN_LIMIT:
        raise JsonArrayError(
            f"cannot append to {target}: another program wrote it, and it is larger than "
            f"{FOREIGN_LIMIT // 1024 // 1024} MiB; move it away"
        )
    try:
        found = json.loads(os.pread(file, size, 0), parse_constant=lambda name: None)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise ValueError
        kept = [line_of(one) for one in found]
    except (ValueError, RecursionError):
        raise JsonArrayError(
            f"cannot append to {target}: it is no JSON array of objects; move it away"
        ) from None
    with replacing(target, given=os.fstat(file).st_mode & 0o777) as fresh:
        write_at(fresh, b"[\n" + b",\n".join([*kept, lines]) + CLOSE, 0)
