"""A comparison as aligned text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from phalanx.controller.listing import listed
from phalanx.controller.logs.clean import clean_text
from phalanx.controller.results.compare import Compared, Difference
from phalanx.controller.runs.words import clip

from .rendering import signed
from .sides import Side

#: The widest cell: a long name or argument must not push the numbers off the screen.
WIDEST = 40
#: Models that are named in a line; more are counted.
MODELS = 4
#: Differences of one column that are listed; more are counted.
DIFFERENCES = 3
#: Letters that are kept of a common beginning.
_KEPT = 8


def lines(sides: Sequence[Side], found: Compared) -> Iterator[str]:
    """The comparison, most telling part last: configuration, models, statuses, then the values."""
    for side in sides:
        rows = f"{side.rows} row{'' if side.rows == 1 else 's'}"
        yield f"{side.letter}  {clean_text(side.label)}   {rows}{', ' + side.note if side.note else ''}"
    letters = [side.letter for side in sides]
    yield from _section(("RUN DIFFERENTLY", *letters, "MODELS"), list(_configuration(found)))
    yield from _section(("NOT IN ALL", ""), list(_absent(found, letters)))
    yield from _section(
        ("ENDED DIFFERENTLY", *letters),
        [(one.model, *(word or "-" for word in one.statuses)) for one in found.statuses],
    )
    yield from _section(_head(letters), list(_values(found)), numbers_from=2)


def _head(letters: Sequence[str]) -> tuple[str, ...]:
    first, *others = letters
    return ("MODEL", "METRIC", first, *(word for letter in others for word in (letter, f"{letter}/{first}")))


def _values(found: Compared) -> Iterator[tuple[str, ...]]:
    for one in found.metrics:
        texts = [value.text or "-" if value is not None else "-" for value in one.values]
        pairs = [(text, signed(moved)) for text, moved in zip(texts, one.changes, strict=True)]
        yield (one.model, one.metric, texts[0], *(word for pair in pairs[1:] for word in pair))


def _absent(found: Compared, letters: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Models that are not everywhere, with the letters of where they are and are not."""
    for model, places in found.missing:
        yield model, f"in {letters[0]}, not in {', '.join(letters[place] for place in places)}"
    for model, places in found.added:
        yield model, f"in {', '.join(letters[place] for place in places)}, not in {letters[0]}"


def _configuration(found: Compared) -> Iterator[tuple[str, ...]]:
    """What differs, a few lines for each column."""
    by_column: dict[str, list[Difference]] = {}
    for one in found.configuration:
        by_column.setdefault(one.column, []).append(one)
    for column, differences in by_column.items():
        for one in differences[:DIFFERENCES]:
            yield (column, *telling(one.values), _models(one.models, found.models))
        if more := sum(len(one.models) for one in differences[DIFFERENCES:]):
            yield (column, *("…" for _ in range(found.tables)), f"{more} more, in the page and --json")


def telling(values: Sequence[str], room: int = 28) -> tuple[str, ...]:
    """Long values without what they all begin with, so that they can be told apart."""
    known = [value for value in values if value]
    same = len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*known, strict=False))))
    if len(known) < 2 or all(len(value) <= room for value in known) or same <= _KEPT:
        return tuple(values)
    return tuple(f"…{value[same - _KEPT :]}" if value else "" for value in values)


def _models(models: Sequence[str], everywhere: int) -> str:
    if len(models) == everywhere and everywhere > 1:
        return f"all {everywhere}"
    return listed(models, MODELS)


def _section(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int | None = None
) -> Iterator[str]:
    """A table after an empty line, columns of numbers to the right; nothing without rows."""
    if not rows:
        return
    cells = [tuple(head), *(tuple(clip(clean_text(cell), WIDEST) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    yield ""
    for row in cells:
        yield "  ".join(
            cell.rjust(width) if numbers_from is not None and place >= numbers_from else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
