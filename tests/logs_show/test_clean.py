"""What workloads write is shown without anything that a terminal would act on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.logs.clean import LINE_LIMIT, clean, clean_text, cut

#: Everything that a terminal may act on, byte for byte of the result decoded.
ACTED_ON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain text\n", b"plain text\n"),
        (b"tab\tstays\n", b"tab\tstays\n"),
        ("grün — ✓ 漢字\n".encode(), "grün — ✓ 漢字\n".encode()),
        (b"\x1b[31mred\x1b[0m\n", b"red\n"),
        (b"\x1b[2J\x1b[Hgone\n", b"gone\n"),
        (b"\x1b]0;title\x07after\n", b"after\n"),
        (b"\x1b]52;c;cm0gLXJm\x1b\\after\n", b"after\n"),
        (b"\x1bP$qm\x1b\\after\n", b"after\n"),
        (b"\x1b(0after\n", b"after\n"),
        (b"\x1b]never ends\nnext\n", b"\nnext\n"),
        ("\x9b31mc1\x9d0;t\x9cend\n".encode(), b"c1end\n"),
        (b"\x9b31m\n", b"\\x9b31m\n"),
        (b"\xff\xfe\n", b"\\xff\\xfe\n"),
        (b"windows\r\n", b"windows\n"),
        (b" 10%\r 20%\r 30%\n", b" 10%\n 20%\n 30%\n"),
        (b"50%\r", b"50%"),
        (b"a\x00b\x08c\x7f\n", b"abc\n"),
        ("user\u202egnp.exe\n".encode(), b"usergnp.exe\n"),
        (b"", b""),
    ],
)
def test_each_kind_of_danger_is_taken_out_and_the_rest_stays(raw: bytes, shown: bytes) -> None:
    assert clean(raw) == shown


@given(st.binary())
def test_no_bytes_whatever_leave_anything_to_act_on(data: bytes) -> None:
    assert ACTED_ON.search(clean(data).decode()) is None


@given(st.text(alphabet="\x1b[]P\\^_\x07\x9b\x9d\x9c;0123456789mAHJc \n\r\u202eé", max_size=200))
def test_no_arrangement_of_escape_characters_leaves_anything_to_act_on(text: str) -> None:
    assert ACTED_ON.search(clean(text.encode()).decode()) is None


@given(st.binary())
def test_cleaning_what_is_clean_changes_nothing(data: bytes) -> None:
    once = clean(data)
    assert clean(once) == once


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_printable_text_of_any_language_passes_unchanged(text: str) -> None:
    assert clean(text.encode()) == text.encode()


@given(st.text())
def test_words_from_elsewhere_become_one_line(text: str) -> None:
    assert "\n" not in clean_text(text)


def test_a_lone_surrogate_in_a_name_is_spelled_out() -> None:
    assert clean_text("node\udcff") == "node\\udcff"


@given(st.lists(st.integers(0, 3 * 64)), st.booleans())
def test_cutting_keeps_short_lines_and_says_what_long_ones_lost(lengths: list[int], ended: bool) -> None:
    lines = [b"x" * length for length in lengths]
    block = b"\n".join(lines) + (b"\n" if ended else b"")
    out = cut(block, 64).split(b"\n")
    for line, shown in zip(block.split(b"\n"), out, strict=True):
        if len(line) <= 64:
            assert shown == line
        else:
            assert shown.startswith(b"x" * 64 + b" [+%d bytes" % (len(line) - 64))


def test_a_character_is_never_cut_in_two() -> None:
    line = "é".encode() * LINE_LIMIT
    assert cut(line + b"\n").decode().startswith("é" * (LINE_LIMIT // 2) + " [+")
