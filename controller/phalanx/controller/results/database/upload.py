"""An upload as a value: which documents go where, under which key, with which indexes; and what became of it.

Made before anything is connected to, so a dry run prints it and tests read it. Writes come in two forms:

* by digest: a document that is there has the row's content already, so it is left alone (``$setOnInsert``);
* by fields of the row: ``$set`` in the form of a pipeline, as only that can leave a document alone, its
  ``_meta_uploaded_at`` too, when no value has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ...workflow.errors import InputError
from .documents import CREATED, UPLOADED_AT
from .key import ID, Identified, Key

#: Fields with an index of their own, where documents have them.
INDEXED = ("model", CREATED, "status", "pipeline")
NAME_LIMIT = 63
COLLECTION_LIMIT = 190


@dataclass(frozen=True, slots=True)
class Upload:
    """All that an upload will do. ``created``: the ``created_date`` of rows without one."""

    shown: str
    database: str
    collection: str
    rows: tuple[Identified, ...]
    key: Key
    upsert: bool
    index: bool
    batch_size: int
    at: datetime

    @property
    def created(self) -> str:
        """``created_date`` of documents whose row has none, in UTC."""
        return self.at.strftime("%Y-%m-%d %H:%M:%S")

    @property
    def keyed(self) -> bool:
        """Whether a key decides about anything: without upsert, a digest does not."""
        return self.upsert or not self.key.digest


@dataclass(frozen=True, slots=True)
class Index:
    """An index to be made."""

    name: str
    fields: tuple[str, ...]
    unique: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """A unique one leaves alone documents without the fields, which others may have put there."""
        if not self.unique:
            return {}
        return {
            "unique": True,
            "partialFilterExpression": {name: {"$exists": True} for name in self.fields},
        }


@dataclass(slots=True)
class Tally:
    """What became of rows so far. ``errors``: place and words of each row that was refused."""

    rows: int
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)

    @property
    def stored(self) -> int:
        """Rows that are in the collection now."""
        return self.inserted + self.updated + self.unchanged

    @property
    def failed(self) -> int:
        """Rows that are not known to be there: refused, or not reached."""
        return self.rows - self.stored

    @property
    def status(self) -> str:
        """madengine's words: success, partial, failed."""
        if not self.failed:
            return "success"
        return "partial" if self.stored else "failed"


def check_names(database: str, collection: str) -> None:
    """Raises InputError for names that MongoDB does not take."""
    # https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions
    odd = sorted(set(database) & set('/\\. "$*<>:|?\0'))
    if odd or not 0 < len(database.encode()) <= NAME_LIMIT:
        why = f"it holds {odd[0]!r}" if odd else f"expected 1 to {NAME_LIMIT} bytes"
        raise InputError(f"cannot use --database {database!r}: {why}")
    wrong = (
        not 0 < len(collection.encode()) <= COLLECTION_LIMIT
        or collection.startswith(("system.", "."))
        or collection.endswith(".")
        or ".." in collection
        or set(collection) & set("$\0")
    )
    if wrong:
        raise InputError(
            f"cannot use --collection {collection!r}: expected 1 to {COLLECTION_LIMIT} bytes without $ and "
            "without dots that part nothing, not beginning with system."
        )


def batches(upload: Upload) -> Iterator[Sequence[Identified]]:
    """The rows in the portions in which they are sent."""
    for start in range(0, len(upload.rows), upload.batch_size):
        yield upload.rows[start : start + upload.batch_size]


def document(upload: Upload, row: Identified) -> dict[str, Any]:
    """A row as a new document."""
    content = row.document.content
    identity = row.identity if upload.upsert else {}
    created = {} if content.get(CREATED) else {CREATED: upload.created}
    return {**identity, **content, **created, UPLOADED_AT: upload.at}


def update(upload: Upload, row: Identified) -> Any:
    """What is done to the document with the row's identity, or to a new one."""
    if upload.key.digest:
        return {"$setOnInsert": {k: v for k, v in document(upload, row).items() if k != ID}}
    content = {name: value for name, value in row.document.content.items() if name != CREATED or value}
    marks = {UPLOADED_AT: upload.at, CREATED: {"$ifNull": [f"$$new.{CREATED}", upload.created]}}
    same = [{"$eq": ["$$ROOT", "$$new"]}, {"$ne": [{"$type": f"${UPLOADED_AT}"}, "missing"]}]
    change = {"$cond": [{"$and": same}, "$$ROOT", {"$mergeObjects": ["$$new", marks]}]}
    new = {"$mergeObjects": ["$$ROOT", {"$literal": content}]}
    return [{"$replaceWith": {"$let": {"vars": {"new": new}, "in": change}}}]


def indexes(upload: Upload, existing: Sequence[Mapping[str, Any]] = ()) -> list[Index]:
    """The indexes that are missing; ``existing`` as the server lists them."""
    if not upload.index:
        return []
    there = {name for row in upload.rows for name in row.document.content} | {CREATED}
    leading = {next(iter(one["key"])) for one in existing if one.get("key")}
    wanted = []
    if upload.keyed and upload.key.fields != (ID,) and not _has_unique(upload.key, existing):
        wanted.append(Index(f"phalanx_unique_{'_'.join(upload.key.fields)}"[:120], upload.key.fields, True))
        leading.add(upload.key.fields[0])
    wanted += [Index(f"phalanx_{name}", (name,)) for name in INDEXED if name in there and name not in leading]
    return wanted


def _has_unique(key: Key, existing: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an index makes exactly these fields unique, whatever their order."""
    whole = (None, {name: {"$exists": True} for name in key.fields})
    return any(
        one.get("unique")
        and set(one["key"]) == set(key.fields)
        and one.get("partialFilterExpression") in whole
        for one in existing
    )
