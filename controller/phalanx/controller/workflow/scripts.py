"""Scripts that run before and after a model: a path of the project, found where it is.

A path is looked for in the project first, then among what phalanx ships under the same names
(``scripts/common/...``), as madengine copies its own into a project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .bundled import bundled_files
from .context_parts import Script
from .errors import InputError, did_you_mean
from .place import inside, is_file

#: Names of one folder that are looked at for the nearest spelling.
_MOST_NAMES = 1000


@dataclass(frozen=True, slots=True)
class FoundScript:
    """A script: ``file`` of the login node, its base name on the nodes, its arguments as one text."""

    file: str
    args: str
    origin: str

    @property
    def name(self) -> str:
        """What it is called in the folder in which it runs."""
        return PurePosixPath(self.file).name


def find_scripts(
    scripts: Iterable[Script], places: Iterable[Path], origin_of: Callable[[int], str]
) -> tuple[FoundScript, ...]:
    """Each script in the first of the places that has it, else ours. Raises InputError with the key path."""
    folders = tuple(places)
    return tuple(_found(one, folders, origin_of(number)) for number, one in enumerate(scripts))


def _found(script: Script, places: tuple[Path, ...], origin: str) -> FoundScript:
    relative = inside(PurePosixPath(), script.path)
    if relative is None or relative == PurePosixPath():
        raise InputError(f"cannot use {origin}.path: {script.path!r} leaves the project's folder")
    for place in places:
        if is_file(place / relative):
            return FoundScript(str((place / relative).absolute()), script.args, origin)
    if shipped := bundled_files().get(str(relative)):
        return FoundScript(str(shipped), script.args, origin)
    near = did_you_mean(str(relative), [*_beside(places[0], relative), *bundled_files()])
    raise InputError(f"cannot use {origin}.path: there is no file {relative} in {places[0]}{near}")


def _beside(place: Path, relative: PurePosixPath) -> list[str]:
    """Paths of the files in the folder where a file should be; [] without that folder."""
    try:
        entries = sorted((place / relative.parent).iterdir())[:_MOST_NAMES]
    except OSError:
        return []
    return [str(relative.parent / entry.name) for entry in entries if is_file(entry)]
