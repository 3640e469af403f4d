"""The performance line of a log, with the edge cases of madengine's rule, in files of any size."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phalanx.controller.results.extract import (
    REACH,
    WINDOW,
    WORD_LIMIT,
    Performance,
    first_performance,
    performance_of,
    search,
)


def found(text: str) -> tuple[str, str] | None:
    performance = search(io.BytesIO(text.encode()))
    return (performance.value, performance.metric) if performance else None


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("performance: 12.5 tokens/s\n", ("12.5", "tokens/s")),
        ("performance: 12 x", ("12", "x")),
        ("performance: 12. x", ("12.", "x")),
        ("performance: .5 x", (".5", "x")),
        ("performance: -1.5e-3 x", ("-1.5e-3", "x")),
        ("performance: +2E6 x", ("+2E6", "x")),
        ("performance:\t\n 7 \n  x\n", ("7", "x")),
        ("performance: 7, x", ("7", "x")),
        ("performance: 7 /step, x", ("7", "x")),
        ("performance: 7/step x", ("7", "x")),
        ("performance: 7, /step , x", ("7", "x")),
        ("performance: 7 tokens,per second", ("7", "tokens")),
        ("my_performance: 3 y", ("3", "y")),
        ("performance: nan x\nperformance: 4 y", ("4", "y")),
        ("performance: 1,234.5 x", None),
        ("performance: 5", None),
        ("performance:5 x", None),
        ("Performance: 5 x", None),
        ("", None),
        ("'train_samples_per_second': 12.25, 'x': 1", ("12.25", "samples_per_second")),
        ('"train_samples_per_second" = 3', ("3", "samples_per_second")),
        ("train_samples_per_second: 3\nperformance: 4 y", ("4", "y")),
        ("performance: 1 a\nperformance: 2 b", ("1", "a")),
    ],
)
def test_a_log_has_this_performance(log: str, expected: tuple[str, str] | None) -> None:
    assert found(log) == expected


def test_the_last_one_counts_on_request() -> None:
    log = io.BytesIO(b"performance: 1 a\n" + b"x" * WINDOW + b"performance: 2 b\nperformance: nan c\n")
    assert search(log, "last") == Performance("2", "b")


@pytest.mark.parametrize("shift", range(-24, 4))
def test_a_line_across_the_end_of_a_window_is_found_whole(shift: int) -> None:
    log = b"." * (WINDOW + shift) + b"performance: 123.25 tokens/s more"
    assert search(io.BytesIO(log)) == Performance("123.25", "tokens/s")


@given(st.integers(0, 3 * REACH), st.integers(0, 40), st.sampled_from([b" ", b".", b"\n", b"performance: "]))
def test_what_stands_around_a_line_does_not_matter(before: int, after: int, filler: bytes) -> None:
    log = filler * before + b"\nperformance: 42 x " + filler * after
    assert search(io.BytesIO(log)) == Performance("42", "x")


@pytest.mark.parametrize(
    "log",
    [
        b"performance: " + b"1" * WINDOW,
        b"performance: 1" + b" " * (WINDOW // 2) + b"1" * (WINDOW // 2),
        b"performance: 1/s" + b" " * WINDOW + b",\n",
        b"performance: 1" + b" " * WINDOW + b",\n",
        b"train_samples_per_second: " + b"1" * WINDOW,
    ],
)
def test_a_window_of_digits_or_blanks_is_read_in_no_time(log: bytes) -> None:
    before = time.process_time()
    assert search(io.BytesIO(log)) is None
    assert time.process_time() - before < 2


#: The rule as madengine writes it, which takes the square of the length for some logs.
PLAIN = re.compile(
    rb"performance:\s+([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    rb"(?:,?[ \t]*/[A-Za-z]+[ \t]*,?|,)?\s+([^\s,]+)"
)


@settings(max_examples=2000)
@given(st.lists(st.sampled_from([*"12.eE+-,/sx \t\n", "/s", "performance: "]), max_size=14).map("".join))
def test_a_line_is_found_as_by_the_plain_rule(text: str) -> None:
    plain = PLAIN.search(f"performance: {text}".encode())
    expected = (plain[1].decode(), plain[2].decode()) if plain else None
    assert found(f"performance: {text}") == expected


@pytest.mark.parametrize(
    "line",
    ["performance: 1 " + "x" * (WORD_LIMIT + 1), "performance: " + "1" * (WORD_LIMIT + 1) + " x"],
)
def test_a_number_or_metric_too_long_for_a_cell_makes_no_performance_line(line: str) -> None:
    assert found(line) is None
    assert found(f"{line}\nperformance: 4 y") == ("4", "y")
    assert found("performance: 1 " + "x" * WORD_LIMIT) == ("1", "x" * WORD_LIMIT)


class Counting(io.RawIOBase):
    """A log of any size that exists only as it is read."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.largest = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "a log is never read whole"
        self.largest = max(self.largest, size)
        count = min(size, self.left)
        self.left -= count
        return b"performance: " * (count // 13) + b"x" * (count % 13)


def test_a_huge_log_is_read_in_windows() -> None:
    log = Counting(8 * WINDOW)
    assert search(log) is None  # type: ignore[arg-type]
    assert (log.left, log.largest) == (0, WINDOW)


def test_the_first_file_that_has_one_wins_and_missing_files_have_none(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("nothing")
    (tmp_path / "c").write_text("performance: 1 x\n")
    (tmp_path / "d").write_text("performance: 2 x\n")
    assert performance_of(tmp_path / "a") is None
    assert first_performance(tmp_path / name for name in "abcd") == (tmp_path / "c", Performance("1", "x"))
