"""A schema's complaints in words: ``cannot read models.json: [3].args: expected text, found a list``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InputError, did_you_mean
from .secrecy import ENVIRONMENTS, looks_secret

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

#: Complaints of one input that are shown; the rest are counted.
SHOWN = 5
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "mapping_type": "an object",
}
#: Names that pydantic puts into a location for the branch of a union; they are no keys of the user.
_BRANCHES = {"str", "int", "float", "bool"}
KeyPath = tuple[int | str, ...]
Value = TypeVar("Value")


def below(values: Mapping[str, Value], stem: str) -> dict[str, Value]:
    """Of values by key path those below one, by what follows it."""
    return {
        path.removeprefix(f"{stem}."): value for path, value in values.items() if path.startswith(f"{stem}.")
    }


def key_path(location: Sequence[int | str]) -> str:
    """``(3, "slurm", "nodes")`` as ``[3].slurm.nodes``."""
    words = ""
    for part in location:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def kind_of(value: object) -> str:
    """What a value is, as JSON calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"text {value[:40]!r}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an object" if isinstance(value, dict) else type(value).__name__


def explain(
    source: str,
    error: ValidationError,
    keys: Mapping[tuple[str, ...], Sequence[str]],
    hints: Mapping[str, str],
    document: Any = None,
) -> InputError:
    """The InputError for a failed validation.

    ``keys``: the keys that are known at a place (list indexes left out). ``hints``: for a top-level key that
    belongs elsewhere, where. ``document``: what was validated; with it, keys of any name are told from the
    names that pydantic puts into a location.
    """
    grouped: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        grouped.setdefault(place_of(detail, document), []).append(detail)
    words = [_complaint(place, details, keys, hints) for place, details in grouped.items()]
    more = f" (and {len(words) - SHOWN} more)" if len(words) > SHOWN else ""
    return InputError(f"cannot read {source}: " + "; ".join(words[:SHOWN]) + more)


def place_of(detail: ErrorDetails, document: Any = None) -> KeyPath:
    """Where in the document a complaint belongs."""
    place: list[int | str] = []
    here = document
    for part in detail["loc"]:
        known = part in here if isinstance(here, dict) else isinstance(here, list) and isinstance(part, int)
        if known:
            here = here[part]
        elif _is_branch(part) or (document is not None and detail["type"] != "missing"):
            continue
        place.append(part)
    return tuple(place)


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part in _BRANCHES or "[" in part)


def _complaint(
    place: KeyPath,
    details: Sequence[ErrorDetails],
    keys: Mapping[tuple[str, ...], Sequence[str]],
    hints: Mapping[str, str],
) -> str:
    # Of a key that may not be there, its value is of no interest.
    details = [detail for detail in details if detail["loc"][-1:] == ("[key]",)] or details
    first = details[0]
    where = key_path(place) or "the whole"
    if first["type"] == "extra_forbidden":
        return unknown_key(place, keys, hints)
    if first["type"] == "missing":
        return f"{where}: it is required and missing"
    expected = list(dict.fromkeys(_expected(detail) for detail in details))
    if all(expected):
        return f"{where}: expected {' or '.join(expected)}, found {_found(place, first)}"
    said = next(detail for detail in details if not _expected(detail))
    reason = said["msg"].removeprefix("Value error, ")
    return f"{where}: {reason[:1].lower()}{reason[1:]}, found {_found(place, said)}"


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error":
        return str(detail["ctx"]["expected"]).removeprefix("'', ")
    return _EXPECTED.get(detail["type"], "")


def _found(place: KeyPath, detail: ErrorDetails) -> str:
    """What was found; of a text that may be or hold a secret, only that it is one."""
    may_be_secret = any(part in ENVIRONMENTS or looks_secret(str(part)) for part in place)
    if isinstance(detail["input"], str) and may_be_secret:
        return "text"
    return kind_of(detail["input"])


def unknown_key(
    place: KeyPath, keys: Mapping[tuple[str, ...], Sequence[str]], hints: Mapping[str, str]
) -> str:
    """``slurm.partitoin: it is not a known key; did you mean 'partition'?``"""
    where, name = key_path(place), str(place[-1])
    if len(place) == 1 and name in hints:
        return f"{where}: it is not a key of the top level; {hints[name]}"
    parent = tuple(part for part in place[:-1] if isinstance(part, str))
    return f"{where}: it is not a known key{did_you_mean(name, keys.get(parent, ()))}"
