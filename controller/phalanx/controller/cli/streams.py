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


class _Output(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(error.strerror) from error


class _Words(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError:
            return memoryview(data).nbytes


def guard() -> None:
    """To be called before any file is opened to stay."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number is free, and taken
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Words(2, "w", closefd=False), sys.stderr, by_lines=True)


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
