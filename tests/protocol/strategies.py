"""Hypothesis strategies derived from the annotations of the messages: one declaration, no other list.

``values`` walks an annotation the way ``schema.compile_type`` does and stays inside its limits; long texts
and lists are kept short, because a test at the limits is a test of its own (``test_limits.py``).
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

from hypothesis import strategies as st
from phalanx.protocol import schema
from phalanx.protocol.messages import MESSAGES, Message

SHORT = 6


def _limit(marks: tuple[Any, ...], kind: type, default: Any) -> Any:
    return next((mark for mark in marks if isinstance(mark, kind)), default)


def _integers(marks: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    bounds = _limit(marks, schema.Range, schema.DEFAULT_INT)
    return st.integers(int(bounds.low), int(bounds.high))


def _floats(marks: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    bounds = _limit(marks, schema.Range, schema.Range(-1e300, 1e300))
    return st.floats(bounds.low, bounds.high, allow_nan=False)


def _texts(marks: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    longest = _limit(marks, schema.Text, schema.DEFAULT_TEXT).longest
    short = min(longest, 4 * SHORT)
    return st.text(max_size=short) | st.sampled_from([text for text in EVIL_TEXTS if len(text) <= longest])


def _octets(marks: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if any(mark is schema.RAW for mark in marks):
        return st.binary(max_size=4 * SHORT)
    limit = _limit(marks, schema.Octets, schema.DEFAULT_OCTETS)
    least = limit.longest if limit.exact else 0
    return st.binary(min_size=least, max_size=least if limit.exact else min(limit.longest, 4 * SHORT))


#: Words that have broken terminals, shells, parsers and paths before.
EVIL_TEXTS = (
    "",
    "\x00",
    "\x1b]0;title\x07\x1b[2J",
    "line\r\nline",
    "$(reboot)`id`;'\"",
    "-rf",
    "../../etc/passwd",
    "\u202egpj.exe",
    "e\u0301\U0001f4a5",
    "\ufeff",
)

_PLAIN: dict[Any, Callable[[tuple[Any, ...]], st.SearchStrategy[Any]]] = {
    int: _integers,
    float: _floats,
    str: _texts,
    bytes: _octets,
    bool: lambda _marks: st.booleans(),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that an annotation allows on the wire. Raises TypeError for one that has no wire form."""
    marks: tuple[Any, ...] = ()
    if typing.get_origin(annotation) is Annotated:
        annotation, *rest = typing.get_args(annotation)
        marks = tuple(rest)
    if annotation in _PLAIN:
        return _PLAIN[annotation](marks)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    most = min(_limit(marks, schema.Items, schema.DEFAULT_ITEMS).most, SHORT)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=most).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=most)
    if origin in (typing.Union, types.UnionType):
        return st.none() | values(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return st.sampled_from(annotation)
    if dataclasses.is_dataclass(annotation):
        return records(annotation)
    raise TypeError(f"no strategy for the annotation {annotation!r}")


def records(kind: Any) -> st.SearchStrategy[Any]:
    """Instances of a dataclass whose annotations are a schema."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in dataclasses.fields(kind)})


def messages() -> st.SearchStrategy[Message]:
    """Any message there is, every class as likely as another."""
    return st.one_of([records(kind) for kind in MESSAGES.values()])


def cuts(length: int) -> st.SearchStrategy[list[int]]:
    """Places at which a byte stream of ``length`` bytes is cut, in order."""
    return st.lists(st.integers(0, length), max_size=12).map(sorted)


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` cut at ``places``."""
    edges = [0, *places, len(data)]
    return [data[low:high] for low, high in pairwise(edges)]
