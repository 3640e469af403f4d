"""What a row says of where its value is from: the commit, the data and the GPUs that the nodes report.

A case's own steps leave small files in the results folder of each node (``.phalanx/git_commit``,
``.phalanx/data.json``). A workload could write them as well, so they are checked like anything else of it.
Nodes should agree; where they do not, the lowest node rank counts and a note names the others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..fleet.hardware import architecture_of
from ..listing import listed

GIT_COMMIT, DATA = (".phalanx", "git_commit"), (".phalanx", "data.json")
#: SHA-1 or SHA-256, as git prints them.
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
DATA_COLUMNS = ("dataname", "data_provider_type", "data_size", "data_download_duration")
#: Bytes of such a file, and characters of one value.
FILE_LIMIT, VALUE_LIMIT = 64 * 1024, 256


@dataclass(frozen=True, slots=True)
class CollectedFile:
    """A file that came back from a node: ``path`` as it was offered, ``kept`` in the run directory."""

    node: str
    node_rank: int
    path: str
    kept: str


def columns_of(files: Sequence[CollectedFile], run_dir: Path) -> tuple[dict[str, str], list[str]]:
    """Columns that collected files fill, and notes on what could not be taken or differs."""
    found: dict[str, str] = {}
    notes: list[str] = []
    for name, read in ((GIT_COMMIT, _commit), (DATA, _data)):
        said: dict[str, dict[str, str]] = {}
        for file in sorted(files, key=lambda one: one.node_rank):
            if PurePosixPath(file.path).parts[-2:] == name:
                try:
                    said.setdefault(file.node, read(_content(run_dir / file.kept)))
                except ValueError as error:
                    notes.append(f"{file.node}: {'/'.join(name)} is not used: {error}")
        found |= next(iter(said.values()), {})
        notes += _differing("/".join(name), said)
    return found, notes


def architecture(facts: Mapping[str, Mapping[str, Any]], nodes: Iterable[str]) -> str:
    """The architecture of the GPUs of these nodes, ";" between several; "" when none says."""
    known = (architecture_of(gpu) for node in nodes for gpu in facts.get(node, {}).get("gpus", ()))
    return ";".join(dict.fromkeys(filter(None, known)))


def _differing(what: str, said: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Words for nodes that say something else than the first of them."""
    if not said:
        return []
    first, *others = said
    unlike = [node for node in others if said[node] != said[first]]
    if not unlike:
        return []
    return [f"{what} differs between nodes: that of {first} is kept, not that of {listed(unlike, 8)}"]


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ValueError(error.strerror) from error
    if len(data) > FILE_LIMIT:
        raise ValueError(f"it is larger than {FILE_LIMIT // 1024} KiB")
    return data.decode("utf-8", "replace")


def _commit(text: str) -> dict[str, str]:
    if not _COMMIT.fullmatch(text.strip()):
        raise ValueError("it is no commit of 40 or 64 hexadecimal digits")
    return {"git_commit": text.strip()}


def _data(text: str) -> dict[str, str]:
    try:
        document = json.loads(text, parse_constant=_refused)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    return {name: _value(name, document[name]) for name in DATA_COLUMNS if document.get(name) is not None}


def _value(name: str, value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number and not isinstance(value, str):
        raise ValueError(f"{name} is neither text nor a number")
    text = str(value)
    if len(text) > VALUE_LIMIT or not text.isprintable():
        raise ValueError(f"{name} is no printable text of at most {VALUE_LIMIT} characters")
    return text


def _refused(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no JSON")
