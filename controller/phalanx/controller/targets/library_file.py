"""Libraries for nodes that do not have them, as one zip each: the engine's client, and that of S3.

Of aiodocker and all it needs C modules stay behind, so that one file serves every architecture and every
Python; aiohttp, multidict, yarl, frozenlist and propcache each fall back to Python when theirs is absent.
obstore is nothing without its compiled module, which is for one architecture and, by Python's stable ABI, for
every Python from 3.11 on. A file follows the agent over the protocol, only where it is needed, and carries
the licences of what is in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .bundle import cached, content_key, zip_bytes

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_ROOT = "aiodocker"

#: PEP 508: the name that a requirement begins with.
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONDITIONED_ON_EXTRA = re.compile(r"\bextra\s*==")

#: Parts that only a test run or a server needs: a client imports none of them.
_LEFT_OUT = re.compile(r"aiohttp/(pytest_plugin|test_utils|worker|web|web_\w+)\.py")


class LibraryIncomplete(Exception):
    """The bundle cannot be made from what is installed here. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """The bundle on this machine: ``sha256`` is hex, ``size`` is in bytes."""

    path: Path
    sha256: str
    size: int


def library_zip(cache: Path, root: str = "") -> LibraryFile:
    """The bundle of the engine's client, from the cache or built; or that of another distribution.

    ``root``: that distribution, which comes with its compiled modules, for nodes like this machine. Raises
    CacheError and LibraryIncomplete.
    """
    files = library_sources(root or _ROOT, native=bool(root))
    name = "-".join(filter(None, ("phalanx-library", root, content_key(files)[:16])))
    path, data = cached(cache, f"{name}.zip", 0o600, lambda: zip_bytes(files))
    return LibraryFile(path, hashlib.sha256(data).hexdigest(), len(data))


def library_sources(root: str, *, native: bool = False) -> dict[str, bytes]:
    """Sources, metadata and licences of the distribution ``root`` and all that it needs, by path.

    ``native``: compiled modules as well. Raises LibraryIncomplete.
    """
    files: dict[str, bytes] = {}
    for distribution in _closure(root):
        if distribution.files is None:
            raise LibraryIncomplete(
                f"cannot bundle {distribution.name}: it is installed without a list of its files (RECORD); "
                "reinstall it with pip"
            )
        for path in distribution.files:
            if wanted(path) or (native and path.suffix == ".so" and wanted(path.with_suffix(".py"))):
                data = Path(str(path.locate())).read_bytes()
                files[path.as_posix()] = headers(data) if path.name == "METADATA" else data
    return files


def headers(metadata: bytes) -> bytes:
    """A METADATA without the description behind its headers, a README of up to 100 kB (core metadata 2.1)."""
    head, empty, _ = metadata.partition(b"\n\n")
    return head + empty


def wanted(path: PurePosixPath) -> bool:
    """Whether an installed file belongs into the bundle: Python sources, METADATA and licences."""
    if path.is_absolute() or ".." in path.parts or _LEFT_OUT.fullmatch(path.as_posix()):
        return False
    if path.parts[0].endswith(".dist-info"):
        licence = path.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE", "COPYING"))
        return path.name == "METADATA" or licence or "licenses" in path.parts
    return path.suffix == ".py"


def requirements(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """(name, conditional) of each requirement that is not an extra's; conditional: it has a marker."""
    for line in lines:
        specifier, _, marker = line.partition(";")
        name = _REQUIREMENT.match(specifier.strip())
        if name and not _CONDITIONED_ON_EXTRA.search(marker):
            yield name.group(), bool(marker.strip())


def _closure(root: str) -> Iterator[Distribution]:
    """``root`` and everything it needs, each once.

    What a marker asks for and is not installed was not wanted on this machine, hence not on its nodes.
    """
    from importlib.metadata import PackageNotFoundError, distribution  # much for what few runs need

    seen: set[str] = set()
    waiting = [(root, False)]
    while waiting:
        name, conditional = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if conditional:
                continue
            raise LibraryIncomplete(
                f"cannot bundle {root}: {name} is not installed here; run `pip install {name}`"
            ) from None
        yield found
        waiting.extend(requirements(found.requires or ()))
