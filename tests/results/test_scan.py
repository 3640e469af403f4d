"""Errors in logs: madengine's lists, line by line, in logs of any size and with lines of any length."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results import scan
from phalanx.controller.results.scan import ERRORS, HARMLESS, LogError, anchors_of, first_error, rules_of


def found(folder: Path, log: bytes | str, *patterns: str, harmless: tuple[str, ...] = ()) -> LogError | None:
    path = folder / "log"
    path.write_bytes(log if isinstance(log, bytes) else log.encode())
    return first_error(path, rules_of(patterns, harmless))


def test_the_usual_patterns_are_those_of_madengine() -> None:
    assert ERRORS == (
        "OutOfMemoryError",
        "HIP out of memory",
        "CUDA out of memory",
        "RuntimeError:",
        "AssertionError:",
        "ValueError:",
        "SystemExit",
        "failed (exitcode:",
        "Traceback (most recent call last)",
        "FAILED",
        "Exception:",
        "ImportError:",
        "ModuleNotFoundError:",
    )


@pytest.mark.parametrize("pattern", ERRORS)
def test_each_of_them_is_an_error_wherever_it_stands_in_a_line(tmp_path: Path, pattern: str) -> None:
    assert found(tmp_path, f"fine\nx{pattern}y\n") == LogError(2, f"x{pattern}y")


@pytest.mark.parametrize(
    "line",
    [
        *(f"{text} RuntimeError: x" for text in HARMLESS),
        "E20250101 12:00 1 generateRocpd.cpp:12] RuntimeError: x",
        "W20250101 simple_timer.cpp FAILED",
        "W20250101 x generateRocpd.cpp FAILED",
        "E20250101 tool.cpp:3 Exception: y",
        "[rocprofv3] FAILED",
        "> grep -q 'RuntimeError:' run.log",
        "Found error pattern 'RuntimeError:' in logs",
        "runtimeerror: in other letters",
        "Error without its colon RuntimeError",
        "===== 12 passed, 0 FAILED in 3 s =====",
        "tests:0 FAILED",
        "0 FAILED, 0 FAILED",
    ],
)
def test_a_harmless_line_is_no_error_and_hides_none_after_it(tmp_path: Path, line: str) -> None:
    assert found(tmp_path, f"{line}\n") is None
    assert found(tmp_path, f"{line}\n{line}\nValueError: bad\n") == LogError(3, "ValueError: bad")


@pytest.mark.parametrize(
    "line",
    [
        "10 FAILED",
        "3 passed, 1 FAILED",
        "version 1.0 FAILED to load",
        "1,0 FAILED",
        "0 FAILED, then it FAILED",
        "0 FAILED with RuntimeError: x",
        "x E20250101 generateRocpd.cpp FAILED",
        "E2025 generateRocpd.cpp FAILED",
    ],
)
def test_what_only_looks_harmless_is_an_error(tmp_path: Path, line: str) -> None:
    assert found(tmp_path, line) == LogError(1, line)


def test_patterns_of_a_user_replace_the_usual_and_are_literal(tmp_path: Path) -> None:
    assert found(tmp_path, "RuntimeError: x\n", "NaN loss") is None
    assert found(tmp_path, "loss .*\n", ".*") == LogError(1, "loss .*")
    assert found(tmp_path, "NaN\n", ".*") is None
    assert found(tmp_path, "0 FAILED\n", "0 FAILED") == LogError(1, "0 FAILED")


def test_harmless_texts_of_a_user_are_added_to_the_usual(tmp_path: Path) -> None:
    log = "RuntimeError: retry\nFutureWarning Exception:\nRuntimeError: x\n"
    assert found(tmp_path, log, harmless=("retry",)) == LogError(3, "RuntimeError: x")


def test_the_line_is_cleaned_and_cut_around_the_error(tmp_path: Path) -> None:
    shown = found(tmp_path, b"\x1b[31m\xffRuntimeError: \x07boom\r\n")
    assert shown == LogError(1, "\\xffRuntimeError: boom")
    long = found(tmp_path, "a" * 5000 + " RuntimeError: here " + "b" * 5000)
    assert long is not None
    assert "RuntimeError: here" in long.text
    assert len(long.text) <= scan.SHOWN + 1


def test_a_file_that_is_not_there_has_no_error(tmp_path: Path) -> None:
    assert first_error(tmp_path / "none", rules_of()) is None


@pytest.mark.parametrize("shift", range(-20, 4))
def test_an_error_across_the_end_of_a_window_or_of_a_piece_is_found(tmp_path: Path, shift: int) -> None:
    for before in (scan.WINDOW + shift, scan.LINE_LIMIT + shift):
        assert found(tmp_path, b"." * before + b"RuntimeError: x") is not None
        lines = b"ok\n" * (before // 3) + b"." * (before % 3)
        error = found(tmp_path, lines + b"RuntimeError: x\n")
        assert error is not None
        assert error.line == before // 3 + 1


def test_what_was_harmless_in_a_long_line_is_not_an_error_of_its_next_piece(tmp_path: Path) -> None:
    piece = b"FutureWarning" + b"." * scan.LINE_LIMIT
    harmless = piece[: scan.LINE_LIMIT - 6] + b"FAILED"
    assert len(harmless) == scan.LINE_LIMIT
    assert found(tmp_path, harmless + b"." * 100) is None


def test_a_line_without_end_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"x" * (1024 * 1024))
        file.write(b" SystemExit")
    tracemalloc.start()
    error = first_error(path, rules_of())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error is not None
    assert error.line == 1
    assert peak < 8 * 1024 * 1024


WORDS = st.sampled_from(
    [*ERRORS[:4], "FAILED", "0 FAILED", "FutureWarning", "Error", " ", "x", "\n", "\n", "\r"]
)


@given(st.lists(WORDS, max_size=40))
def test_the_first_error_is_the_one_that_a_plain_reading_finds(words: list[str]) -> None:
    text = "".join(words)
    expected = None
    for number, line in enumerate(text.split("\n"), start=1):
        plain = scan._NONE_FAILED.sub(b"", line.encode()).decode()
        if "FutureWarning" not in line and any(pattern in plain for pattern in ERRORS):
            expected = number
            break
    rules = rules_of()
    places = [
        text.encode()[:start].count(b"\n") + 1
        for start, end in scan._candidates(text.encode(), rules.anchors)
        if rules.error_in(text.encode()[start:end], 0) >= 0
    ]
    assert (places or [None])[0] == expected


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=20))
def test_every_pattern_has_an_anchor(patterns: list[bytes]) -> None:
    anchors = anchors_of(patterns)
    assert all(any(anchor in pattern for anchor in anchors) for pattern in patterns)
    assert all(anchors)


def test_six_of_the_usual_patterns_share_an_anchor() -> None:
    anchors = anchors_of([text.encode() for text in ERRORS])
    assert b"Error" in anchors
    assert len(anchors) == 7
