"""Errors in logs: a case whose ranks ended well and whose logs say ``RuntimeError:`` is no success.

The lists are madengine's, literal and looked for line by line; texts that are no errors take whole lines out.
One thing differs: a count of nothing in front (``0 FAILED``, as test programs end) is no ``FAILED``.

Logs are huge and mostly clean, so nothing is done line by line before there is a reason. Blocks of lines are
searched for a few anchors, texts that several patterns have in common (``Error`` stands for six of the usual
thirteen), each at the speed of ``bytes.find``: more than twice that of one compiled alternation, measured.
Only a line that has an anchor is looked at. A line of any length is read in pieces of ``LINE_LIMIT``, each
judged as a line; a text that lies across two of them is found, one that makes it harmless may be missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..logs.clean import clean_text
from ..runs.words import clip

#: What makes a line an error, as in madengine 2.1.
ERRORS = (
    "OutOfMemoryError", "HIP out of memory", "CUDA out of memory", "RuntimeError:", "AssertionError:",
    "ValueError:", "SystemExit", "failed (exitcode:", "Traceback (most recent call last)", "FAILED",
    "Exception:", "ImportError:", "ModuleNotFoundError:",
)  # fmt: skip
#: What makes a line none, as in madengine 2.1; the last two are its own words about this very search.
HARMLESS = (
    "Failed to establish connection to the metrics exporter agent",
    "RpcError: Running out of retries to initialize the metrics agent",
    "Metrics will not be exported", "FutureWarning", "Opened result file:", "SQLite3 generation ::",
    "rocpd_op:", "rpd_tracer:", "grep -q", "Found error pattern",
)  # fmt: skip
_HARMLESS_FORMS = re.compile(
    rb"^E[0-9]{8}.*generateRocpd\.cpp|^W[0-9]{8}.*simple_timer\.cpp|^W[0-9]{8}.*generateRocpd\.cpp"
    rb"|^E[0-9]{8}.*tool\.cpp|\[rocprofv3\]"
)
_FAILED = b"FAILED"
#: ``0 FAILED``, but neither ``10 FAILED`` nor ``1.0 FAILED`` nor ``1,0 FAILED``.
_NONE_FAILED = re.compile(rb"(?<![\w.])(?<!\d,)0 FAILED")
#: Bytes read at once, and the longest line that is judged as one.
WINDOW, LINE_LIMIT = 256 * 1024, 1024 * 1024
#: Characters of the line that are told, of which so many may stand before the error.
SHOWN, BEFORE = 200, 80
#: Shortest text that stands for several patterns: shorter ones are found everywhere.
_SHORTEST_ANCHOR = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """What is looked for. ``anchors``: every line that has a pattern has one of them."""

    patterns: tuple[bytes, ...]
    harmless: tuple[bytes, ...]
    anchors: tuple[bytes, ...]

    def error_in(self, line: bytes, seen: int) -> int:
        """Where an error that ends beyond ``seen`` begins in a line, -1 for none."""
        at = min((at for one in self.patterns if (at := self._place(one, line, seen)) >= 0), default=-1)
        if at < 0 or any(text in line for text in self.harmless) or _HARMLESS_FORMS.search(line):
            return -1
        return at

    @staticmethod
    def _place(pattern: bytes, line: bytes, seen: int) -> int:
        if pattern not in line:
            return -1
        if pattern == _FAILED:
            line = _NONE_FAILED.sub(b"0 passed", line)  # as long, so that places stay what they are
        return line.find(pattern, max(seen - len(pattern) + 1, 0))


@dataclass(frozen=True, slots=True)
class LogError:
    """The first error of a log. ``line``: its number from 1; ``text``: cleaned and cut, for people."""

    line: int
    text: str


def rules_of(patterns: Sequence[str] = (), harmless: Sequence[str] = ()) -> Rules:
    """The rules for these patterns (none: the usual ones) and these harmless texts beside the usual ones."""
    wanted = tuple(dict.fromkeys(text.encode() for text in patterns or ERRORS))
    spared = tuple(dict.fromkeys(text.encode() for text in (*HARMLESS, *harmless)))
    return Rules(wanted, spared, anchors_of(wanted))


def first_error(path: Path, rules: Rules) -> LogError | None:
    """The first error in a log, None when there is none or no such file. Raises OSError for others."""
    try:
        with path.open("rb", buffering=0) as file:
            found = _search(file, rules)
            return None if found is None else LogError(_lines_before(path, found[0]) + 1, found[1])
    except FileNotFoundError:
        return None


def anchors_of(patterns: Sequence[bytes]) -> tuple[bytes, ...]:
    """Few texts, one of which is in each pattern: what most patterns share first, as long as it can be."""
    left, found = list(patterns), []
    while left:
        counts: dict[bytes, int] = {}
        for pattern in left:
            for part in {pattern[at : at + _SHORTEST_ANCHOR] for at in range(_last_start(pattern) + 1)}:
                counts[part] = counts.get(part, 0) + 1
        best = max(counts, key=lambda part: (counts[part], part))
        sharing = [pattern for pattern in left if best in pattern]
        found.append(_longest_around(best, sharing))
        left = [pattern for pattern in left if best not in pattern]
    return tuple(found)


def _last_start(pattern: bytes) -> int:
    return max(len(pattern) - _SHORTEST_ANCHOR, 0)


def _longest_around(part: bytes, patterns: Sequence[bytes]) -> bytes:
    """The longest text around ``part`` that is in all of these patterns."""
    first = patterns[0]
    begin = first.index(part)
    end = begin + len(part)
    while end < len(first) and all(first[begin : end + 1] in one for one in patterns):
        end += 1
    while begin and all(first[begin - 1 : end] in one for one in patterns):
        begin -= 1
    return first[begin:end]


def _search(file: BinaryIO, rules: Rules) -> tuple[int, str] | None:
    """The offset and the words of the first error."""
    overlap = max(map(len, rules.patterns)) - 1
    for offset, block, seen in _blocks(file, overlap):
        for start, end in _candidates(block, rules.anchors):
            at = rules.error_in(block[start:end], seen if start == 0 else 0)
            if at >= 0:
                return offset + start, _words(block[start:end], at)
    return None


def _blocks(file: BinaryIO, overlap: int) -> Iterator[tuple[int, bytes, int]]:
    """Offset and bytes of whole lines, and how many of the first bytes were looked at before.

    A line beyond ``LINE_LIMIT`` comes in pieces, each with the last ``overlap`` bytes of the one before.
    """
    offset, rest, seen = 0, b"", 0
    while data := file.read(WINDOW):
        block = rest + data
        end = block.rfind(b"\n") + 1
        if end:
            yield offset, block[:end], seen
            offset, rest, seen = offset + end, block[end:], 0
        elif len(block) >= LINE_LIMIT:
            yield offset, block, seen
            seen = min(overlap, len(block))
            offset, rest = offset + len(block) - seen, block[len(block) - seen :]
        else:
            rest = block
    if len(rest) > seen:
        yield offset, rest, seen


def _candidates(block: bytes, anchors: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """The lines of a block that have an anchor, in order, each once."""
    places = {anchor: at for anchor in anchors if (at := block.find(anchor)) >= 0}
    while places:
        at = min(places.values())
        start, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
        end = len(block) if end < 0 else end
        yield start, end
        for anchor in [anchor for anchor, place in places.items() if place < end]:
            later = block.find(anchor, end)
            if later < 0:
                del places[anchor]
            else:
                places[anchor] = later


def _words(line: bytes, at: int) -> str:
    """The line for people; of a long one the part around the error."""
    begin = 0 if at < SHOWN - BEFORE else at - BEFORE
    text = clean_text(line[begin : begin + 4 * SHOWN].decode("utf-8", "backslashreplace"))
    return ("…" if begin else "") + clip(text, SHOWN)


def _lines_before(path: Path, offset: int) -> int:
    """Line breaks before an offset: counted only once there is an error to tell of."""
    count = 0
    with path.open("rb", buffering=0) as file:
        while offset > 0 and (data := file.read(min(WINDOW, offset))):
            count += data.count(b"\n")
            offset -= len(data)
    return count
