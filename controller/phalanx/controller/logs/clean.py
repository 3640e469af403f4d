"""What a workload wrote, made safe for a terminal.

A log line may hold anything: sequences that clear the screen, set the clipboard, make the terminal type an
answer, or overwrite what stands before them. Files keep the bytes as they came; what is shown passes here.
Kept are tab, newline and everything printable. Escape sequences go as a whole, other control characters and
direction overrides by themselves, a lone carriage return becomes a line break (progress bars), and bytes that
are no UTF-8 are spelled out.
"""

from __future__ import annotations

import re

#: A line longer than this (bytes, after cleaning) is cut for display; the file has all of it.
LINE_LIMIT = 8192

#: C0 controls without tab and newline, and DEL.
_CONTROLS = bytes(code for code in range(32) if code not in (9, 10)) + b"\x7f"
_ESCAPES = re.compile(
    # CSI: parameters, intermediates, one final byte (ECMA-48 §5.4)
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    # OSC, DCS, SOS, PM, APC: a string up to BEL or ST; never over a line's end
    r"|(?:\x1b[]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    # any other escape sequence
    r"|\x1b[ -/]*[0-~]?"
)
_LONE_RETURN = re.compile(r"\r(?!\n)")
#: C0, DEL, C1 and what turns the direction of text: marks, embeddings, overrides, isolates.
_HOSTILE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_WRITTEN_OUT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)


def clean(block: bytes) -> bytes:
    """``block`` (whole lines, or the end of a stream) without anything that a terminal would act on."""
    if block.isascii() and len(block.translate(None, _CONTROLS)) == len(block):
        return block
    text = block.decode("utf-8", "backslashreplace")
    if _HOSTILE.search(text) is None:
        return text.encode()
    text = _ESCAPES.sub("", text)
    # A return at the very end belongs to a line break that has not come yet, or to nothing.
    text = _LONE_RETURN.sub("\n", text.removesuffix("\r"))
    return _HOSTILE.sub("", text).encode()


def clean_text(text: str) -> str:
    """One line of words from elsewhere (a node's name, an error) made safe; line breaks become spaces."""
    return clean(text.encode("utf-8", "backslashreplace")).decode().replace("\n", " ").strip()


def spelled(text: str) -> str:
    """``text`` with everything that ``clean`` would take away, and half characters, written out: ``\\x1b``.

    For pages, where a value has to be seen as it is and nothing in it may act or turn the direction of text.
    """
    return _WRITTEN_OUT.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def cut(block: bytes, limit: int = LINE_LIMIT) -> bytes:
    """``block`` with every line longer than ``limit`` bytes shortened and marked.

    Steps from line end to line end about ``limit`` bytes apart, so that ordinary blocks cost next to nothing.
    """
    pieces: list[bytes] = []
    start = kept = 0
    while len(block) - start > limit:
        end = block.rfind(b"\n", start, start + limit + 1)
        if end >= 0:
            start = end + 1
            continue
        stop = block.find(b"\n", start)
        ended = stop >= 0
        stop = stop if ended else len(block)
        edge = _boundary(block, start + limit)
        pieces += [block[kept:edge], (b" [+%d bytes]" if ended else b" [+%d bytes and more]") % (stop - edge)]
        start = kept = stop
    pieces.append(block[kept:])
    return b"".join(pieces)


def _boundary(block: bytes, position: int) -> int:
    """The last place up to ``position`` that does not split a UTF-8 character."""
    while position and block[position] & 0xC0 == 0x80:
        position -= 1
    return position
