"""perf.csv: one row per result, appended under a lock, readable by spreadsheets without running anything.

Several runs may append to one file at once. Rows that fit the header are appended with one write, taken back
if they did not fit on the disk; a row with new columns rewrites the file beside it and renames. A file whose
lines end as on Windows keeps that.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from .locking import LOCK_S, FileBusy, locked, replacing, write_at
from .table import COLUMN_LIMIT, cells_up_to

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
HEADER_LIMIT = 1024 * 1024
#: Models add columns of their own, and a column stays for all rows of the file: as many as can be read again.
MOST_COLUMNS = COLUMN_LIMIT
#: Characters of a cell that is read again when a file is widened; perf_super.csv has whole configurations.
LONGEST_CELL = 64 * 1024 * 1024
#: First characters that make a spreadsheet take a cell for a formula (OWASP ASVS 1.2.10).
TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\0")

Row = Mapping[str, str]


class PerfCsvError(Exception):
    """Rows could not be written. The message is for the user."""


def append_rows(path: Path, rows: Sequence[Row], wait_s: float = LOCK_S, mode: int | None = None) -> None:
    """Append rows; make the file with its header when it is not there. Blocks up to ``wait_s`` for the lock.

    ``mode``: of a file that is made; None as the umask leaves it. Raises PerfCsvError; the file then is as it
    was.
    """
    if not rows:
        return
    target = Path(os.path.realpath(path))
    try:
        with locked(target, wait_s, mode) as file:
            columns, end = _header_of(file, target)
            wanted = _bounded(columns or COLUMNS, rows, path)
            if columns is None or wanted == columns:
                _append(file, csv_bytes(wanted, rows, header=columns is None, end=end))
            else:
                _rewrite(file, target, wanted, rows, end)
    except FileBusy as error:
        raise PerfCsvError(str(error)) from error
    except OSError as error:
        raise PerfCsvError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error


def check_appendable(path: Path) -> None:
    """Whether rows could be appended to what has this name now, or to a new file. Touches nothing.

    Raises PerfCsvError. Who appends later looks again: a file may change while a run goes on.
    """
    target = Path(os.path.realpath(path))
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            kind = "a folder" if target.is_dir() else "not a regular file"
            raise PerfCsvError(f"cannot write {path}: it is {kind}; choose another file with -o")
        descriptor = os.open(target, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        _check_folder(target.parent, path)
        return
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise PerfCsvError(f"cannot write {path}: {why}; choose another file with -o") from error
    try:
        _header_of(descriptor, path)
    finally:
        os.close(descriptor)


def _check_folder(folder: Path, path: Path) -> None:
    if not folder.is_dir():
        raise PerfCsvError(f"cannot write {path}: there is no folder {folder}; choose another file with -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PerfCsvError(f"cannot write {path}: {folder} is not to be written to; choose a file with -o")


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


def widened(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The columns, then those that only the rows have."""
    known = set(columns)
    new = [name for row in rows for name in row if name not in known]
    return [*columns, *dict.fromkeys(new)]


def csv_bytes(columns: Sequence[str], rows: Sequence[Row], *, header: bool, end: str = "\n") -> bytes:
    """Rows as CSV text, each line ended by ``end``."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end)
    if header:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([guarded(row.get(name, "")) for name in columns])
    return text.getvalue().encode("utf-8", "replace")


def _header_of(descriptor: int, path: Path) -> tuple[list[str] | None, str]:
    """The columns of a file, None for an empty one, and how its lines end.

    Raises PerfCsvError for a file of another kind.
    """
    head = _line(descriptor, 0)
    if len(head) == HEADER_LIMIT:
        raise PerfCsvError(
            f"cannot append to {path}: its first line is no header; choose another file with -o"
        )
    line = head.decode("utf-8-sig", "replace")
    end = "\r\n" if line.endswith("\r\n") else "\n"
    if not line.strip():
        if os.fstat(descriptor).st_size > len(head):
            raise PerfCsvError(f"cannot append to {path}: its first line is empty, so it is no perf.csv")
        return None, end
    names = next(csv.reader([line]), [])
    if any(name not in names for name in KNOWN_BY):
        raise PerfCsvError(
            f"cannot append to {path}: it is no perf.csv, which has {', '.join(KNOWN_BY)}; "
            "choose another file with -o"
        )
    return names, end


def _line(descriptor: int, offset: int) -> bytes:
    """The line that begins at an offset, of at most ``HEADER_LIMIT`` bytes."""
    found = b""
    while b"\n" not in found and (
        data := os.pread(descriptor, HEADER_LIMIT - len(found), offset + len(found))
    ):
        found += data
    return found[: found.find(b"\n") + 1 or len(found)]


def _bounded(columns: Sequence[str], rows: Sequence[Row], path: Path) -> list[str]:
    """The columns for these rows. Raises PerfCsvError when they are too many."""
    wide = widened(columns, rows)
    if len(wide) > max(MOST_COLUMNS, len(columns)):
        raise PerfCsvError(
            f"cannot append to {path}: it would have {len(wide)} columns, {MOST_COLUMNS} are the most; "
            "begin another file with -o"
        )
    return wide


def _append(descriptor: int, data: bytes) -> None:
    """At the end, taken back when it does not fit: half a row would shift every later one."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        data = b"\n" + data
    try:
        write_at(descriptor, data, size)
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _rewrite(descriptor: int, path: Path, columns: Sequence[str], rows: Sequence[Row], end: str) -> None:
    """The old rows with empty cells in new columns, then the new rows, in a new file under the old name."""
    mode = os.fstat(descriptor).st_mode & 0o777
    with (
        open(os.dup(descriptor), encoding="utf-8-sig", errors="replace", newline="") as old,  # noqa: PTH123
        cells_up_to(LONGEST_CELL),
        replacing(path, given=mode) as fresh,
        open(os.dup(fresh), "w", encoding="utf-8", errors="replace", newline="") as out,  # noqa: PTH123
    ):
        old.seek(0)
        writer = csv.writer(out, lineterminator=end)
        reader = csv.reader(old)
        next(reader, None)
        writer.writerow(columns)
        try:
            writer.writerows([*cells, *[""] * (len(columns) - len(cells))] for cells in reader if cells)
        except csv.Error as error:
            raise PerfCsvError(f"cannot append to {path}: it is not readable as CSV: {error}") from error
        out.write(csv_bytes(columns, rows, header=False, end=end).decode())
