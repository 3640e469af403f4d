"""The performance value in a log: ``performance: 123.4 tokens/s``, by madengine's rule.

The first match of the log wins (the last on request). After ``performance:`` and white space comes a
number, perhaps a separator such as ``/step`` or a comma, white space, and the metric: up to white space or
a comma. No word boundary is asked for in front. A log without one may have ``train_samples_per_second`` and
a number. Logs may be huge and without newlines: they are read in windows, and a match must lie within one.
What was printed is hostile until read: a number or metric too long for a cell makes no performance line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

#: Bytes read at once, and the longest match that is found for sure.
WINDOW, REACH = 1024 * 1024, 8192
#: Longest number and longest metric, in bytes; others are no results.
WORD_LIMIT = 256

# What is taken is not given back (``++``): a window of digits or blanks is looked at once, not once for each
# of them, and nobody else runs meanwhile.
_NUMBER = rb"([+-]?(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?\d++)?+)"
_SEPARATOR = rb"(?:,?[ \t]*/[A-Za-z]++(?:[ \t]*,)?|,)?"
_LINE = re.compile(rb"performance:\s+" + _NUMBER + _SEPARATOR + rb"\s+([^\s,]+)")
_TRAINER = re.compile(rb"train_samples_per_second['\"\s:=]+" + _NUMBER)
_LINE_WORD, _TRAINER_WORD = b"performance:", b"train_samples_per_second"
TRAINER_METRIC = "samples_per_second"

Which = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Performance:
    """A value as it was written, and its metric."""

    value: str
    metric: str


@dataclass(slots=True)
class _Search:
    """One pattern over windows; ``word`` is the literal that it begins with, searched for at memory speed.

    ``resume``: offset in the file from which is looked next.
    """

    pattern: re.Pattern[bytes]
    word: bytes
    which: Which
    found: re.Match[bytes] | None = None
    resume: int = 0

    @property
    def done(self) -> bool:
        """Nothing that comes later can matter."""
        return self.which == "first" and self.found is not None

    def look(self, window: bytes, base: int, last: bool) -> None:
        """Search a window that begins at offset ``base``; what its end may have cut is left for the next."""
        at = max(self.resume - base, 0)
        while not self.done:
            at = window.find(self.word, at)
            if at < 0:
                at = max(len(window) - len(self.word) + 1, 0)
                break
            match = self.pattern.match(window, at)
            whole = last or len(window) - at >= REACH
            if not whole and (match is None or match.end() == len(window)):
                break
            if match and all(len(word) <= WORD_LIMIT for word in match.groups()):
                self.found = match
            at = match.end() if match else at + len(self.word)
        self.resume = max(self.resume, base + at)


def performance_of(path: Path, which: Which = "first") -> Performance | None:
    """The performance in a log file, None when there is none or no such file. Raises OSError for others."""
    try:
        with path.open("rb") as file:
            return search(file, which)
    except FileNotFoundError:
        return None


def first_performance(paths: Iterable[Path], which: Which = "first") -> tuple[Path, Performance] | None:
    """The first of several logs that has a performance, and which it was."""
    for path in paths:
        found = performance_of(path, which)
        if found is not None:
            return path, found
    return None


def search(file: BinaryIO, which: Which = "first") -> Performance | None:
    """The performance in an open log, read to its end at most, in bounded memory."""
    line = _Search(_LINE, _LINE_WORD, which)
    trainer = _Search(_TRAINER, _TRAINER_WORD, which)
    window, base = b"", 0
    while not line.done:
        data = file.read(WINDOW)
        window += data
        for one in (line, trainer):
            one.look(window, base, last=not data)
        if not data:
            break
        base += max(len(window) - REACH, 0)
        window = window[-REACH:]
    if line.found:
        return Performance(_text(line.found[1]), _text(line.found[2]))
    if trainer.found:
        return Performance(_text(trainer.found[1]), TRAINER_METRIC)
    return None


def _text(part: bytes) -> str:
    return part.decode("utf-8", "replace")
