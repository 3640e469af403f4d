"""At the limit a value is taken, one beyond it is refused: for every limited place of every message."""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import pytest
from phalanx.protocol.errors import SchemaError
from phalanx.protocol.messages import MESSAGES, Message
from phalanx.protocol.schema import (
    DEFAULT_INT,
    DEFAULT_ITEMS,
    DEFAULT_OCTETS,
    DEFAULT_TEXT,
    compile_fields,
)

from .samples import record, sample

Steps = tuple[Any, ...]


class Place(NamedTuple):
    """A limited place: where it is in the packed fields, what is still taken, what is too much."""

    steps: Steps
    most: Any
    beyond: Any


def limited(annotation: Any, steps: Steps) -> Iterator[Place]:
    """Every limited place of an annotation and of what it is made of."""
    marks: tuple[Any, ...] = ()
    if typing.get_origin(annotation) is Annotated:
        annotation, *rest = typing.get_args(annotation)
        marks = tuple(rest)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        yield from limited(arguments[0], steps)
    elif origin in (tuple, dict):
        yield from _items(origin, arguments, marks, steps)
    elif dataclasses.is_dataclass(annotation):
        for place, field in enumerate(compile_fields(annotation).fields):  # type: ignore[arg-type]
            yield from limited(field.annotation, (*steps, place))
    else:
        yield from _scalar(annotation, marks, steps)


def _mark(marks: tuple[Any, ...], default: Any) -> Any:
    return next((one for one in marks if isinstance(one, type(default))), default)


def _items(origin: type, arguments: tuple[Any, ...], marks: tuple[Any, ...], steps: Steps) -> Iterator[Place]:
    most, one = _mark(marks, DEFAULT_ITEMS).most, packed(arguments[-1] if origin is dict else arguments[0])
    if origin is dict:
        names = [str(key) for key in range(most + 1)]
        yield Place(steps, dict.fromkeys(names[:most], one), dict.fromkeys(names, one))
    else:
        yield Place(steps, [one] * most, [one] * (most + 1))
        yield from limited(arguments[0], (*steps, 0))


def _scalar(annotation: Any, marks: tuple[Any, ...], steps: Steps) -> Iterator[Place]:
    if annotation is int:
        bounds = _mark(marks, DEFAULT_INT)
        if bounds is not DEFAULT_INT:
            yield Place(steps, int(bounds.high), int(bounds.high) + 1)
            yield Place(steps, int(bounds.low), int(bounds.low) - 1)
    elif annotation is str:
        longest = _mark(marks, DEFAULT_TEXT).longest
        yield Place(steps, "x" * longest, "x" * (longest + 1))
    elif annotation is bytes:
        longest = _mark(marks, DEFAULT_OCTETS).longest
        yield Place(steps, bytes(longest), bytes(longest + 1))


def packed(annotation: Any) -> Any:
    value = sample(annotation)
    if dataclasses.is_dataclass(value):
        return compile_fields(type(value)).pack(value)
    return list(value) if isinstance(value, tuple) else value


def put(values: list[Any], steps: Steps, value: Any) -> list[Any]:
    changed = copy.deepcopy(values)
    inside = changed
    for step in steps[:-1]:
        inside = inside[step]
    inside[steps[-1]] = value
    return changed


def places() -> Iterator[Any]:
    for kind in MESSAGES.values():
        for number, field in enumerate(compile_fields(kind).fields):
            for index, place in enumerate(limited(field.annotation, (number,))):
                yield pytest.param(kind, place, id=f"{kind.__name__}.{field.name}-{index}")


@pytest.mark.parametrize(("kind", "place"), list(places()))
def test_the_limit_is_taken_and_one_more_is_refused(kind: type[Message], place: Place) -> None:
    fields = compile_fields(kind)
    values = fields.pack(record(kind))
    fields.unpack(put(values, place.steps, place.most), b"")
    with pytest.raises(SchemaError, match=kind.__name__):
        fields.unpack(put(values, place.steps, place.beyond), b"")
