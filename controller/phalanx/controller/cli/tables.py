"""Plain tables: columns as wide as their widest cell, nothing drawn, so that awk and eyes both read them."""

from __future__ import annotations

from collections.abc import Sequence

from phalanx.controller.logs.clean import clean_text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. Cells are cleaned: names and words may come from anywhere."""
    cells = [tuple(head), *(tuple(clean_text(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
