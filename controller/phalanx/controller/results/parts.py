"""Which rows of a table are results of one model: what a failure of it ends.

A model with ``multiple_results`` has a row ``MODEL_NAME`` for each result, and one row ``MODEL`` without a
value when it fails. A table that grows would show the values from before for good.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from itertools import takewhile

from .table import has_value

#: What the rows of a card have in common; another card may well have a name that begins alike.
CARD = ("tags", "docker_file", "docker_image")


def is_failure(row: Mapping[str, str]) -> bool:
    """Whether a row says of a model that there is nothing to say."""
    return not has_value(row.get("metric", "")) and not has_value(row.get("performance", ""))


class Parts:
    """The names of the models in a table, row by row."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, ...], list[str]] = {}

    def add(self, row: Mapping[str, str]) -> list[str]:
        """Take a row. Returns the names of earlier rows that it ends: the results of a model that failed."""
        names = self._names.setdefault(tuple(row.get(name, "").strip() for name in CARD), [])
        model = row.get("model", "")
        place = bisect_left(names, model)
        if names[place : place + 1] != [model]:
            insort(names, model)
        return list(_beginning(names, f"{model}_")) if is_failure(row) else []


def _beginning(names: list[str], start: str) -> Iterator[str]:
    """Those of sorted names that begin like this."""
    after = (names[place] for place in range(bisect_left(names, start), len(names)))
    return takewhile(lambda name: name.startswith(start), after)
