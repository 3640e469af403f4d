"""What is written beside perf.csv: the results of the last case, and of all cases, for programs.

``perf_entry.json``, ``perf_entry.csv``, ``common_info.json``, ``perf_entry_super.json`` and
``perf_entry_super.csv`` are replaced whole; ``perf_super.json`` and ``perf_super.csv`` grow. All of a case is
written under the lock of perf_super.json, so that the files of two runs that end together are not mixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .entries import Entries, Record, flat
from .json_array import JsonArrayError, append_records
from .locking import mode_of, replacing, write_at
from .perf_csv import COLUMNS, PerfCsvError, Row, append_rows, csv_bytes, widened

SUPER_JSON, SUPER_CSV, COMMON = "perf_super.json", "perf_super.csv", "common_info.json"


@dataclass(frozen=True, slots=True)
class SideFiles:
    """What is written of one case. ``replaced``: names and contents of whole files, None for one that goes;
    ``records`` and ``rows``: what the files that grow get more, as JSON and as CSV."""

    replaced: Sequence[tuple[str, bytes | None]]
    records: Sequence[Record]
    rows: Sequence[Row]


def side_files(entries: Entries) -> SideFiles:
    """What to write, made once and before any lock is held: the same goes into the run and the project."""
    listed, supers = list(entries.entries), list(entries.supers)
    rows = [flat(one) for one in supers]
    replaced = (
        ("perf_entry.json", _document(listed[0] if len(listed) == 1 else listed)),
        ("perf_entry.csv", csv_bytes(widened(COLUMNS, entries.rows), entries.rows, header=True)),
        ("perf_entry_super.json", _document(supers)),
        ("perf_entry_super.csv", csv_bytes(widened(COLUMNS, rows), rows, header=True)),
        # That of an earlier case says nothing about this one.
        (COMMON, None if entries.common is None else _document(entries.common)),
    )
    return SideFiles(replaced, supers, rows)


def record_files(folder: Path, files: SideFiles, mode: int | None = None) -> str:
    """Write all files of a case into a folder; "" or why some could not be. Blocks on locks.

    ``mode``: of files that are made; None as the umask leaves it.
    """
    errors: list[str] = []

    def others() -> None:
        try:
            append_rows(folder / SUPER_CSV, files.rows, mode=mode)
        except PerfCsvError as error:
            errors.append(str(error))
        errors.extend(filter(None, [replace_files(folder, files, mode)]))

    try:
        append_records(folder / SUPER_JSON, files.records, others, mode=mode)
    except JsonArrayError as error:
        errors.append(str(error))
    return "; ".join(errors)


def replace_files(folder: Path, files: SideFiles, mode: int | None = None) -> str:
    """Replace the files of the last case; "" or why one could not be. ``mode`` as for ``record_files``."""
    path = folder
    try:
        for name, data in files.replaced:
            path = folder / name
            if data is None:
                path.unlink(missing_ok=True)
            else:
                target = Path(os.path.realpath(path))
                with replacing(target, given=mode_of(target, mode)) as fresh:
                    write_at(fresh, data, 0)
    except OSError as error:
        return f"cannot write {path}: {os.strerror(error.errno or 0)}"
    return ""


def _document(value: Any) -> bytes:
    """Strict JSON for people and programs, newline at the end."""
    return (json.dumps(value, allow_nan=False, indent=2) + "\n").encode()
