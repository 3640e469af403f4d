"""What makes a row the row it is, so that it is in the collection once however often its file is uploaded.

Nothing in perf.csv identifies a run: not the model, which recurs with every run, and no time. So without
``--unique-key`` a document's ``_id`` is a digest of the row's whole content. Uploading a file again finds its
rows there; another result, of the same model too, is another document. Values count, not how they are spelled
(``8`` and ``8.0``, an empty cell and an absent column): perf.csv is widened, and madengine rewrites its
numbers.
Rows of one file with the same content are different results (two runs that failed alike): the second of them
has a digest of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...workflow.errors import InputError, did_you_mean
from ...workflow.wording import kind_of
from .documents import Document, field_name, number_of

ID = "_id"
#: Hex digits of a digest: 128 bits.
DIGITS = 32
#: Digits of a fraction that count: CSV writers disagree about the last ones.
PRECISION = 12
#: Rows that an error names.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Key:
    """The fields that identify a document. ``digest``: its ``_id`` is made of its content."""

    fields: tuple[str, ...]
    digest: bool = False


@dataclass(frozen=True, slots=True)
class Identified:
    """A document and its key's values."""

    document: Document
    identity: Mapping[str, Any]


def key_of(documents: Sequence[Document], wanted: Sequence[str]) -> Key:
    """The key: the fields that are wanted, else ``_id`` where rows have one, else the digest.

    Raises InputError for a field that no row has.
    """
    known = {name for document in documents for name in document.content}
    if not wanted:
        return Key((ID,), digest=ID not in known)
    fields = tuple(dict.fromkeys(field_name(name) for name in wanted))
    for name in fields:
        if name not in known:
            raise InputError(
                f"cannot use --unique-key {name}: no row has such a field{did_you_mean(name, known)}"
            )
    return Key(fields)


def identified(documents: Sequence[Document], key: Key, shown: str) -> tuple[Identified, ...]:
    """Each document with its identity. Raises InputError that names rows without one, or with the same."""
    if key.digest:
        return tuple(
            Identified(document, {ID: digest})
            for document, digest in zip(documents, digests(documents), strict=True)
        )
    _refuse(shown, key, [words for one in documents if (words := _lacking(one, key))])
    found = [Identified(one, {name: one.content[name] for name in key.fields}) for one in documents]
    _refuse(shown, key, _twice(found))
    return tuple(found)


def digests(documents: Sequence[Document]) -> list[str]:
    """A digest of each document's content; of equal ones each has its own, in the order of the file."""
    seen: Counter[str] = Counter()
    found = []
    for document in documents:
        text = canonical(document.content)
        seen[text] += 1
        again = f"#{seen[text]}" if seen[text] > 1 else ""
        found.append(hashlib.sha256((text + again).encode()).hexdigest()[:DIGITS])
    return found


def canonical(content: Mapping[str, Any]) -> str:
    """A content as text that is the same for the same values. Fields without a value are left out."""
    plain = {name: _plain(value) for name, value in content.items() if value not in (None, "")}
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, str):
        number = number_of(value)
        return value if number is None else _plain(number)
    if isinstance(value, float):
        rounded = float(f"{value:.{PRECISION}g}")
        return int(rounded) if rounded.is_integer() else rounded
    return value


def _lacking(document: Document, key: Key) -> str:
    """Why a document has no identity, "" when it has one."""
    for name in key.fields:
        value = document.content.get(name)
        if value is None:
            return f"{document.place} has no {name}"
        if isinstance(value, (dict, list)):
            return f"{document.place} has {kind_of(value)} as {name}, which cannot be a key"
    return ""


def _twice(found: Sequence[Identified]) -> list[str]:
    first: dict[tuple[Any, ...], str] = {}
    words = []
    for one in found:
        # To MongoDB 1 and 1.0 are the same, 1 and true are not.
        values = tuple((isinstance(value, bool), value) for value in one.identity.values())
        place = one.document.place
        before = first.setdefault(values, place)
        if before != place:
            words.append(f"{place} is the same as {before}")
    return words


def _refuse(shown: str, key: Key, words: Sequence[str]) -> None:
    if not words:
        return
    more = f", and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    raise InputError(
        f"cannot upload {shown} by {', '.join(key.fields)}: {'; '.join(words[:SHOWN])}{more}; "
        "add fields with -k until every row has a key of its own, or leave -k out"
    )
