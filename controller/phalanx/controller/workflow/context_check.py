"""A context against its schema: complaints name the source and the key path, warnings what is idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from .context_schema import (
    UNUSED,
    UNUSED_SLURM,
    ContextInput,
    Slurm,
    hints,
    known_keys,
)
from .wording import KeyPath, explain, place_of, unknown_key


def check(source: str, values: dict[str, Any]) -> None:
    """Raises InputError for values of one source that the schema does not take."""
    try:
        ContextInput.model_validate(values)
    except ValidationError as error:
        raise explain(source, error, known_keys(), hints(), values) from error


def known_only(source: str, values: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """The values of one source without its unknown keys, each with a warning; the others are not judged."""
    try:
        ContextInput.model_validate(values)
    except ValidationError as error:
        for place in _unknown(error, values):
            warnings.append(f"{source}: {unknown_key(place, known_keys(), hints())}; it is not used")
            values = _without(values, place)
    return values


def validated(values: Mapping[str, Any]) -> ContextInput:
    """Values that were checked source by source, typed."""
    return ContextInput.model_validate(values)


def unused(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """Keys that are accepted and do nothing here, by source; one that asks for nothing is no news."""
    found: dict[str, list[str]] = {}
    for key, value in values.items():
        if key == "slurm":
            for part in _asking(Slurm, value or {}, UNUSED_SLURM):
                path = f"slurm.{part}"
                found.setdefault(origins.get(path, origins[key]), []).append(path)
        elif _asking(ContextInput, {key: value}, UNUSED):
            found.setdefault(origins[key], []).append(key)
    return [f"{source}: this version does not act on {', '.join(paths)}" for source, paths in found.items()]


def _asking(model: type[BaseModel], values: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Those of ``names`` that have another value than the one they have when they are not said."""
    return [
        name
        for name, value in values.items()
        if name in names and value != model.model_fields[name].get_default(call_default_factory=True)
    ]


def _unknown(error: ValidationError, values: dict[str, Any]) -> list[KeyPath]:
    details = error.errors(include_url=False)
    return [place_of(detail, values) for detail in details if detail["type"] == "extra_forbidden"]


def _without(value: Any, place: KeyPath) -> Any:
    """A copy without the key at a place."""
    first, rest = place[0], place[1:]
    if isinstance(value, list):
        return [_without(part, rest) if index == first else part for index, part in enumerate(value)]
    if not rest:
        return {key: part for key, part in value.items() if key != first}
    return {key: _without(part, rest) if key == first else part for key, part in value.items()}
