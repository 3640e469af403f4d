"""The folder in which a case finds a data set, known before anything has been fetched into it.

A container's mounts cannot be added later, so the folder is chosen when the case is opened, by what is on the
node then, and filled by a step afterwards. What it was filled from has no say in where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phalanx.agent.relay.place import private_directory, refuse_shared
from phalanx.protocol.messages import DATA_FOLDER, DataMount, Mount

#: The folder of the node's cache that has data sets.
IN_CACHE = "data"
PlaceKind = Literal["source", "mirror", "cache", "own"]


@dataclass(frozen=True, slots=True)
class DataPlace:
    """A data set of a case: its folder on this node, and ``target``, where a container has it."""

    name: str
    kind: PlaceKind
    folder: Path
    target: str
    read_only: bool

    def mount(self) -> Mount:
        """What a container gets."""
        return Mount(str(self.folder), self.target, self.read_only)


def data_places(wanted: Iterable[DataMount], work: Path, cache: Callable[[], Path]) -> tuple[DataPlace, ...]:
    """The folders, made where they are ours to make. Blocks. Raises PlaceRefused, OSError."""
    return tuple(_place(one, number, work, cache) for number, one in enumerate(wanted))


def _place(wanted: DataMount, number: int, work: Path, cache: Callable[[], Path]) -> DataPlace:
    def place(kind: PlaceKind, folder: Path, read_only: bool) -> DataPlace:
        return DataPlace(wanted.name, kind, folder, wanted.target, read_only)

    if wanted.source and Path(wanted.source).exists():
        return place("source", Path(wanted.source), wanted.read_only)
    if wanted.mirror and Path(wanted.mirror).is_dir():
        folder = Path(wanted.mirror) / wanted.name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        return place("mirror", folder, read_only=False)
    if wanted.cache and not wanted.mirror:
        return place("cache", _in_cache(cache(), wanted.cache), read_only=True)
    folder = work / DATA_FOLDER / str(number)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return place("own", folder, read_only=False)


def _in_cache(cache: Path, key: str) -> Path:
    """The folder for the files of a data set; what is above it only we can enter."""
    data = cache / IN_CACHE
    for part in (cache, data, data / key):
        private_directory(part)
    refuse_shared(data)
    content = data / key / "content"
    content.mkdir(exist_ok=True)
    content.chmod(0o755)  # whoever runs in the container, and whatever our umask
    return content
