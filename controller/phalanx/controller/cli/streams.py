"""The standard streams of this process: they are there, and an output that is lost says so in words.

The number of a stream that was closed (``>&-``) would go to the next file that is opened, which then got what
was meant for the stream. Standard error only tells: what it does not take ends nothing.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class OutputLost(Exception):
    """Standard output took no more. The message says why."""


class _Stream(io.FileIO):
    """A descriptor that is written to. ``words``: what it does not take is no loss."""

    def __init__(self, number: int, *, words: bool = False) -> None:
        super().__init__(number, "w", closefd=False)
        self._words = words

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._words:
                return memoryview(data).nbytes
            raise OutputLost(error.strerror) from error


def guard() -> None:
    """To be called before any file is opened to stay."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number is free, and taken
    sys.stdout = _text(_Stream(1), sys.stdout)
    sys.stderr = _text(_Stream(2, words=True), sys.stderr, by_lines=True)


def drop() -> None:
    """What is or will be on its way to standard output goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def settle() -> None:
    """Nothing is left for the interpreter to write at its end: what cannot be written by now is dropped."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OutputLost, OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _text(raw: io.FileIO, like: TextIO | None, *, by_lines: bool = False) -> TextIO:
    """A text stream with the encoding of another; None is one that was closed.

    A file's name goes out as the bytes that it has, whatever they are.
    """
    encoding, errors = ("utf-8", "strict") if like is None else (like.encoding, like.errors)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="surrogateescape" if errors == "strict" else errors,
        line_buffering=by_lines or raw.isatty(),
    )
