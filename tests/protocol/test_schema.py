"""What the annotations promise: every message comes back as it was sent, and nothing is coerced."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import msgpack
import pytest
from hypothesis import given, settings
from phalanx.protocol.errors import SchemaError
from phalanx.protocol.frames import Frame, FrameDecoder, decode, encode
from phalanx.protocol.messages import MESSAGES, Direction, Kind, Message
from phalanx.protocol.schema import Items, Octets, Range, Text, compile_fields, compile_type

from .samples import every_message, record
from .strategies import messages, records

BY_NAME = [pytest.param(kind, id=kind.__name__) for kind in MESSAGES.values()]


def sender_of(kind: type[Message]) -> Direction:
    return Direction.AGENT if kind.DIRECTION is Direction.BOTH else kind.DIRECTION


def through(message: Message) -> Message:
    decoder = FrameDecoder(Kind)
    decoder.feed(encode(message))
    frame = decoder.next()
    assert frame is not None
    assert decoder.pending == 0
    return decode(frame, sender_of(type(message)))


@pytest.mark.parametrize("kind", BY_NAME)
def test_every_message_round_trips(kind: type[Message]) -> None:
    @settings(max_examples=40)
    @given(records(kind))
    def round_trip(message: Message) -> None:
        assert through(message) == message

    round_trip()


@given(messages())
def test_what_comes_back_has_the_declared_types_not_look_alikes(message: Message) -> None:
    back = through(message)
    for field in dataclasses.fields(message):
        assert type(getattr(back, field.name)) is type(getattr(message, field.name))


@pytest.mark.parametrize("message", every_message(), ids=lambda message: type(message).__name__)
def test_fields_that_a_newer_peer_appends_are_ignored(message: Message) -> None:
    fields = compile_fields(type(message))
    values = [*fields.pack(message), {"from": "the future"}, [1, 2, 3]]
    payload = getattr(message, fields.raw) if fields.raw else None
    assert fields.unpack(values, payload) == message


@pytest.mark.parametrize("message", every_message(), ids=lambda message: type(message).__name__)
def test_fields_with_defaults_that_an_older_peer_leaves_out_take_them(message: Message) -> None:
    fields = compile_fields(type(message))
    values = fields.pack(message)[: fields.required]
    back = fields.unpack(values, b"")
    for field, declared in zip(fields.fields, dataclasses.fields(type(message)), strict=False):
        if not field.required:
            made = declared.default_factory
            default = declared.default if made is dataclasses.MISSING else made()
            assert getattr(back, field.name) == default


@pytest.mark.parametrize("message", every_message(), ids=lambda message: type(message).__name__)
def test_a_missing_required_field_is_refused_with_the_name_of_the_message(message: Message) -> None:
    fields = compile_fields(type(message))
    with pytest.raises(SchemaError, match=type(message).__name__):
        fields.unpack(fields.pack(message)[: fields.required - 1])


@pytest.mark.parametrize("message", every_message(), ids=lambda message: type(message).__name__)
def test_a_field_of_another_type_is_refused_by_name(message: Message) -> None:
    fields = compile_fields(type(message))
    good = fields.pack(message)
    for place, field in enumerate(fields.fields):
        wrong = [*good[:place], object(), *good[place + 1 :]]
        with pytest.raises(SchemaError, match=f"{type(message).__name__}.{field.name}"):
            fields.unpack(wrong, b"")


@pytest.mark.parametrize(
    ("annotation", "wrong"),
    [
        (int, True),
        (int, 1.0),
        (int, "1"),
        (Annotated[int, Range(0, 9)], 10),
        (Annotated[int, Range(0, 9)], -1),
        (float, "1"),
        (float, True),
        (float, math.nan),
        (float, math.inf),
        (float, -math.inf),
        (bool, 1),
        (bool, None),
        (str, b"bytes"),
        (Annotated[str, Text(3)], "four"),
        (bytes, "text"),
        (Annotated[bytes, Octets(3)], b"four"),
        (Annotated[bytes, Octets(3, exact=True)], b"tw"),
        (tuple[int, ...], {"a": 1}),
        (Annotated[tuple[int, ...], Items(2)], [1, 2, 3]),
        (Annotated[dict[str, int], Items(1)], {"a": 1, "b": 2}),
        (dict[str, int], {b"bytes": 1}),
        (dict[str, int], [["a", 1]]),
        (Kind, 99),
        (Kind, [1]),
        (Kind, "1"),
    ],
)
def test_a_value_outside_its_annotation_is_refused(annotation: Any, wrong: Any) -> None:
    _, unpack = compile_type(annotation)
    with pytest.raises(SchemaError):
        unpack(wrong)


@pytest.mark.parametrize("annotation", [object, list[int], set[int], tuple[int, str], int | str, "nothing"])
def test_an_annotation_without_a_wire_form_is_a_bug_found_at_import(annotation: Any) -> None:
    with pytest.raises(TypeError, match="no wire form"):
        compile_type(annotation)


@pytest.mark.parametrize("kind", BY_NAME)
def test_a_message_from_the_wrong_side_is_refused(kind: type[Message]) -> None:
    data = encode(record(kind))
    decoder = FrameDecoder(Kind)
    decoder.feed(data)
    frame = decoder.next()
    assert frame is not None
    allowed = {
        Direction.CONTROLLER: {Direction.CONTROLLER},
        Direction.AGENT: {Direction.AGENT},
        Direction.BOTH: {Direction.CONTROLLER, Direction.AGENT},
    }[kind.DIRECTION]
    for sender in (Direction.CONTROLLER, Direction.AGENT):
        if sender in allowed:
            assert type(decode(frame, sender)) is kind
        else:
            with pytest.raises(SchemaError, match="does not go"):
                decode(frame, sender)


@pytest.mark.parametrize("kind", BY_NAME)
def test_a_message_in_a_frame_of_another_kind_is_refused(kind: type[Message]) -> None:
    body = msgpack.packb([kind.CODE, compile_fields(kind).pack(record(kind))])
    for other in Kind:
        if other is kind.KIND:
            continue
        dressed = len(body).to_bytes(2, "big") + body if other in (Kind.LOG, Kind.BULK) else body
        with pytest.raises(SchemaError, match="no message"):
            decode(Frame(other, dressed), sender_of(kind))


def test_an_unknown_code_is_refused() -> None:
    for code in (0, -1, max(MESSAGES) + 1, 2**63):
        with pytest.raises(SchemaError, match="no message"):
            decode(Frame(Kind.CONTROL, msgpack.packb([code, []])), Direction.AGENT)
