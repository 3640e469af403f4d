"""Codes are append-only: a code keeps its message, its kind, its direction and its fields, in order.

``codes.txt`` is the record. A new message or a new field with a default goes to the end and is added to the
record; anything else changes what an older peer understands and needs a new protocol version instead.
"""

from __future__ import annotations

from phalanx.protocol.messages import MESSAGES

from .codes import current, line, recorded


def test_a_code_that_was_given_out_keeps_its_meaning() -> None:
    for known in recorded():
        code = int(known.split()[0])
        assert code in MESSAGES, f"code {code} is gone: {known}"
        now = line(MESSAGES[code])
        extra = now[len(known) :].split()
        assert now.startswith(known), f"code {code} changed:\n  was {known}\n  is  {now}"
        assert all("?:" in word for word in extra), f"code {code} has a new field without a default: {now}"


def test_every_message_is_in_the_record() -> None:
    assert recorded() == current(), "run python -m tests.protocol.codes --write"


def test_codes_fit_one_byte_of_msgpack_and_are_distinct() -> None:
    assert all(code in range(1, 128) and code == kind.CODE for code, kind in MESSAGES.items())
    assert len({kind.__name__ for kind in MESSAGES.values()}) == len(MESSAGES)
