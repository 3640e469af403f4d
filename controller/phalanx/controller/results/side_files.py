"""What is written beside perf.csv: the results of the last case, and of all cases, for programs.

``perf_entry.json``, ``perf_entry.csv``, ``common_info.json``, ``perf_entry_super.json`` and
``perf_entry_super.csv`` are replaced whole; ``perf_super.json`` and ``perf_super.csv`` grow. All of a case is
written under the lock of perf_super.json, so that the files of two runs that end together are not mixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .entries import Entries, flat
from .json_array import JsonArrayError, append_records
from .locking import replace_file
from .perf_csv import COLUMNS, PerfCsvError, append_rows, csv_bytes, widened

SUPER_JSON, SUPER_CSV, COMMON = "perf_super.json", "perf_super.csv", "common_info.json"


def record_entries(folder: Path, entries: Entries) -> str:
    """Write all files of a case into a folder; "" or why some could not be. Blocks on locks."""
    errors: list[str] = []

    def others() -> None:
        try:
            append_rows(folder / SUPER_CSV, [flat(one) for one in entries.supers])
        except PerfCsvError as error:
            errors.append(str(error))
        errors.extend(filter(None, [write_entries(folder, entries)]))

    try:
        append_records(folder / SUPER_JSON, entries.supers, others)
    except JsonArrayError as error:
        errors.append(str(error))
    return "; ".join(errors)


def write_entries(folder: Path, entries: Entries) -> str:
    """Replace the files of the last case; "" or why one could not be."""
    path = folder
    try:
        for name, data in _files(entries):
            path = folder / name
            replace_file(Path(os.path.realpath(path)), data)
        if entries.common is None:
            path = folder / COMMON
            path.unlink(missing_ok=True)  # of an earlier case: it says nothing about this one
    except OSError as error:
        return f"cannot write {path}: {os.strerror(error.errno or 0)}"
    return ""


def _files(entries: Entries) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files that tell of one case."""
    listed = list(entries.entries)
    yield "perf_entry.json", _document(listed[0] if len(listed) == 1 else listed)
    yield "perf_entry.csv", csv_bytes(widened(COLUMNS, entries.rows), entries.rows, header=True)
    yield "perf_entry_super.json", _document(list(entries.supers))
    rows = [flat(one) for one in entries.supers]
    yield "perf_entry_super.csv", csv_bytes(widened(COLUMNS, rows), rows, header=True)
    if entries.common is not None:
        yield COMMON, _document(entries.common)


def _document(value: Any) -> bytes:
    """Strict JSON for people and programs, newline at the end."""
    return (json.dumps(value, allow_nan=False, indent=2) + "\n").encode()
