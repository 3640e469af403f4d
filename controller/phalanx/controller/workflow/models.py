"""Discovery: the models of a project, from its models.json and what is in ``scripts/<dir>/``.

A folder below ``scripts/`` may list models (``models.json``) or make them (``get_models_json.py``, see
``dynamic``). Names and paths of either get the folder in front, once (``scripts/dummy3/models.json`` with
``model4`` is ``dummy3/model4``), tags do not. A project is read where it is: nothing of it is copied, and
nothing is written into it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from .card import ModelCard, read_cards
from .dynamic import MODELS_PROGRAM, listed, updated
from .errors import DiscoveryError, InputError
from .place import inside, inside_text, is_file, read_json
from .tags import Choice, choose

MODELS_FILE = "models.json"
SCRIPTS = "scripts"
#: Most folders below scripts/ that are looked at.
FOLDER_LIMIT = 4096
PROGRAMS = {".sh": "bash", ".slurm": "bash", ".py": "python3"}


@dataclass(frozen=True, slots=True)
class ModelImage:
    """The image that was or will be built for a model, and where that is said.

    ``key``: by which name a build or a manifest has it. ``image_id``: which image that was when it was built,
    "" when that is not known. ``columns``: what a row says of it. ``gpu_vendor`` and ``gpu_architecture``:
    which GPUs it is for, "" for any. ``secrets``: names whose values the model needs and the manifest does
    not hold.
    """

    reference: str
    origin: str
    image_id: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    gpu_vendor: str = ""
    gpu_architecture: str = ""
    key: str = ""
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SelectedModel:
    """A model to run: its card (tag arguments appended), the folder of its scripts, what runs in there.

    ``directory`` is absolute; ``program`` is argv without the model's arguments. ``image``: of a manifest.
    ``project``: the folder that the card's paths are relative to.
    """

    card: ModelCard
    directory: str
    program: tuple[str, ...]
    image: ModelImage | None = None
    project: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The cards that tags chose, as they are to run. ``notes``: what the user may not have meant."""

    cards: tuple[ModelCard, ...]
    notes: tuple[str, ...] = ()


def project_folder(environ: Mapping[str, str]) -> Path:
    """``$MODEL_DIR``, else the current directory."""
    return Path(environ.get("MODEL_DIR") or Path.cwd())


def discover(project: Path) -> list[ModelCard]:
    """All cards of a project, root file first, then those of folders by name. Raises InputError."""
    root = project / MODELS_FILE
    if not is_file(root):
        raise DiscoveryError(
            f"cannot find models: {project} has no {MODELS_FILE}; go to a project's folder or set MODEL_DIR"
        )
    cards = read_cards(read_json(root, MODELS_FILE), MODELS_FILE)
    for scope in folders(project):
        cards += _of_folder(project, scope)
    return cards


def chosen(project: Path, tags: Sequence[str]) -> Chosen:
    """The cards that the tags choose, those of programs after their ``update_model()``. Raises InputError."""
    selection = choose(discover(project), tags)
    cards = tuple(choice.finished() for choice in _fresh(project, selection.choices))
    return Chosen(cards, selection.notes)


def selected(project: Path, tags: Sequence[str]) -> list[SelectedModel]:
    """The models that the tags choose, each with its script found. Raises InputError."""
    return [locate(project, card) for card in chosen(project, tags).cards]


def locate(project: Path, card: ModelCard, image: ModelImage | None = None) -> SelectedModel:
    """Find a card's script: a ``.sh``, ``.slurm`` or ``.py`` file, else a folder with ``run.sh``."""
    relative = inside(PurePosixPath(), card.scripts)
    if relative is None:
        raise InputError(f"cannot use {card.where}: scripts {card.scripts!r} leaves the project's folder")
    program = PROGRAMS.get(relative.suffix)
    folder, script = (relative.parent, relative.name) if program else (relative, "run.sh")
    path = project / folder / script
    if not is_file(path):
        raise InputError(f"cannot use {card.where}: scripts: there is no file {folder / script} in {project}")
    directory = str((project / folder).absolute())
    return SelectedModel(card, directory, (program or "bash", script), image, str(project.absolute()))


def folders(project: Path) -> list[str]:
    """The names of the folders below ``scripts/``, in order; [] without one. Raises InputError."""
    try:
        with os.scandir(project / SCRIPTS) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"cannot read {SCRIPTS}/: {error.strerror}") from error
    if len(names) > FOLDER_LIMIT:
        raise InputError(f"cannot read {SCRIPTS}/: it has more than {FOLDER_LIMIT} folders")
    return names


def _of_folder(project: Path, scope: str) -> list[ModelCard]:
    folder = project / SCRIPTS / scope
    listing = folder / MODELS_FILE
    has_list, has_program = is_file(listing), is_file(folder / MODELS_PROGRAM)
    shown = f"{SCRIPTS}/{scope}/{MODELS_FILE}"
    if has_list and has_program:
        raise InputError(f"cannot read {shown}: {MODELS_PROGRAM} beside it gives models as well; keep one")
    if has_list:
        return _scoped(read_json(listing, shown), shown, scope)
    if has_program:
        shown = f"{SCRIPTS}/{scope}/{MODELS_PROGRAM}"
        return _scoped(listed(project, shown), shown, scope)
    return []


def _fresh(project: Path, choices: tuple[Choice, ...]) -> list[Choice]:
    """The same choices, with the cards of programs as they are after ``update_model()``."""
    by_program: dict[str, dict[int, str]] = {}
    for choice in choices:
        card = choice.card
        if card.source.endswith("/" + MODELS_PROGRAM):
            by_program.setdefault(card.source, {})[card.index] = card.name
    fresh: dict[tuple[str, int], ModelCard] = {}
    for shown, names in by_program.items():
        scope = Path(shown).parent.name
        plain = [(index, name.removeprefix(scope + "/")) for index, name in names.items()]
        cards = _scoped(updated(project, shown, plain), shown, scope)
        for index, card in zip(names, cards, strict=True):
            fresh[shown, index] = replace(card, index=index)
    return [
        replace(choice, card=fresh.get((choice.card.source, choice.card.index), choice.card))
        for choice in choices
    ]


def _scoped(document: Any, shown: str, scope: str) -> list[ModelCard]:
    """The cards of a folder's document, with the folder in front of names and paths."""
    root = f"{SCRIPTS}/{scope}"
    return [
        replace(
            card,
            name=f"{scope}/{card.name}",
            scripts=_below(root, card, "scripts"),
            dockerfile=_below(root, card, "dockerfile") if card.dockerfile else "",
        )
        for card in read_cards(document, shown)
    ]


def _below(root: str, card: ModelCard, name: str) -> str:
    path: str = getattr(card, name)
    joined = inside_text(root, path)
    if joined is None:
        raise InputError(f"cannot use {card.where}: {name} {path!r} leaves the project's folder")
    return joined
