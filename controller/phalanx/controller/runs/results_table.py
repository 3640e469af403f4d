"""The rows of a run as a table for people: what was measured, and what became of each model."""

from __future__ import annotations

from collections.abc import Iterator

from phalanx.controller.logs.clean import clean_text
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.words import clip

#: Rows that are shown; the rest is counted and is in perf.csv.
MOST_ROWS = 40
_HEADINGS = ("MODEL", "NODES", "PERFORMANCE", "METRIC", "STATUS", "TOOK")
#: Widest cell: a name of a model or a reason must not break the table.
_WIDEST = 48


def results_table(view: RunView) -> list[str]:
    """The table of a run that has something to show: several cases, or a value; else no line at all."""
    rows = list(_rows(view))
    if len(view.case_names) <= 1 and not any(row[2] for row in rows):
        return []
    cells = [_HEADINGS, *rows[:MOST_ROWS]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    lines = [
        "     " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    if len(rows) > MOST_ROWS:
        lines.append(f"     … {len(rows) - MOST_ROWS} more in perf.csv")
    return ["", *lines, ""]


def _rows(view: RunView) -> Iterator[tuple[str, ...]]:
    for name in view.case_names:
        case = view.case(name)
        if not case.rows:
            yield _cells(name, "", "", "", case.status or "not run", "")
        for row in case.rows:
            took = row.get("test_duration", "")
            yield _cells(
                row.get("model", name),
                row.get("nnodes", ""),
                row.get("performance", ""),
                row.get("metric", ""),
                row.get("status", ""),
                f"{took} s" if took else "",
            )


def _cells(*texts: str) -> tuple[str, ...]:
    return tuple(clip(clean_text(text), _WIDEST) for text in texts)
