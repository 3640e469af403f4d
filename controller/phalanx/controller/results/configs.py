"""The configuration that a model was run with: the file that its arguments name with ``--config``.

It goes into perf_super.json beside the values that it led to. A CSV is a list with an object for each row,
JSON and YAML are as they are. The name is tried where madengine tries it: from the script's folder, from
``scripts`` and its ``MAD*`` folders, from the project, then upwards from the script; never outside of it.
What is read is bounded, also by what aliases of YAML make of little text, and strict JSON afterwards.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ..workflow.secrecy import looks_secret
from .table import TableError, parse_table

#: Bytes of a file, values that it may hold, and how deep they may be nested.
FILE_LIMIT, VALUE_LIMIT, DEEPEST = 256 * 1024, 20_000, 32
#: Whole numbers beyond those of other programs that read the same JSON.
LARGEST = 2**63
#: Below the project, where madengine keeps scripts.
SCRIPTS = ("scripts", "scripts/MAD", "scripts/MAD-private", "scripts/MAD-internal")
#: Columns of results that are outcomes: a configuration is not chosen by them.
_OUTCOMES = frozenset({"performance", "metric", "status"})
MASK = "***"


class ConfigError(Exception):
    """The file is not read. The message says why, without its name."""


@dataclass(frozen=True, slots=True)
class Config:
    """What a file holds; ``table``: it has rows, of which each result gets those that fit it."""

    value: Any = None
    table: bool = False

    def of(self, row: Mapping[str, str]) -> Any:
        """What belongs to a row of results.

        Of a table the rows that agree with it in every column that both have: one as an object, several as a
        list, null for none. A table that shares no column with the results is whole.
        """
        if not self.table or not self.value:
            return self.value
        shared = [name for name in self.value[0] if name in row and name not in _OUTCOMES]
        if not shared:
            return self.value
        fitting = [one for one in self.value if all(_equal(one[name], row[name]) for name in shared)]
        return fitting if len(fitting) > 1 else (fitting or [None])[0]


def read_config(said: str, script_folder: str, project: str) -> Config:
    """The file that ``--config`` names. Raises ConfigError."""
    path = _found(said, script_folder, project)
    data = _content(path)
    kind = path.suffix.lower()
    if kind == ".csv":
        try:
            rows = parse_table(data.decode("utf-8-sig", "replace")).rows
            return Config(_Plain().value(rows, 0), table=True)
        except TableError as error:
            raise ConfigError(str(error)) from error
    if kind not in (".json", ".yaml", ".yml"):
        raise ConfigError("it is neither .csv, .json, .yaml nor .yml")
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text) if kind == ".json" else _yaml(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is not readable as {kind[1:]}: {error}") from error
    return Config(_Plain().value(value, 0))


def places(said: str, script_folder: str, project: str) -> Iterator[Path]:
    """Where a name may be, in the order in which it is looked for."""
    script, root = Path(script_folder or project), Path(project)
    yield script / said
    for name in (*SCRIPTS, "."):
        yield root / name / said
    for folder in script.parents:
        if folder.is_relative_to(root):
            yield folder / said


def _found(said: str, script_folder: str, project: str) -> Path:
    if "\0" in said:
        raise ConfigError("its name holds a NUL")
    allowed = [Path(os.path.realpath(folder)) for folder in (project, script_folder) if folder]
    outside = False
    for place in places(said, script_folder, project):
        path = Path(os.path.realpath(place))
        if not path.is_file():
            continue
        if any(path.is_relative_to(folder) for folder in allowed):
            return path
        outside = True
    raise ConfigError("it is outside the project" if outside else "there is no such file in the project")


def _content(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError("it is no regular file")
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(os.strerror(error.errno or 0)) from error
    if len(data) > FILE_LIMIT:
        raise ConfigError(f"it is larger than {FILE_LIMIT // 1024} KiB")
    return data


def _yaml(text: str) -> Any:
    """Values only, no objects. Raises ValueError."""
    import yaml  # few runs need it

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Plain:
    """Values as strict JSON has them: no NaN, text as names, dates as text, and no secret."""

    def __init__(self) -> None:
        self._left = VALUE_LIMIT

    def value(self, value: Any, depth: int) -> Any:
        """Raises ConfigError for what is too much, or no value of JSON."""
        self._left -= 1
        if self._left < 0 or depth > DEEPEST:
            raise ConfigError(f"it has more than {VALUE_LIMIT} values, or is nested deeper than {DEEPEST}")
        if isinstance(value, dict):
            return {
                str(name): MASK if looks_secret(str(name)) and inner else self.value(inner, depth + 1)
                for name, inner in value.items()
            }
        if isinstance(value, list | tuple | set):
            return [self.value(inner, depth + 1) for inner in value]
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, date):
            return value.isoformat()
        if value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < LARGEST):
            return value
        raise ConfigError(f"it holds a {type(value).__name__} that is no value of JSON, or too large")


def _equal(one: str, other: str) -> bool:
    """As text, or as numbers: 8 and 8.0 are the same batch size."""
    if one.strip() == other.strip():
        return True
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def sized(values: Sequence[Any]) -> int:
    """Bytes that values take as JSON."""
    return sum(len(json.dumps(value)) for value in values)
