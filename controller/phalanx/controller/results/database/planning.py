"""From a file and what was asked for to an upload, before anything is connected to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from .documents import documents_of
from .key import identified, key_of
from .source import read_source
from .upload import Upload, check_names


def planned(
    path: Path,
    database: str,
    collection: str,
    keys: Sequence[str],
    *,
    batch_size: int,
    upsert: bool,
    index: bool,
    now: datetime,
) -> tuple[Upload, Sequence[str]]:
    """The upload of a file, and notes on it. ``keys``: fields, commas between several. Raises InputError."""
    check_names(database, collection)
    source = read_source(path)
    found = documents_of(source)
    wanted = [name.strip() for words in keys for name in words.split(",") if name.strip()]
    key = key_of(found.documents, wanted)
    rows = identified(found.documents, key, source.shown)
    upload = Upload(source.shown, database, collection, rows, key, upsert, index, batch_size, now)
    idle = bool(wanted) and not upsert and not index
    notes = [*found.notes, *(["--unique-key does nothing with --no-upsert and --no-index"] if idle else [])]
    return upload, notes
