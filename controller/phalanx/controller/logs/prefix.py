"""What ``--prefix`` may be: a mode, or a template with ``{node}``, ``{rank}`` and others of a line's source.

A template is looked at before a run begins: one that cannot be filled in would end who follows the run.
"""

from __future__ import annotations

import re
import string

from phalanx.controller.logs.clean import clean_text
from phalanx.controller.logs.sources import Source
from phalanx.controller.workflow.errors import did_you_mean

MODES = ("auto", "host", "rank", "both", "none")
FIELDS = ("node", "rank", "lrank", "case", "step", "stream")
#: A width of more digits fills the screen, and memory, with nothing.
_WIDE = re.compile(r"[0-9]{4}")
#: Ranks of the smallest and of a large run; -1 is what belongs to a node.
_RANKS = (-1, 0, 1_000_000)


def is_template(prefix: str) -> bool:
    """Whether it has fields, or means to."""
    return "{" in prefix or "}" in prefix


def filled(template: str, source: Source, local: int) -> str:
    """A template with the values of a source; ``local`` is its rank on the node."""
    stream = "stderr" if source.output == "err" else "stdout"
    values = (clean_text(source.node), source.rank, local, source.case, source.step, stream)
    return template.format_map(dict(zip(FIELDS, values, strict=True)))


def prefix_error(prefix: str) -> str:
    """Why it cannot be used, "" when it can."""
    if prefix in MODES:
        return ""
    if not is_template(prefix):
        return f"expected {', '.join(MODES)} or a text with {_known()}{did_you_mean(prefix, MODES)}"
    try:
        parts = list(string.Formatter().parse(prefix))
    except ValueError:
        return "its braces do not match; a brace that is no field is written twice"
    for _, field, form, _ in parts:
        if field is None:
            continue
        if field not in FIELDS:
            return f"{field!r} is no field of a line; expected {_known()}{did_you_mean(field, FIELDS)}"
        if "{" in (form or "") or _WIDE.search(form or ""):
            return f"{form!r} is no format of {field}: a width has up to three digits"
    try:
        for rank in _RANKS:
            filled(prefix, Source("", "node", "case", "main", rank, "out"), rank)
    except (ValueError, OverflowError) as error:
        return f"it cannot be filled in ({error}); a field alone, such as {{rank}}, always can"
    return ""


def _known() -> str:
    return ", ".join(f"{{{name}}}" for name in FIELDS)
