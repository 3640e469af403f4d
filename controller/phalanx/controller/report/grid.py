"""A table of results laid out for people: what they look for first, and nothing twice. Pure.

madengine's rows have 29 columns, most of them empty or the same everywhere. What is the same in all rows is
said once beside the table, what is empty is named, and what is left stands in the order of its use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from phalanx.controller.results.summary import Summary, number

#: Rows that a page shows, the latest; beyond this a browser takes seconds and a person looks into the file.
MOST_ROWS = 20_000
#: Columns that come first, and stay in the table even when all rows have the same.
FIRST = ("model", "status", "performance", "metric")
_SECOND = (
    "reason", "nnodes", "gpus_per_node", "n_gpus", "gpu_architecture", "launcher", "training_precision",
    "args", "test_duration",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grid:
    """Columns and rows to show. ``numeric``: columns whose cells are numbers. ``same``: what all rows have.

    ``places``: of each row, its place in the table from 1. ``left_out``: rows before those shown.
    ``statuses``: how many of the rows shown have each status, the most frequent first.
    ``more_columns``: beyond those that were to be shown.
    """

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    places: tuple[int, ...]
    same: tuple[tuple[str, str], ...]
    empty: tuple[str, ...]
    left_out: int
    statuses: tuple[tuple[str, int], ...]
    more_columns: tuple[str, ...] = ()

    @property
    def status_column(self) -> int:
        """The place of the column ``status``, -1 without one."""
        return self.columns.index("status") if "status" in self.columns else -1


def grid(summary: Summary, most: int = MOST_ROWS, most_columns: int | None = None) -> Grid:
    """Lay out a table; ``most``: rows to show, ``most_columns``: columns, None for all."""
    rows = summary.rows[-most:]
    first_place = len(summary.rows) - len(rows) + 1
    varied, same, empty = _sorted_out(summary.columns, rows)
    shown = varied[:most_columns]
    names = tuple(summary.columns[place] for place in shown)
    cells = tuple(tuple([row[place] for place in shown]) for row in rows)
    return Grid(
        columns=names,
        numeric=tuple(_numeric([row[place] for row in rows]) for place in shown),
        rows=cells,
        places=tuple(range(first_place, first_place + len(rows))),
        same=same,
        empty=empty,
        left_out=len(summary.rows) - len(rows),
        statuses=statuses_of(names, cells),
        more_columns=tuple(summary.columns[place] for place in varied[len(shown) :]),
    )


def _sorted_out(
    columns: Sequence[str], rows: Sequence[tuple[str, ...]]
) -> tuple[list[int], tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Places of the columns to show, in order; what all rows have; columns without a value."""
    varied: list[int] = []
    same: list[tuple[str, str]] = []
    empty: list[str] = []
    for place, name in enumerate(columns):
        found = {row[place] for row in rows}
        if not found or found == {""}:
            empty.append(name)
        elif len(found) == 1 and name not in FIRST and len(columns) > len(FIRST):
            same.append((name, rows[0][place]))
        else:
            varied.append(place)
    order = {name: place for place, name in enumerate((*FIRST, *_SECOND))}
    varied.sort(key=lambda place: order.get(columns[place], len(order)))
    return varied, tuple(same), tuple(empty)


def _numeric(cells: Sequence[str]) -> bool:
    return any(cells) and all(number(cell) is not None for cell in cells if cell)


def statuses_of(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, int], ...]:
    """How many rows have each status, the most frequent first; those without one are not counted."""
    if "status" not in columns:
        return ()
    place = columns.index("status")
    return tuple(Counter(row[place] for row in rows if row[place]).most_common())
