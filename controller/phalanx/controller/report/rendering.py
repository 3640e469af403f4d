"""Pages out of templates: escaped, self-contained, and unable to run or load anything that is not theirs.

Every value passes ``spelled`` and then jinja2's escaping, whatever the template says. A page carries a
Content-Security-Policy that allows the one script and the one style sheet in it by their hashes and nothing
else: no request, no inline handler, no form.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.controller.logs.clean import spelled
from phalanx.controller.nodesets import counted
from phalanx.controller.results.locking import replace_file
from phalanx.controller.runs.words import duration, number, plural, size
from phalanx.protocol.release import VERSION

from .drawing import axis, line, shares

if TYPE_CHECKING:
    from jinja2 import Environment

#: What is not shown of a cell is in its title; what is beyond that is in the file.
CELL_SHOWN, CELL_TITLE = 200, 4000
#: Rows that a browser lays out while it reads the page; it takes the rest in when they are asked for, by the
#: script or, without one, by the style sheet. Laid out at once, 10,000 rows kept Chromium busy for 17 s.
ROWS_AT_FIRST = 300
_CLASS = re.compile(r"[^a-z]+")


def render(template: str, **values: Any) -> bytes:
    """The bytes of a page."""
    page = _environment().get_template(template)
    return page.render(version=VERSION, **values).encode("utf-8", "backslashreplace")


def write_page(path: Path, content: bytes, *, private: bool) -> None:
    """Write a page by rename; ``private``: for its owner only, else as the umask has it. Raises OSError."""
    replace_file(path, content, 0o600 if private else 0o666, synced=False)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    found = Environment(
        loader=PackageLoader("phalanx.templates", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    found.globals |= {
        "style": Markup(style),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
        "policy": policy(style, script),
        "CELL_SHOWN": CELL_SHOWN,
        "CELL_TITLE": CELL_TITLE,
        "ROWS_AT_FIRST": ROWS_AT_FIRST,
    }
    found.filters |= {
        "axis": axis,
        "counted": counted,
        "duration": duration,
        "line": line,
        "number": number,
        "plural": plural,
        "size": size,
        "shares": shares,
        "signed": signed,
        "tone": tone,
        "value": value,
    }
    return found


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy of a page (CSP level 3, §2.3.1: hashes of the exact text of an element)."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return files("phalanx.templates").joinpath("report", name).read_text(encoding="utf-8")


def _plain(found: Any) -> Any:
    """Text from anywhere, without what would turn or hide it; markup of our own templates as it is."""
    return spelled(found) if type(found) is str else found


def signed(percent: float | None) -> str:
    """``+3.2 %``; "" for none. A real minus sign, and no digits that say nothing."""
    if percent is None:
        return ""
    if abs(percent) < 0.05:
        return "±0 %"
    size_of = abs(percent)
    digits = f"{size_of:.1f}" if size_of < 100 else f"{size_of:,.0f}".replace(",", " ")
    return f"{'+' if percent > 0 else '−'}{digits} %"


def value(found: float | None) -> str:
    """A number in about five digits, whole ones with all they have; "" for none."""
    if found is None:
        return ""
    return f"{found:.0f}" if 1e4 <= abs(found) < 1e15 else f"{found:.5g}"


def tone(status: str) -> str:
    """The class of a status: good, bad, warn, or plain for a word that is not known."""
    word = _CLASS.sub("", status.lower())
    if word in ("success", "succeeded", "passed", "ok"):
        return "good"
    if word in ("failure", "failed", "error", "lost"):
        return "bad"
    return "warn" if word in ("skipped", "cancelled", "notrun", "unknown") else "plain"
