"""Numbers and names in the words of the screens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_MARKS = {
    "done": ("✓", "ok"),
    "failed": ("✗", "FAIL"),
    "active": ("▸", ">"),
    "warn": ("!", "!"),
    "waiting": ("·", "."),
}
_COLOURS = {"done": "32", "failed": "31", "active": "36", "warn": "33", "waiting": "2"}


@dataclass(frozen=True, slots=True)
class Style:
    """What the terminal can show. Colour and symbols never carry a meaning of their own."""

    color: bool = False
    unicode: bool = True
    width: int = 100

    def mark(self, name: str) -> str:
        """The sign of a state: done, failed, active, warn or waiting; in one style all are equally wide."""
        sign = _MARKS[name][0] if self.unicode else f"{_MARKS[name][1]:<4}"
        return self.paint(sign, _COLOURS[name])

    def paint(self, text: str, code: str) -> str:
        """``text`` in a colour (an SGR code), where colours are wanted."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    @property
    def dot(self) -> str:
        """Between two facts of a line."""
        return "·" if self.unicode else "-"

    @property
    def bar(self) -> str:
        """Left of quoted lines."""
        return "│" if self.unicode else "|"

    @property
    def dash(self) -> str:
        """Between a heading and its subject."""
        return "—" if self.unicode else "-"


def duration(seconds: float) -> str:
    """``0.6 s``, ``12 s``, ``4 m 02 s``, ``1 h 05 m``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"


def clock(seconds: float) -> str:
    """Elapsed time as ``00:06:41``."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def moment(at: float, millis: bool = False) -> str:
    """Local time of day."""
    local = datetime.fromtimestamp(at).astimezone()
    return local.strftime("%H:%M:%S") + (f".{local.microsecond // 1000:03d}" if millis else "")


def size(count: float) -> str:
    """Bytes in decimal units: ``18.4 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def number(count: int) -> str:
    """With thin groups of thousands: ``4 812``."""
    return f"{count:,}".replace(",", " ")


def plural(count: int, noun: str) -> str:
    """``1 rank``, ``1 023 ranks``."""
    return f"{number(count)} {noun}" + ("" if count == 1 else "s")


def short_image(image_id: str) -> str:
    """The first 12 digits of an image id."""
    return image_id.removeprefix("sha256:")[:12]


def clip(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns; colour codes count for nothing and stay balanced."""
    if width <= 0 or visible(text) <= width:
        return text
    out, used, place = [], 0, 0
    while place < len(text) and used < width - 1:
        if text[place] == "\x1b":
            end = text.find("m", place)
            out.append(text[place : end + 1])
            place = end + 1
            continue
        out.append(text[place])
        used, place = used + 1, place + 1
    return "".join(out) + "…" + ("\x1b[0m" if "\x1b" in text else "")


def visible(text: str) -> int:
    """Columns of ``text``, without its colour codes. Wide characters do not occur in our own words."""
    if "\x1b" not in text:
        return len(text)
    count, place = 0, 0
    while place < len(text):
        if text[place] == "\x1b":
            place = text.find("m", place) + 1
            continue
        count, place = count + 1, place + 1
    return count
