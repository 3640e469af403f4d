"""Keys of an object store as paths below a folder. Pure: what would lead elsewhere is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from phalanx.agent.data.request import DataError

#: Objects of one data set: each took 425 bytes of memory at most when it was listed.
MOST_OBJECTS = 1_000_000
#: Bytes of a name and of a path (limits.h: NAME_MAX, PATH_MAX, with room for the folder above).
LONGEST_NAME, LONGEST_PATH = 255, 3072
#: How deep folders may lie in one another.
DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Object:
    """An object as the store lists it: ``etag`` "" where it has none. ``size`` in bytes."""

    key: str
    size: int
    etag: str = ""


def relative(key: str, prefix: str) -> str:
    """The path of an object below the folder of its data set. Raises DataError.

    ``prefix``: the key that stands for the whole data set; of an object with just that key, its last part.
    """
    prefix = prefix.strip("/")
    if prefix and key == prefix:
        path = key.rpartition("/")[2]
    elif prefix and not key.startswith(prefix + "/"):
        raise DataError(f"the store lists {key[:200]!r}, which is not below {prefix!r}")
    else:
        path = key[len(prefix) + 1 :] if prefix else key
    check(path, key)
    return path


def check(path: str, key: str) -> None:
    """Raises DataError for a path that is none below a folder, or that no file system takes."""
    parts = path.split("/")
    why = ""
    if any(part in ("", ".", "..") for part in parts):
        why = "it leads out of the data set's folder, or has an empty part"
    elif any(ord(character) < 32 or ord(character) == 127 for character in path):
        why = "it holds control characters"
    elif len(parts) > DEEPEST or len(_octets(path)) > LONGEST_PATH:
        why = f"it is deeper than {DEEPEST} folders or longer than {LONGEST_PATH} bytes"
    elif any(len(_octets(part)) > LONGEST_NAME for part in parts):
        why = f"a part of it is longer than {LONGEST_NAME} bytes"
    if why:
        raise DataError(f"the object {key[:200]!r} cannot be a file here: {why}")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def as_files(objects: Iterable[Object], prefix: str) -> dict[str, Object]:
    """The objects of a data set by path, without those that only stand for a folder. Raises DataError."""
    files: dict[str, Object] = {}
    for found in objects:
        if found.size == 0 and found.key.strip("/") == prefix.strip("/") and prefix.endswith("/"):
            continue  # the folder itself
        path = relative(found.key.rstrip("/"), prefix)
        if path in files:
            raise DataError(f"the store lists {found.key[:200]!r} twice")
        files[path] = found
        if len(files) > MOST_OBJECTS:
            raise DataError(f"it has more than {MOST_OBJECTS} objects; pack them, or mount them with local")
    return _without_folders(files)


def _without_folders(files: Mapping[str, Object]) -> dict[str, Object]:
    folders = {
        "/".join(parts[:depth])
        for parts in (path.split("/") for path in files)
        for depth in range(1, len(parts))
    }
    for path in folders & files.keys():
        if files[path].size:
            raise DataError(
                f"the object {files[path].key[:200]!r} is a file and a folder at once: others lie below it"
            )
    return {path: found for path, found in files.items() if path not in folders}
