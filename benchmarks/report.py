"""Several runs of a measurement as one document: medians, and how far apart the runs were."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def merge(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same document with the median of each figure; words and flags as in the first run."""
    return {key: _middle([sample[key] for sample in samples]) for key in samples[0]}


def _middle(values: list[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return merge(values)
    if isinstance(values[0], bool | str) or values[0] is None:
        return values[0]
    middle = statistics.median(values)
    return round(middle) if all(isinstance(value, int) for value in values) else round(middle, 3)


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Figures by dotted name."""
    out: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def document(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians, the spread [smallest, largest] of each figure that varied, and the load of the machine."""
    rows = [flat(sample) for sample in samples]
    spread = {
        name: [min(row[name] for row in rows), max(row[name] for row in rows)]
        for name, value in rows[0].items()
        if isinstance(value, float)
    }
    machine = {"cores": os.cpu_count(), "load_1m": round(os.getloadavg()[0], 2)}
    return {**merge(samples), "runs": len(samples), "spread": spread, "machine": machine}


def show(found: Mapping[str, Any], as_json: bool) -> None:
    """Print it: one JSON document, or a table."""
    if as_json:
        print(json.dumps(found))
        return
    spread = found["spread"]
    figures = {name: value for name, value in found.items() if name != "spread"}
    width = max(map(len, flat(figures)))
    for name, value in flat(figures).items():
        low_high = "  {:g} .. {:g}".format(*spread[name]) if name in spread and found["runs"] > 1 else ""
        print(f"{name:{width}}  {value}{low_high}")
