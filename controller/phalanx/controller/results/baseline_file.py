"""A baseline as a file: JSON that people read, compare and commit.

Unknown keys are errors with the nearest spelling: a tolerance under a misspelled key would be none.
Measurements stand in the order of their identities, so that two files of the same values are the same.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..runs.directory import write_private
from ..workflow.errors import InputError, did_you_mean
from ..workflow.place import is_regular, reading
from ..workflow.wording import explain
from .baseline import IDENTITY, Baseline, Identity
from .direction import Direction
from .state_home import baselines_directory
from .tolerance import in_words, tolerance

SCHEMA = 1
FILE_LIMIT = 16 * 1024 * 1024
MEASUREMENT_LIMIT = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _percentage(text: str) -> str:
    try:
        tolerance(text)
    except InputError as error:
        raise ValueError("expected a percentage such as 2%") from error
    return text


Text = Annotated[str, Field(max_length=4096)]
Percentage = Annotated[str, AfterValidator(_percentage)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class MadeInput(_Strict):
    """When a baseline was set, and from what."""

    at: Text = ""
    source: Text = Field("", alias="from")


class MeasurementInput(_Strict):
    """A value and what it is a value of."""

    model: Text = Field(min_length=1)
    metric: Text = ""
    nnodes: Text = ""
    n_gpus: Text = ""
    launcher: Text = ""
    gpu_architecture: Text = ""
    training_precision: Text = ""
    value: float


class BaselineInput(_Strict):
    """The whole file."""

    schema_: Literal[1] = Field(alias="schema")
    name: Text
    made: MadeInput = Field(default_factory=lambda: MadeInput.model_validate({}))
    tolerance: Percentage = "2%"
    tolerances: dict[str, Percentage] = Field(default_factory=dict)
    directions: dict[str, Literal["higher", "lower"]] = Field(default_factory=dict)
    measurements: list[MeasurementInput] = Field(max_length=MEASUREMENT_LIMIT)


_KEYS = {
    (): ("schema", "name", "made", "tolerance", "tolerances", "directions", "measurements"),
    ("made",): ("at", "from"),
    ("measurements",): (*IDENTITY, "value"),
}


def place_of(name: str, environ: Mapping[str, str]) -> Path:
    """Where a baseline is: below the state directory by its name; what has a / or ends in .json is a path.

    Raises InputError for a name that cannot be one.
    """
    if "/" in name or name.endswith(".json"):
        return Path(name).expanduser().absolute()
    if not _NAME.fullmatch(name):
        raise InputError(
            f"cannot use {name[:80]!r} as a baseline: expected a name of letters, digits, dots, dashes and "
            "underscores, or the path of a file"
        )
    return baselines_directory(environ) / f"{name}.json"


def name_of(name: str) -> str:
    """What a baseline is called whose name, or whose path, a user said."""
    return Path(name).name.removesuffix(".json")


def load(name: str, path: Path, environ: Mapping[str, str]) -> Baseline:
    """The baseline at a path. ``name``: as the user said it. Raises InputError."""
    try:
        with reading(path) as file:
            if not is_regular(file):
                raise InputError(f"cannot read baseline {path}: it is not a regular file")
            content = file.read(FILE_LIMIT + 1)
    except FileNotFoundError as error:
        hint = did_you_mean(name, (known for known, _ in known_baselines(environ)))
        raise InputError(
            f"cannot find baseline {name!r}: there is no {path}{hint}; "
            f"make one with: phalanx baseline set {name}"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read baseline {path}: {error.strerror}") from error
    if len(content) > FILE_LIMIT:
        raise InputError(f"cannot read baseline {path}: it is larger than {FILE_LIMIT // 1024 // 1024} MiB")
    return from_json(content, str(path))


def from_json(content: bytes, source: str) -> Baseline:
    """A baseline from the content of its file; ``source`` names it in errors. Raises InputError."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read baseline {source}: it is no JSON: {error}") from error
    found = document.get("schema") if isinstance(document, dict) else None
    if type(found) is int and found > SCHEMA:
        raise InputError(
            f"cannot read baseline {source}: it was written by a newer phalanx (schema {found}; this one "
            f"knows {SCHEMA})"
        )
    try:
        given = BaselineInput.model_validate(document)
    except ValidationError as error:
        raise explain(f"baseline {source}", error, _KEYS, {}, document) from error
    return _baseline(given, source)


def _baseline(given: BaselineInput, source: str) -> Baseline:
    values: dict[Identity, float] = {}
    for number, one in enumerate(given.measurements):
        identity = Identity(*(getattr(one, name) for name in IDENTITY))
        if identity in values:
            raise InputError(
                f"cannot read baseline {source}: measurements[{number}]: {one.model} {one.metric} "
                "is there twice"
            )
        values[identity] = one.value
    return Baseline(
        given.name,
        values,
        tolerance(given.tolerance),
        {metric: tolerance(text) for metric, text in given.tolerances.items()},
        {metric: Direction(word) for metric, word in given.directions.items()},
        given.made.at,
        given.made.source,
    )


def to_document(baseline: Baseline) -> dict[str, Any]:
    """A baseline as its file has it."""

    def sorted_words(words: Mapping[str, Fraction]) -> dict[str, str]:
        return {metric: in_words(words[metric]) for metric in sorted(words)}

    return {
        "schema": SCHEMA,
        "name": baseline.name,
        "made": {"at": baseline.made_at, "from": baseline.made_from},
        "tolerance": in_words(baseline.tolerance),
        "tolerances": sorted_words(baseline.tolerances),
        "directions": {metric: baseline.directions[metric].value for metric in sorted(baseline.directions)},
        "measurements": [{**asdict(one), "value": baseline.values[one]} for one in sorted(baseline.values)],
    }


def save(baseline: Baseline, path: Path) -> None:
    """Write a baseline, whole or not at all. Raises InputError."""
    text = json.dumps(to_document(baseline), indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else None
        write_private(path, text.encode("utf-8", "replace"))
        if mode is not None:
            path.chmod(mode)  # one that is in a repository stays as others may read it
    except OSError as error:
        raise InputError(f"cannot write baseline {path}: {error.strerror}") from error


def known_baselines(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Names and files below the state directory, by name."""
    with suppress(OSError):
        for entry in sorted(os.scandir(baselines_directory(environ)), key=lambda entry: entry.name):
            name = entry.name.removesuffix(".json")
            if entry.name != name and _NAME.fullmatch(name):
                yield name, Path(entry.path)
