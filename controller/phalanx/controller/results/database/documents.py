"""Rows to documents: values get types, names become names that MongoDB can query, nothing else changes.

A number that is a name stays text: the machine_name of a Slurm run is a job id, a git_commit may read as
1.2e5. So known columns have their kind here. Another column of a CSV file holds numbers when every cell with
a value is one and its name is not that of an identity; types never differ between rows of one file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...listing import listed
from ...workflow.errors import InputError
from ...workflow.place import parse_json
from ..perf_csv import COLUMNS
from ..table import has_value
from .source import Row, Source

#: Columns of perf.csv that hold numbers; the others hold text.
NUMBERS = frozenset(
    {
        *("n_gpus", "nnodes", "gpus_per_node", "performance", "relative_change"),
        *("build_duration", "test_duration", "data_size", "data_download_duration", "build_number"),
    }
)
TEXTS = frozenset(COLUMNS) - NUMBERS
#: What phalanx adds; a file's own ``_meta_uploaded_at`` is an earlier upload's and is left out.
UPLOADED_AT = "_meta_uploaded_at"
CREATED = "created_date"
#: Containers within each other; MongoDB takes 100.
DEEPEST = 90
#: Renamed fields that are told; the rest are counted.
SHOWN = 5
_INT64 = 2**63
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_REAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_IDENTITY = re.compile(
    r"(^|_)(id|ids|name|sha|sha256|hash|digest|commit|version|tag|tags|date|serial|uuid)$|Id$"
)


class _Unusable(Exception):
    """A value that cannot be stored; the message says why, without its row."""


@dataclass(frozen=True, slots=True)
class Document:
    """A row as it is stored, without what phalanx adds."""

    place: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a file, and what a person should know of them."""

    documents: tuple[Document, ...]
    notes: tuple[str, ...]


def documents_of(source: Source) -> Documents:
    """The documents of a file's rows. Raises InputError that names the row."""
    numeric = numeric_columns(source.rows) if source.text else NUMBERS
    renamed: dict[str, str] = {}
    documents: list[Document] = []
    for row in source.rows:
        try:
            documents.append(Document(row.place, _content(row, numeric, source.text, renamed)))
        except _Unusable as error:
            raise InputError(f"cannot upload {source.shown}: {row.place}: {error}") from error
    return Documents(tuple(documents), tuple(_renames(renamed)))


def numeric_columns(rows: Sequence[Row]) -> frozenset[str]:
    """The columns of a CSV file whose cells are made numbers where they can be."""
    others = {name for row in rows for name in row.fields} - NUMBERS - TEXTS
    wanted = {name for name in others if not _IDENTITY.search(name)}
    for row in rows:
        wanted -= {name for name in wanted if _is_word(row.fields.get(name, ""))}
    return NUMBERS | wanted


def number_of(text: str) -> int | float | None:
    """The number that a text spells, None when it spells none or one that MongoDB cannot hold.

    Leading zeros make a name of it (``007``), and so does more than 64 bits.
    """
    if _WHOLE.fullmatch(text):
        # The length first: a million digits take a second to convert.
        return whole if len(text) < 21 and -_INT64 <= (whole := int(text)) < _INT64 else None
    if _REAL.fullmatch(text) and math.isfinite(real := float(text)):
        return real
    return None


def field_name(name: str) -> str:
    """A name that queries can use: ``.`` and NUL, a ``$`` at the beginning and an empty name become ``_``."""
    return re.sub(r"^\$|[.\0]", "_", name) or "_"


def _is_word(cell: str) -> bool:
    return has_value(cell) and number_of(cell) is None


def _content(row: Row, numeric: frozenset[str], text: bool, renamed: dict[str, str]) -> dict[str, Any]:
    typed = {
        name: _typed(value, text=text, numeric=name in numeric)
        for name, value in row.fields.items()
        if name != UPLOADED_AT
    }
    return _stored_fields(typed, 1, renamed)


def _typed(value: Any, *, text: bool, numeric: bool) -> Any:
    """A value with the type that it means. JSON has types, but madengine writes numbers as text."""
    if not isinstance(value, str):
        return value
    if not has_value(value) and (text or numeric):
        return None
    if numeric and (number := number_of(value)) is not None:
        return number
    return _decoded(value) if text and value.startswith(("{", "[")) else value


def _decoded(cell: str) -> Any:
    """What a cell holds as JSON; the cell itself when it is none."""
    try:
        return parse_json(cell, "", nan_is_null=True)
    except InputError:
        return cell


def _stored(value: Any, depth: int, renamed: dict[str, str]) -> Any:
    """A value as BSON has it: no NaN, no infinity, whole numbers of 64 bits."""
    if isinstance(value, (dict, list)) and depth > DEEPEST:
        raise _Unusable(f"it is nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        return _stored_fields(value, depth, renamed)
    if isinstance(value, list):
        return [_stored(part, depth + 1, renamed) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and not -_INT64 <= value < _INT64:
        return str(value)
    return value


def _stored_fields(fields: Mapping[str, Any], depth: int, renamed: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    first: dict[str, str] = {}
    for name, value in fields.items():
        new = field_name(name)
        if new in found:
            raise _Unusable(
                f"the fields {first[new]!r} and {name!r} would both be stored as {new!r}; rename one"
            )
        if new != name:
            renamed[name] = new
        first[new] = name
        found[new] = _stored(value, depth + 1, renamed)
    return found


def _renames(renamed: Mapping[str, str]) -> Iterable[str]:
    pairs = [f"{name!r} as {new!r}" for name, new in renamed.items()]
    if pairs:
        yield f"stored under other names, which queries can use: {listed(pairs, SHOWN)}"
