"""Results as records: what stands in perf_entry.json, perf_super.json and common_info.json.

The forms are madengine's, strict JSON. A single result has its performance as the text of the log, several
have numbers; the columns that a results file adds are named one by one in perf_entry and together as
``multi_results`` in perf_super, which has ``configs`` beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .configs import Config, sized
from .perf_csv import COLUMNS, Row, guarded
from .table import has_value

#: Not common to the results of a case.
OF_ONE_RESULT = ("model", "performance", "metric", "status")
#: Bytes of configurations in the records of one case.
CONFIGS_LIMIT = 32 * 1024 * 1024

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entries:
    """The records of a case. ``common``: of several results, None for one. ``note``: what is missing."""

    rows: tuple[Row, ...]
    entries: tuple[Record, ...]
    supers: tuple[Record, ...]
    common: Record | None = None
    note: str = ""


def entries_of(
    rows: Sequence[Row], common: Mapping[str, str], config: Config, columns: Sequence[str] = ()
) -> Entries:
    """The records of a case's rows. ``columns``: of the results file that they are from, none for a log."""
    several = bool(columns)
    configs = [config.of(_as_written(row, common, columns)) for row in rows]
    note = ""
    if sized(configs) > CONFIGS_LIMIT:
        configs, note = [None] * len(rows), f"configs of {len(rows)} results are too large and left out"
    entries, supers = [], []
    for row, found in zip(rows, configs, strict=True):
        filled = _columns(row, numbers=several)
        extra = {name: _value(row[name]) for name in row if name not in COLUMNS}
        entries.append({**filled, **extra} if several else {**filled, "configs": found})
        supers.append({**filled, "configs": found, "multi_results": extra if several else None})
    shared = {name: common.get(name, "") for name in COLUMNS if name not in OF_ONE_RESULT}
    return Entries(tuple(rows), tuple(entries), tuple(supers), shared if several else None, note)


def _as_written(row: Row, common: Mapping[str, str], columns: Sequence[str]) -> Row:
    """A row as the results file has it: its own columns, its model without the card's name in front."""
    own = {name: row.get(guarded(name), "") for name in columns}
    return {**own, "model": row["model"].removeprefix(f"{common.get('model', '')}_")} if own else own


def flat(record: Mapping[str, Any]) -> dict[str, str]:
    """A record of perf_super as a row of CSV: what has parts is JSON in one cell."""
    return {name: _cell(name, value) for name, value in record.items()}


def _columns(row: Row, *, numbers: bool) -> Record:
    """All columns, as text; performance and metric are null when there is none."""
    found: Record = {name: row.get(name, "") for name in COLUMNS}
    measured = found["performance"]
    if not has_value(measured):
        found["performance"] = None
    elif numbers:
        found["performance"] = _value(measured)
    found["metric"] = found["metric"] or None
    return found


def _value(cell: str) -> Any:
    """A cell as JSON: a number where it is one, null where it is empty."""
    text = cell.strip()
    try:
        number = float(text if "_" not in text else "no number")  # Python takes 1_000, nobody else does
    except ValueError:
        return cell or None
    if not math.isfinite(number):
        return None
    whole = text.removeprefix("-")
    return int(text) if whole.isascii() and whole.isdigit() and len(whole) < 16 else number


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, allow_nan=False) if name in ("configs", "multi_results") else str(value)
