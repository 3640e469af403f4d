"""The record of message codes: what each one meant when it was first given out.

python -m tests.protocol.codes            say what the code adds to the record or changes in it
python -m tests.protocol.codes --write    write the record anew, after a look at what was said
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
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


def current() -> list[str]:
    """A line for every message there is, by its code."""
    return [line(kind) for _, kind in sorted(MESSAGES.items())]


def recorded() -> list[str]:
    """The lines of the record."""
    return [text for text in RECORD.read_text(encoding="utf-8").splitlines() if text]


def main(argv: list[str]) -> int:
    """Compare, or write; the exit status is 1 when the record is not current and was not written."""
    parser = argparse.ArgumentParser(prog="python -m tests.protocol.codes", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the record anew")
    write = parser.parse_args(argv).write
    was, now = recorded(), current()
    sys.stdout.writelines(f"{text}\n" for text in difflib.unified_diff(was, now, "record", "code", n=0))
    if write:
        RECORD.write_text("".join(f"{text}\n" for text in now), encoding="utf-8")
    return 0 if write or was == now else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
