"""data.json: data sets by name, and where each is with one provider or several, typed.

The order of providers is madengine's and fixed; the first that can be used on the nodes is taken, whatever
the order in the file. What the context says in ``data`` goes over the file, provider by provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .card import ModelCard
from .context import Context
from .context_parts import DataSource, data_source
from .errors import InputError, did_you_mean
from .place import read_json, without_comments
from .placeholders import refuse_placeholder
from .secrecy import url_password
from .wording import explain, kind_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

DATA_FILE = "data.json"
#: In the order in which they are tried.
PROVIDERS = ("custom", "local", "minio", "nas", "aws")
#: Data sets of one file, and of one model.
MOST_SETS, MOST_OF_MODEL = 10_000, 64
#: Characters of a data set's name, and of a path or of arguments.
LONGEST_NAME, LONGEST_TEXT = 200, 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A data set with one provider, and the key path that says so."""

    provider: str
    said: DataSource
    origin: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set with its sources, in the order of PROVIDERS."""

    name: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class DataBook:
    """All data sets that a run knows by name. ``missing``: the file that would have had them, "" for none."""

    sets: Mapping[str, DataSet] = field(default_factory=dict)
    file: str = DATA_FILE
    missing: str = ""

    def of_card(self, card: ModelCard) -> tuple[DataSet, ...]:
        """The data sets that a card names, in its order. Raises InputError for one that is not known."""
        names = [name for part in card.data.split(",") if (name := part.strip())]
        if len(names) > MOST_OF_MODEL:
            raise InputError(f"cannot run {card.where}: data: {MOST_OF_MODEL} data sets are the most")
        for number, name in enumerate(names):
            if name not in self.sets:
                raise InputError(f"cannot run {card.where}: data: {self._unknown(name)}")
            if name in names[:number]:
                raise InputError(f"cannot run {card.where}: data: {name!r} is named twice")
        return tuple(self.sets[name] for name in names)

    def _unknown(self, name: str) -> str:
        near = did_you_mean(name, self.sets)
        if self.missing:
            return (
                f"there is no data set {name!r}: {self.missing} does not exist; add it, or say "
                f"--data-config FILE{near}"
            )
        return f"there is no data set {name!r} in {self.file}{near}"


def load_data(path: Path, shown: str, context: Context, *, required: bool) -> DataBook:
    """The file, and the context over it. Raises InputError; a missing file is one when ``required``."""
    found: dict[str, dict[str, Source]] = {}
    missing = "" if required or path.exists() else shown
    if not missing:
        for name, sources in read_data(read_json(path, shown), shown).items():
            found[name] = {
                provider: Source(provider, said, f"{shown}: {name}.{provider}")
                for provider, said in sources.items()
            }
    for name, providers in context.data.items():
        _check_name(name, context.origin("data"))
        for provider, said in providers.items():
            origin = context.origin(f"data.{name}.{provider}")
            _check_texts(said, origin)
            found.setdefault(name, {})[provider] = Source(provider, said, origin)
    sets = {name: DataSet(name, tuple(_in_order(sources))) for name, sources in found.items()}
    return DataBook(sets, shown, missing)


def _in_order(sources: Mapping[str, Source]) -> Iterable[Source]:
    return (sources[provider] for provider in PROVIDERS if provider in sources)


def read_data(document: Any, source: str) -> dict[str, dict[str, DataSource]]:
    """The data sets of a parsed data.json. Raises InputError that names the key path."""
    from pydantic import ValidationError

    if not isinstance(document, dict):
        raise InputError(f"cannot read {source}: expected an object of data sets, found {kind_of(document)}")
    document = without_comments(document)
    if len(document) > MOST_SETS:
        raise InputError(f"cannot read {source}: {MOST_SETS} data sets are the most")
    for name, providers in document.items():
        _check_name(name, source)
        _check_providers(name, providers, source)
    try:
        checked = _schema().validate_python(document)
    except ValidationError as error:
        raise explain(source, error, _keys(document), {}, document) from error
    found = {
        name: {provider: data_source(entry) for provider, entry in providers.items()}
        for name, providers in checked.items()
    }
    for name, sources in found.items():
        for provider, said in sources.items():
            _check_texts(said, f"{source}: {name}.{provider}")
            refuse_placeholder(said.path, f"{source}: {name}.{provider}.path")
    return found


def _check_name(name: str, source: str) -> None:
    plain = name.strip() == name != "" and name.isprintable() and not name.startswith(".")
    if not plain or len(name) > LONGEST_NAME or "," in name or "/" in name:
        raise InputError(
            f"cannot read {source}: {name[:80]!r} is no name of a data set: expected up to {LONGEST_NAME} "
            "printable characters without comma and slash, and no dot or space in front"
        )


def _check_providers(name: str, providers: Any, source: str) -> None:
    if not isinstance(providers, dict):
        raise InputError(f"cannot read {source}: {name}: expected an object, found {kind_of(providers)}")
    if not providers:
        raise InputError(f"cannot read {source}: {name}: no provider is named; say {', '.join(PROVIDERS)}")
    for provider in providers:
        if provider not in PROVIDERS:
            raise InputError(
                f"cannot read {source}: {name}.{provider}: it is no provider; expected "
                f"{', '.join(PROVIDERS)}{did_you_mean(provider, PROVIDERS)}"
            )


def _check_texts(said: DataSource, origin: str) -> None:
    for key, text in (
        ("path", said.path),
        ("home", said.home),
        ("mirrorlocal", said.mirror),
        ("args", said.args),
    ):
        if len(text) > LONGEST_TEXT or not text.isprintable():
            raise InputError(
                f"cannot use {origin}.{key}: it is longer than {LONGEST_TEXT} characters, or holds "
                "others than printable ones"
            )
        if url_password(text):
            raise InputError(f"cannot use {origin}.{key}: it holds a password; put it into credential.json")


@cache
def _schema() -> TypeAdapter[dict[str, dict[str, Any]]]:
    from pydantic import TypeAdapter

    from .context_schema import DataEntry

    return TypeAdapter(dict[str, dict[str, DataEntry]])


def _keys(document: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    from .context_schema import DataEntry

    known = tuple(DataEntry.model_fields)
    return {(name, provider): known for name, providers in document.items() for provider in providers}
