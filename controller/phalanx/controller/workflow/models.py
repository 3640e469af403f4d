"""Discovery: the models of a project, from its models.json and those of ``scripts/<dir>/``.

Names and paths of a scoped file get their folder in front (``scripts/dummy3/models.json`` with ``model4`` is
``dummy3/model4``), tags do not. A ``get_models_json.py`` is a program that makes cards; it is not run here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from .card import ModelCard, read_cards
from .errors import DiscoveryError, InputError
from .place import inside, read_json
from .tags import select

MODELS_FILE = "models.json"
MODELS_PROGRAM = "get_models_json.py"
SCRIPTS = "scripts"
#: Most folders below scripts/ that are looked at.
FOLDER_LIMIT = 4096
PROGRAMS = {".sh": "bash", ".slurm": "bash", ".py": "python3"}


@dataclass(frozen=True, slots=True)
class SelectedModel:
    """A model to run: its card (tag arguments appended), the folder of its scripts, what runs in there.

    ``directory`` is absolute; ``program`` is argv without the model's arguments.
    """

    card: ModelCard
    directory: str
    program: tuple[str, ...]


def discover(project: Path) -> list[ModelCard]:
    """All cards of a project, root file first, then the scoped ones by folder name. Raises InputError."""
    root = project / MODELS_FILE
    if not root.is_file():
        raise DiscoveryError(
            f"cannot find models: {project} has no {MODELS_FILE}; go to a project's folder or set MODEL_DIR"
        )
    cards = read_cards(read_json(root, MODELS_FILE), MODELS_FILE)
    for folder in _scoped_folders(project):
        cards += _scoped_cards(project, folder)
    return cards


def selected(project: Path, tags: list[str] | tuple[str, ...]) -> list[SelectedModel]:
    """The models that the tags choose, each with its script found. Raises InputError."""
    return [locate(project, card) for card in select(discover(project), tags)]


def locate(project: Path, card: ModelCard) -> SelectedModel:
    """Find a card's script: a ``.sh``, ``.slurm`` or ``.py`` file, else a folder with ``run.sh``."""
    relative = inside(PurePosixPath(), card.scripts)
    if relative is None:
        raise InputError(f"cannot use {card.where}: scripts {card.scripts!r} leaves the project's folder")
    program = PROGRAMS.get(relative.suffix)
    folder, script = (relative.parent, relative.name) if program else (relative, "run.sh")
    path = project / folder / script
    if not path.is_file():
        raise InputError(f"cannot use {card.where}: scripts: there is no file {folder / script} in {project}")
    return SelectedModel(card, str((project / folder).absolute()), (program or "bash", script))


def _scoped_folders(project: Path) -> list[Path]:
    scripts = project / SCRIPTS
    if not scripts.is_dir():
        return []
    try:
        folders = sorted(entry for entry in scripts.iterdir() if entry.is_dir())
    except OSError as error:
        raise InputError(f"cannot read {SCRIPTS}/: {error.strerror}") from error
    if len(folders) > FOLDER_LIMIT:
        raise InputError(f"cannot read {SCRIPTS}/: it has more than {FOLDER_LIMIT} folders")
    return folders


def _scoped_cards(project: Path, folder: Path) -> list[ModelCard]:
    scope = folder.name
    shown = f"{SCRIPTS}/{scope}/{MODELS_FILE}"
    listed, program = (folder / MODELS_FILE).is_file(), (folder / MODELS_PROGRAM).is_file()
    if listed and program:
        raise InputError(f"cannot read {shown}: {MODELS_PROGRAM} beside it gives models as well; keep one")
    if program:
        raise InputError(
            f"cannot read {SCRIPTS}/{scope}/{MODELS_PROGRAM}: models made by a program are not read yet; "
            f"write them to {shown}"
        )
    if not listed:
        return []
    return [_scoped(card, scope) for card in read_cards(read_json(folder / MODELS_FILE, shown), shown)]


def _scoped(card: ModelCard, scope: str) -> ModelCard:
    root = PurePosixPath(SCRIPTS, scope)
    scripts = inside(root, card.scripts)
    dockerfile = inside(root, card.dockerfile) if card.dockerfile else PurePosixPath()
    for name, value in (("scripts", scripts), ("dockerfile", dockerfile)):
        if value is None:
            raise InputError(
                f"cannot use {card.where}: {name} {getattr(card, name)!r} leaves the project's folder"
            )
    return replace(
        card,
        name=f"{scope}/{card.name}",
        scripts=str(scripts),
        dockerfile=str(dockerfile) if card.dockerfile else "",
    )
