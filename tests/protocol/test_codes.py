"""Codes are append-only: a code keeps its message, its kind, its direction and its fields, in order.

``codes.txt`` is the record. A new message or a new field with a default goes to the end and is added to the
record; anything else changes what an older peer understands and needs a new protocol version instead.
"""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

from phalanx.protocol.messages import MESSAGES, Message
from phalanx.protocol.schema import compile_fields

RECORD = Path(__file__).with_name("codes.txt")


def line(kind: type[Message]) -> str:
    """``code kind direction Name field:annotation ...``; optional fields end in ``?``."""
    hints = typing.get_type_hints(kind)
    required = {field.name for field in compile_fields(kind).fields if field.required}
    words = []
    for field in dataclasses.fields(kind):
        annotation = hints[field.name]
        name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        name = name.replace("phalanx.protocol.messages.", "").replace(" ", "")
        words.append(f"{field.name}{'' if field.name in required else '?'}:{name}")
    return " ".join([str(kind.CODE), kind.KIND.name, kind.DIRECTION.value, kind.__name__, *words])


def recorded() -> dict[int, str]:
    return {int(text.split()[0]): text for text in RECORD.read_text(encoding="utf-8").splitlines() if text}


def test_a_code_that_was_given_out_keeps_its_meaning() -> None:
    for code, known in recorded().items():
        assert code in MESSAGES, f"code {code} is gone: {known}"
        now = line(MESSAGES[code])
        extra = now[len(known) :].split()
        assert now.startswith(known), f"code {code} changed:\n  was {known}\n  is  {now}"
        assert all("?:" in word for word in extra), f"code {code} has a new field without a default: {now}"


def test_every_message_is_in_the_record() -> None:
    lines = [line(kind) for _, kind in sorted(MESSAGES.items())]
    assert list(recorded().values()) == lines, "add the new lines to tests/protocol/codes.txt"


def test_codes_fit_one_byte_of_msgpack_and_are_distinct() -> None:
    assert all(code in range(1, 128) and code == kind.CODE for code, kind in MESSAGES.items())
    assert len({kind.__name__ for kind in MESSAGES.values()}) == len(MESSAGES)
