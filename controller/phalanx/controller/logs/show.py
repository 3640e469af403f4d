"""How log lines look: prefixes, colours, timestamps, JSON lines, or the bytes as they are.

``node001: text`` for one rank per node (what dshbak and clubak read), ``node001/3: text`` for several,
nothing for a single source. The prefix is written after cleaning and after every line break that the payload
holds, so no line can pose as another's. Plain prefixing is done on blocks of bytes, never line by line.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from phalanx.controller.logs.clean import clean, clean_text, cut
from phalanx.controller.logs.prefix import filled, is_template
from phalanx.controller.logs.reader import Block, Times
from phalanx.controller.logs.sources import Source

#: Colours that are legible on dark and light ground; a node keeps its colour from run to run.
_COLOURS = (b"36", b"32", b"33", b"35", b"34", b"96", b"92", b"95")
_RESET = b"\x1b[0m"


@dataclass(frozen=True, slots=True)
class Look:
    """How lines are written. ``prefix``: host, rank, both, none or a template with {node} {rank} ...

    ``cases``: name the case as well, in front of what ``prefix`` names.
    """

    prefix: str = "both"
    tty: bool = False
    color: bool = False
    unicode: bool = True
    timestamps: bool = False
    width: int = 0
    cases: bool = False


Render = Callable[[Source, Block, Times], bytes]


class Shower:
    """Turns blocks of a source into what is written."""

    def __init__(self, look: Look, local: Callable[[Source], int]) -> None:
        self._look = look
        self._local = local
        self._prefixes: dict[Source, bytes] = {}

    def plain(self, source: Source, block: Block, times: Times) -> bytes:
        """Cleaned lines with their prefix."""
        if not block.begins:
            # The rest of a line whose beginning was shown and marked as cut.
            rest = block.data.partition(b"\n")[2]
            if not rest:
                return b""
            block = Block(block.offset + len(block.data) - len(rest), rest, begins=True)
        prefix = self._prefix(source)
        if not self._look.timestamps:
            return self._lines(prefix, block.data)
        return b"".join(self._lines(self._stamp(at) + prefix, part) for at, part in stamped(block, times))

    @staticmethod
    def _lines(prefix: bytes, data: bytes) -> bytes:
        data = cut(clean(data))
        if not data.endswith(b"\n"):
            data += b"\n"
        if not prefix:
            return data
        return prefix + data[:-1].replace(b"\n", b"\n" + prefix) + b"\n"

    @staticmethod
    def _stamp(at: float | None) -> bytes:
        return (rfc3339(at) if at is not None else "-").encode() + b" "

    def _prefix(self, source: Source) -> bytes:
        known = self._prefixes.get(source)
        if known is None:
            known = self._prefixes[source] = self._make_prefix(source)
        return known

    def _make_prefix(self, source: Source) -> bytes:
        tag = tag_of(self._look.prefix, source, self._local(source), cases=self._look.cases)
        if not tag:
            return b""
        if is_template(self._look.prefix):
            return tag.encode()
        if not self._look.tty:
            return f"{tag}: ".encode()
        bar = "│" if self._look.unicode else "|"
        mark = "!" if source.output == "err" else " "
        text = f"{tag:<{self._look.width}}".encode()
        if not self._look.color:
            return text + f" {mark}{bar} ".encode()
        colour = _COLOURS[zlib.crc32(source.node.encode()) % len(_COLOURS)]
        tail = f" \x1b[31m{mark}\x1b[0m{bar} " if source.output == "err" else f"  {bar} "
        return b"\x1b[" + colour + b"m" + text + _RESET + tail.encode()


def raw(source: Source, block: Block, times: Times) -> bytes:
    """The bytes as they were written."""
    return block.data


def json_lines(run_id: str, local: Callable[[Source], int]) -> Render:
    """One JSON object per line, attributed by where the bytes are stored and never by what they say."""

    def render(source: Source, block: Block, times: Times) -> bytes:
        out: list[bytes] = []
        offset = block.offset
        for line in block.data.splitlines(keepends=True) if b"\r" not in block.data else _split(block.data):
            at = times.at(offset)
            document = {
                "v": 1,
                "ts": None if at is None else rfc3339(at),
                "run": run_id,
                "node": source.node,
                "rank": source.rank if source.rank >= 0 else None,
                "lrank": local(source) if source.rank >= 0 else None,
                "case": source.case,
                "step": source.step,
                "stream": "stderr" if source.output == "err" else "stdout",
                "off": offset,
                "line": line.removesuffix(b"\n").decode("utf-8", "backslashreplace"),
                "partial": not line.endswith(b"\n"),
            }
            out.append(json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
            offset += len(line)
        return b"".join(out)

    return render


def _split(data: bytes) -> list[bytes]:
    """Lines by newline alone: a carriage return is part of its line."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def tag_of(prefix: str, source: Source, local: int, *, cases: bool = False) -> str:
    """The tag of a source under a prefix mode or template; "" for none. ``cases``: ``demo:node1/3``."""
    if is_template(prefix):
        return filled(prefix, source, local)
    node = clean_text(source.node)
    if cases and source.case:
        tag, case = tag_of(prefix, source, local), clean_text(source.case)
        return f"{case}:{tag}" if tag else case
    if prefix == "none":
        return ""
    if source.rank < 0 or prefix == "host":
        return node
    return str(source.rank) if prefix == "rank" else f"{node}/{local}"


def auto_prefix(ranks: Iterable[tuple[str, str, int]]) -> str:
    """none for a single source, host for one rank per node, both for more. ``ranks``: (case, node, rank)."""
    known = set(ranks)
    if len({(node, rank) for _, node, rank in known}) <= 1:
        return "none"
    return "host" if len({(case, node) for case, node, _ in known}) == len(known) else "both"


def stamped(block: Block, times: Times) -> list[tuple[float | None, bytes]]:
    """The block in parts that arrived together; a line belongs to the time of its first byte."""
    parts: list[tuple[float | None, bytes]] = []
    start, end = block.offset, block.offset + len(block.data)
    place = bisect_right(times.offsets, start)
    for boundary in times.offsets[place:]:
        if boundary >= end:
            break
        # The next line that begins at the boundary or later.
        found = block.data.find(b"\n", boundary - 1 - block.offset)
        stop = end if found < 0 else block.offset + found + 1
        if stop <= start:
            continue
        parts.append((times.at(start), block.data[start - block.offset : stop - block.offset]))
        start = stop
    if start < end:
        parts.append((times.at(start), block.data[start - block.offset :]))
    return parts


def rfc3339(at: float) -> str:
    """A wall-clock time in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
