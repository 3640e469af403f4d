"""perf.csv: one row per result, appended under a lock, readable by spreadsheets without running anything.

Several runs may append to one file at once. A row that fits the header is appended with one write, taken back
if it did not fit on the disk; a row with new columns rewrites the file beside it and renames. The lock is on
the file itself, so a waiter looks whether the file it has locked is still the one of that name.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

#: The columns of madengine, in its order.
COLUMNS = (
    "model", "n_gpus", "nnodes", "gpus_per_node", "training_precision", "pipeline", "args", "tags",
    "docker_file", "base_docker", "docker_sha", "docker_image", "git_commit", "machine_name",
    "deployment_type", "launcher", "gpu_architecture", "performance", "metric", "relative_change",
    "status", "build_duration", "test_duration", "dataname", "data_provider_type", "data_size",
    "data_download_duration", "build_number", "additional_docker_run_options",
)  # fmt: skip
#: A header of somebody's perf.csv has at least these.
KNOWN_BY = ("model", "performance", "status")
#: How long another run's append is waited for, in seconds.
LOCK_S = 30.0
HEADER_LIMIT = 1024 * 1024
#: First characters that make a spreadsheet take a cell for a formula (OWASP ASVS 1.2.10).
TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\0")

Row = Mapping[str, str]


class PerfCsvError(Exception):
    """Rows could not be written. The message is for the user."""


def append_rows(path: Path, rows: Sequence[Row], wait_s: float = LOCK_S) -> None:
    """Append rows; make the file with its header when it is not there. Blocks up to ``wait_s`` for the lock.

    Raises PerfCsvError; the file then is as it was.
    """
    if not rows:
        return
    target = Path(os.path.realpath(path))
    try:
        with _locked(target, wait_s) as file:
            columns = _header_of(file, target)
            wanted = _widened(columns or COLUMNS, rows)
            if columns is None or list(wanted) == list(columns):
                _append(file, wanted, rows, header=columns is None)
            else:
                _rewrite(file, target, wanted, rows)
    except OSError as error:
        raise PerfCsvError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; numbers, negative ones too, stay as they are."""
    flat = cell.replace("\0", "").replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
    if not flat.startswith(TRIGGERS):
        return flat
    try:
        float(flat)
    except ValueError:
        return "'" + flat
    return flat


def unguarded(cell: str) -> str:
    """The text that ``guarded`` made this cell of, its line breaks aside."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(TRIGGERS) else cell


def csv_bytes(columns: Sequence[str], rows: Sequence[Row], *, header: bool) -> bytes:
    """Rows as CSV text, lines ended by a newline."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([guarded(row.get(name, "")) for name in columns])
    return text.getvalue().encode("utf-8", "replace")


@contextmanager
def _locked(path: Path, wait_s: float) -> Iterator[BinaryIO]:
    """The file of this name, locked, at a moment when it still has the name."""
    end = time.monotonic() + wait_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+b") as file:
            _lock(file, path, end)
            if _same(file, path):
                yield file
                return


def _lock(file: BinaryIO, path: Path, end: float) -> None:
    pause = 0.01
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        if time.monotonic() > end:
            raise PerfCsvError(f"cannot write {path}: another process holds its lock; the run has the rows")
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(file.fileno())
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _header_of(file: BinaryIO, path: Path) -> list[str] | None:
    """The columns of a file, None for an empty one. Raises PerfCsvError for a file of another kind."""
    file.seek(0)
    line = file.readline(HEADER_LIMIT).decode("utf-8-sig", "replace")
    if not line.strip():
        if file.read(1):
            raise PerfCsvError(f"cannot append to {path}: its first line is empty, so it is no perf.csv")
        return None
    names = next(csv.reader([line]), [])
    if any(name not in names for name in KNOWN_BY):
        raise PerfCsvError(
            f"cannot append to {path}: it is no perf.csv, which has {', '.join(KNOWN_BY)}; "
            "choose another file with -o"
        )
    return names


def _widened(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The columns, then those that only the rows have."""
    new = [name for row in rows for name in row if name not in columns]
    return [*columns, *dict.fromkeys(new)]


def _append(file: BinaryIO, columns: Sequence[str], rows: Sequence[Row], *, header: bool) -> None:
    """One write at the end, taken back when it fails: a half row would shift every later one."""
    size = file.seek(0, os.SEEK_END)
    data = csv_bytes(columns, rows, header=header)
    if size and not header:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            data = b"\n" + data
    file.seek(size)
    try:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def _rewrite(file: BinaryIO, path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """The old rows with empty cells in new columns, then the new rows, in a new file under the old name."""
    file.seek(0)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    mode = os.fstat(file.fileno()).st_mode & 0o777
    text = io.TextIOWrapper(file, "utf-8-sig", "replace", newline="")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", newline="") as out:  # noqa: PTH123
            writer = csv.writer(out, lineterminator="\n")
            old = csv.reader(text)
            next(old, None)
            writer.writerow(columns)
            writer.writerows([*cells, *[""] * (len(columns) - len(cells))] for cells in old if cells)
            out.write(csv_bytes(columns, rows, header=False).decode())
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
        _sync_folder(path.parent)
    except csv.Error as error:
        fresh.unlink(missing_ok=True)
        raise PerfCsvError(f"cannot append to {path}: it is not readable as CSV: {error}") from error
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        text.detach()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
