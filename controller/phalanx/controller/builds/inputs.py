"""Everything that a BuildPlan is made from, as one typed value; and what of it lies in files.

Strings are as the user wrote them; ``make`` checks them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..workflow.card import ModelCard
from ..workflow.context import Context
from ..workflow.errors import InputError, did_you_mean
from ..workflow.models import project_folder
from ..workflow.place import read_json, read_text
from ..workflow.wording import kind_of
from .credentials import CredentialBook, read_credentials
from .dockerfiles import TOOLS_FOLDER, Dockerfile, candidates, checked_prefix, files_of, read_dockerfile

CTX_TEST = "ctx_test"
#: Which package manager says which host, the first that is there (madengine's names).
HOSTS = (("apt", "HOST_UBUNTU"), ("yum", "HOST_CENTOS"), ("zypper", "HOST_SLES"), ("tdnf", "HOST_AZURE"))
_BATCH_KEYS = ("model_name", "build_new", "registry_image", "registry")


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """A line of a batch manifest: a model, whether it is built anew, else which image it has."""

    model: str
    build_new: bool = False
    registry_image: str = ""
    registry: str = ""


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """Inputs of ``phalanx build``. ``cards``: the models to build, ``others``: those of a batch that are not.
    ``dockerfiles``: the candidates of each card's prefix. ``facts``: what of this machine a CONTEXT
    line may ask for. ``use_image``: "" for no.
    """

    project: str
    cwd: str
    cards: tuple[ModelCard, ...]
    dockerfiles: Mapping[str, tuple[Dockerfile, ...]]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    context: Context = field(default_factory=Context)
    environ: Mapping[str, str] = field(default_factory=dict)
    credentials: CredentialBook = field(default_factory=CredentialBook)
    facts: Mapping[str, str] = field(default_factory=dict)
    has_tools: bool = False
    archs: tuple[str, ...] = ()
    registry: str = ""
    batch: tuple[BatchEntry, ...] = ()
    others: tuple[ModelCard, ...] = ()
    use_image: str = ""
    on_compute: bool = False
    fresh: bool = False
    at_once: int = 2
    manifest: str = "build_manifest.json"
    notes: tuple[str, ...] = ()


def gathered_build(
    cards: Sequence[ModelCard],
    context: Context,
    environ: Mapping[str, str],
    *,
    others: Sequence[ModelCard] = (),
    **more: Any,
) -> BuildInputs:
    """The inputs of a build of these cards, with what the project's files say. Raises InputError."""
    project = project_folder(environ).absolute()
    dockerfiles, unreadable = read_dockerfiles(project, () if more.get("use_image") else (*cards, *others))
    return BuildInputs(
        project=str(project),
        cwd=str(Path.cwd()),
        cards=tuple(cards),
        others=tuple(others),
        dockerfiles=dockerfiles,
        unreadable=unreadable,
        context=context,
        environ=dict(environ),
        credentials=read_credentials(project, environ),
        facts=read_facts(project),
        has_tools=tools_here(project),
        **more,
    )


def architectures(values: Iterable[str]) -> tuple[str, ...]:
    """``-a x,y -a z`` as x, y, z, each once."""
    found = (word.strip() for text in values for word in text.split(","))
    return tuple(dict.fromkeys(word for word in found if word))


def read_dockerfiles(
    project: Path, cards: Iterable[ModelCard]
) -> tuple[dict[str, tuple[Dockerfile, ...]], dict[str, str]]:
    """The candidates of each prefix that the cards name, and why those of others cannot be told."""
    found: dict[str, tuple[Dockerfile, ...]] = {}
    unreadable: dict[str, str] = {}
    folders: dict[PurePosixPath, list[str]] = {}
    for card in cards:
        prefix = card.dockerfile
        if not prefix or prefix in found or prefix in unreadable:
            continue
        try:
            folder = checked_prefix(prefix, card.where).parent
            if folder not in folders:
                folders[folder] = files_of(project / folder)
            paths = candidates(folders[folder], prefix, card.where)
            found[prefix] = tuple(read_dockerfile(project, path) for path in paths)
        except InputError as error:
            unreadable[prefix] = str(error)
    return found, unreadable


def read_facts(project: Path) -> dict[str, str]:
    """``ctx_test`` (the file of that name, or ``None``) and ``host_os``. Raises InputError."""
    path = project / CTX_TEST
    facts = {CTX_TEST: read_text(path, CTX_TEST).strip() if path.is_file() else "None"}
    for program, name in HOSTS:
        if shutil.which(program):
            return {**facts, "host_os": name}
    return facts


def tools_here(project: Path) -> bool:
    """Whether the project has a folder of tools for its Dockerfiles."""
    return (project / TOOLS_FOLDER).is_dir()


def read_batch(path: Path) -> tuple[BatchEntry, ...]:
    """A batch manifest: a list of models with ``build_new``. Raises InputError."""
    document = read_json(path, str(path))
    if not isinstance(document, list):
        raise InputError(f"cannot read {path}: expected a list of models, found {kind_of(document)}")
    return tuple(_batch_entry(entry, f"{path}: [{index}]") for index, entry in enumerate(document))


def _batch_entry(entry: object, where: str) -> BatchEntry:
    if not isinstance(entry, dict):
        raise InputError(f"cannot read {where}: expected an object, found {kind_of(entry)}")
    for key in entry:
        if key not in _BATCH_KEYS:
            raise InputError(
                f"cannot read {where}.{key}: it is not a known key{did_you_mean(key, _BATCH_KEYS)}"
            )
    name, new = entry.get("model_name"), entry.get("build_new", False)
    if not isinstance(name, str) or not name:
        raise InputError(f"cannot read {where}.model_name: it is required, and text")
    if not isinstance(new, bool):
        raise InputError(f"cannot read {where}.build_new: expected true or false, found {kind_of(new)}")
    words: dict[str, str] = {}
    for key in ("registry_image", "registry"):
        value = entry.get(key)
        if value is not None and not isinstance(value, str):
            raise InputError(f"cannot read {where}.{key}: expected text, found {kind_of(value)}")
        words[key] = value or ""
    return BatchEntry(name, new, words["registry_image"], words["registry"])
