"""One small instance of every message, made from its annotations without randomness."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Annotated, Any

from phalanx.protocol import schema
from phalanx.protocol.frames import encode
from phalanx.protocol.messages import MESSAGES, Message

_PLAIN: dict[Any, Any] = {int: 1, float: 1.5, str: "word", bytes: b"octets", bool: True}


def sample(annotation: Any) -> Any:
    """A value that the annotation allows; containers hold one item, so that nested parts are there too."""
    marks: list[Any] = []
    if typing.get_origin(annotation) is Annotated:
        annotation, *marks = typing.get_args(annotation)
    if annotation in _PLAIN:
        return _plain(annotation, marks)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        return (sample(arguments[0]),)
    if origin is dict:
        return {sample(arguments[0]): sample(arguments[1])}
    if origin in (typing.Union, types.UnionType):
        return sample(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return next(iter(annotation))
    return record(annotation)


def _plain(kind: Any, marks: list[Any]) -> Any:
    if kind is bytes:
        exact = [mark.longest for mark in marks if isinstance(mark, schema.Octets) and mark.exact]
        return bytes(exact[0]) if exact else _PLAIN[bytes]
    if kind is str:
        longest = [mark.longest for mark in marks if isinstance(mark, schema.Text)]
        return _PLAIN[str][: longest[0]] if longest else _PLAIN[str]
    low = [mark.low for mark in marks if isinstance(mark, schema.Range)]
    return kind(max(_PLAIN[kind], *low)) if low else _PLAIN[kind]


def record(kind: Any) -> Any:
    """A small instance of a dataclass whose annotations are a schema."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return kind(**{field.name: sample(hints[field.name]) for field in dataclasses.fields(kind)})


def every_message() -> list[Message]:
    """One of each, by code."""
    return [record(kind) for _, kind in sorted(MESSAGES.items())]


def every_frame() -> list[bytes]:
    """The frame of each of ``every_message``."""
    return [encode(message) for message in every_message()]
