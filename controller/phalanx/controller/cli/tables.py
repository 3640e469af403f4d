"""Plain tables: columns as wide as their widest cell, nothing drawn, so that awk and eyes both read them.

Where cells are what workloads wrote, one of them must not push the others off the screen: they are cut.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from phalanx.controller.logs.clean import clean_text
from phalanx.controller.runs.words import clip

#: Characters of a cell that a workload wrote.
WIDEST = 80


def table(head: Sequence[str], rows: Sequence[Sequence[str]], widest: int = sys.maxsize) -> list[str]:
    """The lines of a table. Cells are cleaned: names and words may come from anywhere.

    ``widest``: characters of a cell that are shown.
    """
    cells = [tuple(head), *(tuple(clip(clean_text(cell), widest) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
