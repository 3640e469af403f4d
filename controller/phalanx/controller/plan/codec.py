"""The plan on disk: strict JSON both ways. A document with an unknown key, type or version is refused."""

from __future__ import annotations

import dataclasses
import enum
import json
from functools import cache
from typing import TYPE_CHECKING, Any

from ..workflow.errors import InputError
from ..workflow.place import parse_json
from ..workflow.wording import KeyPath, explain, key_path, kind_of
from .model import PLAN_SCHEMA, Plan

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def to_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    document: dict[str, Any] = _plain(dataclasses.asdict(plan))
    return document


def to_json(plan: Plan) -> bytes:
    """``plan.json``: readable, newline at the end."""
    return (json.dumps(to_document(plan), ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()


def from_json(data: bytes, name: str = "plan.json") -> Plan:
    """The plan of a document; ``name`` is for the error. Raises InputError."""
    from pydantic import ValidationError

    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {name}: it is not UTF-8 text") from error
    document = parse_json(text, name)
    if not isinstance(document, dict):
        raise InputError(f"cannot read {name}: expected an object, found {kind_of(document)}")
    if document.get("schema") != PLAN_SCHEMA:
        raise InputError(
            f"cannot read {name}: its schema is {document.get('schema')!r}, this version reads {PLAN_SCHEMA}"
        )
    try:
        plan = _adapter().validate_json(data, strict=True)
    except ValidationError as error:
        raise explain(name, error, {}, {}) from error
    unknown = _unknown(document, to_document(plan), ())
    if unknown:
        raise InputError(f"cannot read {name}: {key_path(unknown)}: it is not a known key")
    return plan


def _unknown(document: Any, known: Any, place: KeyPath) -> KeyPath | None:
    """The first key of a document that its plan does not have: pydantic reads over them in dataclasses."""
    if isinstance(document, dict) and isinstance(known, dict):
        for name, value in document.items():
            if name not in known:
                return (*place, name)
            if found := _unknown(value, known[name], (*place, name)):
                return found
    if isinstance(document, list) and isinstance(known, list):
        for index, (value, twin) in enumerate(zip(document, known, strict=True)):
            if found := _unknown(value, twin, (*place, index)):
                return found
    return None


@cache
def _adapter() -> TypeAdapter[Plan]:
    """Made from the dataclasses themselves, so that the two cannot drift apart."""
    from pydantic import TypeAdapter

    return TypeAdapter(Plan)


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
