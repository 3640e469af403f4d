"""Annotations as the schema: one declaration gives the encoder, the decoder, the docs and the property tests.

A message is a frozen dataclass. Each field's annotation says what may cross the wire, limits included:
``Annotated[str, Text(255)]``, ``Annotated[int, Range(0, 65535)]``, ``tuple[X, ...]`` with ``Items(n)``,
``dict[str, X]``, nested dataclasses, enums, ``X | None``. A value outside its annotation is a
``SchemaError`` that names message and field; nothing is coerced.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

from .errors import SchemaError

Pack = Callable[[Any], Any]
Unpack = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of an integer or a float, both ends allowed."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Text:
    """Longest text, in characters."""

    longest: int


@dataclass(frozen=True, slots=True)
class Octets:
    """Longest byte string, in bytes; ``exact`` asks for just that many."""

    longest: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """Most items of a tuple or a dict."""

    most: int


class _Raw:
    """Marks the one field whose bytes travel behind the msgpack header and are never copied through it."""


RAW = _Raw()

#: Limits for annotations that give none: nothing on the wire is unbounded.
DEFAULT_TEXT = Text(4096)
DEFAULT_OCTETS = Octets(65536)
DEFAULT_ITEMS = Items(1024)
DEFAULT_INT = Range(-(2**63), 2**64 - 1)

U16 = Annotated[int, Range(0, 2**16 - 1)]
U32 = Annotated[int, Range(0, 2**32 - 1)]
U63 = Annotated[int, Range(0, 2**63 - 1)]
Seconds = Annotated[float, Range(0, 10 * 365 * 86400)]
Name = Annotated[str, Text(255)]
Path = Annotated[str, Text(4096)]
Words = Annotated[str, Text(8192)]
Digest = Annotated[bytes, Octets(32, exact=True)]
Payload = Annotated[bytes, RAW]

#: Characters of a ``Words`` field.
WORDS_LONGEST = 8192


def as_words(text: str) -> str:
    """``text`` of any origin (an engine, the kernel, a file name) as a ``Words`` field may hold it."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= WORDS_LONGEST else clean[: WORDS_LONGEST - 1] + "…"


def _limit(marks: tuple[Any, ...], kind: type, default: Any) -> Any:
    return next((mark for mark in marks if isinstance(mark, kind)), default)


def _same(value: Any) -> Any:
    return value


def _integer(marks: tuple[Any, ...]) -> tuple[Pack, Unpack]:
    bounds = _limit(marks, Range, DEFAULT_INT)

    def unpack(value: Any) -> int:
        if type(value) is not int or not bounds.low <= value <= bounds.high:
            raise SchemaError(f"expected an integer in [{bounds.low:g}, {bounds.high:g}]")
        return value

    return _same, unpack


def _floating(marks: tuple[Any, ...]) -> tuple[Pack, Unpack]:
    bounds = _limit(marks, Range, Range(-1e300, 1e300))

    def unpack(value: Any) -> float:
        if type(value) not in (int, float) or not bounds.low <= value <= bounds.high:
            raise SchemaError(f"expected a finite number in [{bounds.low:g}, {bounds.high:g}]")
        return float(value)

    return float, unpack


def _boolean() -> tuple[Pack, Unpack]:
    def unpack(value: Any) -> bool:
        if type(value) is not bool:
            raise SchemaError("expected a boolean")
        return value

    return _same, unpack


def _text(marks: tuple[Any, ...]) -> tuple[Pack, Unpack]:
    longest = _limit(marks, Text, DEFAULT_TEXT).longest

    def unpack(value: Any) -> str:
        if type(value) is not str or len(value) > longest:
            raise SchemaError(f"expected text of at most {longest} characters")
        return value

    return _same, unpack


def _octets(marks: tuple[Any, ...]) -> tuple[Pack, Unpack]:
    limit = _limit(marks, Octets, DEFAULT_OCTETS)

    def unpack(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > limit.longest:
            raise SchemaError(f"expected at most {limit.longest} bytes")
        if limit.exact and len(value) != limit.longest:
            raise SchemaError(f"expected exactly {limit.longest} bytes")
        return value

    return _same, unpack


def _sequence(item: Any, marks: tuple[Any, ...]) -> tuple[Pack, Unpack]:
    most = _limit(marks, Items, DEFAULT_ITEMS).most
    pack_item, unpack_item = compile_type(item)

    def pack(value: Any) -> list[Any]:
        return list(value) if pack_item is _same else [pack_item(part) for part in value]

    def unpack(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > most:
            raise SchemaError(f"expected a list of at most {most} items")
        return tuple(unpack_item(part) for part in value)

    return pack, unpack


def _mapping(key: Any, item: Any, marks: tuple[Any, ...]) -> tuple[Pack, Unpack]:
    most = _limit(marks, Items, DEFAULT_ITEMS).most
    _, unpack_key = compile_type(key)
    pack_item, unpack_item = compile_type(item)

    def pack(value: Any) -> dict[Any, Any]:
        return {name: pack_item(part) for name, part in value.items()}

    def unpack(value: Any) -> dict[Any, Any]:
        if type(value) is not dict or len(value) > most:
            raise SchemaError(f"expected a map of at most {most} entries")
        return {unpack_key(name): unpack_item(part) for name, part in value.items()}

    return pack, unpack


def _optional(inner: Any) -> tuple[Pack, Unpack]:
    pack_inner, unpack_inner = compile_type(inner)

    def pack(value: Any) -> Any:
        return None if value is None else pack_inner(value)

    def unpack(value: Any) -> Any:
        return None if value is None else unpack_inner(value)

    return pack, unpack


def _enumeration(kind: type[enum.Enum]) -> tuple[Pack, Unpack]:
    def unpack(value: Any) -> enum.Enum:
        try:
            return kind(value)
        except (ValueError, TypeError):
            raise SchemaError(f"expected one of {', '.join(str(m.value) for m in kind)}") from None

    return (lambda value: value.value), unpack


def _record(kind: type) -> tuple[Pack, Unpack]:
    plan = compile_fields(kind)

    def pack(value: Any) -> list[Any]:
        return plan.pack(value)

    def unpack(value: Any) -> Any:
        return plan.unpack(value)

    return pack, unpack


_PLAIN: dict[Any, Callable[[tuple[Any, ...]], tuple[Pack, Unpack]]] = {
    int: _integer,
    float: _floating,
    str: _text,
    bytes: _octets,
    bool: lambda _marks: _boolean(),
}


def compile_type(annotation: Any) -> tuple[Pack, Unpack]:
    """Give the packer and the unpacker of one annotation.

    Raises TypeError, at import time, for an annotation that has no meaning on the wire.
    """
    marks: tuple[Any, ...] = ()
    if typing.get_origin(annotation) is Annotated:
        annotation, *rest = typing.get_args(annotation)
        marks = tuple(rest)
    if annotation in _PLAIN:
        return _PLAIN[annotation](marks)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _sequence(arguments[0], marks)
    if origin is dict:
        return _mapping(arguments[0], arguments[1], marks)
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and arguments[1] is type(None):
        return _optional(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enumeration(annotation)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _record(annotation)
    raise TypeError(f"no wire form for the annotation {annotation!r}")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record: its name, its annotation and how it crosses the wire."""

    name: str
    annotation: Any
    pack: Pack
    unpack: Unpack
    required: bool


@dataclass(frozen=True, slots=True)
class Fields:
    """The compiled schema of one dataclass; ``raw`` names the field that travels behind the header.

    Every message of every peer passes here: what can be looked up once is, and no name is looked for before
    something is wrong.
    """

    kind: type
    fields: tuple[Field, ...]
    raw: str | None
    required: int
    _take: Callable[[Any], tuple[Any, ...]]
    _packers: tuple[tuple[int, Pack], ...]
    _unpackers: tuple[Unpack, ...]
    _places: dict[str, int]

    @classmethod
    def make(cls, kind: type, fields: tuple[Field, ...], raw: str | None) -> Fields:
        """The schema of ``kind``."""
        packers = tuple((i, field.pack) for i, field in enumerate(fields) if field.pack is not _same)
        unpackers = tuple(field.unpack for field in fields)
        required = sum(field.required for field in fields)
        places = {field.name: i for i, field in enumerate(fields)}
        return cls(kind, fields, raw, required, _taker(fields), packers, unpackers, places)

    def pack(self, value: Any) -> list[Any]:
        """The fields of ``value`` in order, the raw one left out."""
        values = list(self._take(value))
        for place, pack in self._packers:
            values[place] = pack(values[place])
        return values

    def place(self, name: str) -> int:
        """Where a field stands among the packed ones. Raises KeyError."""
        return self._places[name]

    def check(self, values: Any) -> list[Any]:
        """``values`` as the arguments of the record, one by one within its annotation.

        Raises SchemaError naming the field. Fields beyond those known (a newer peer) are ignored.
        """
        if type(values) is not list:
            raise SchemaError(f"{self.kind.__name__}: expected a list of fields")
        if len(values) < self.required:
            raise SchemaError(f"{self.kind.__name__}: {len(values)} of {self.required} fields")
        arguments: list[Any] = []
        try:
            for unpack, value in zip(self._unpackers, values, strict=False):
                arguments.append(unpack(value))
        except SchemaError as error:
            name = self.fields[len(arguments)].name
            raise SchemaError(f"{self.kind.__name__}.{name}: {error}") from None
        return arguments

    def unpack(self, values: Any, payload: bytes | None = None) -> Any:
        """The record made of ``values``; fields that an older peer does not send take their defaults.

        Raises SchemaError as ``check`` does.
        """
        arguments = self.check(values)
        if self.raw is not None:
            return self.kind(*arguments, **{self.raw: b"" if payload is None else payload})
        return self.kind(*arguments)


def _taker(fields: tuple[Field, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """All fields of a record at once (attrgetter gives a tuple for two names or more only)."""
    names = [field.name for field in fields]
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _is_raw(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Annotated and RAW in typing.get_args(annotation)[1:]


_COMPILED: dict[type, Fields] = {}


def compile_fields(kind: type) -> Fields:
    """The compiled schema of a dataclass, made once."""
    known = _COMPILED.get(kind)
    if known is not None:
        return known
    hints = typing.get_type_hints(kind, include_extras=True)
    fields: list[Field] = []
    raw = None
    for declared in dataclasses.fields(kind):
        annotation = hints[declared.name]
        if raw is not None:
            raise TypeError(f"{kind.__name__}.{raw}: the raw field is the last one")
        if _is_raw(annotation):
            raw = declared.name
            continue
        pack, unpack = compile_type(annotation)
        required = declared.default is dataclasses.MISSING and declared.default_factory is dataclasses.MISSING
        fields.append(Field(declared.name, annotation, pack, unpack, required))
    compiled = Fields.make(kind, tuple(fields), raw)
    _COMPILED[kind] = compiled
    return compiled
