"""The agent as one executable file that needs nothing on a node but sh and a Python.

It is made of the installed packages ``phalanx.agent`` and ``phalanx.protocol``, pure-Python msgpack, and a
head of POSIX sh (``agent_prefix.sh``) that finds the interpreter. It carries byte code for the Python that
runs the controller, since a zip caches none: without it every start compiles every module again. Where a node
has another minor version, zipimport falls back to the sources in the same file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .bundle import cached, content_key, with_byte_code, zip_bytes

#: Minor versions of Python 3 that an agent runs on, newest first.
MINORS = (14, 13, 12, 11)

_PACKAGES = ("phalanx.agent", "phalanx.protocol", "msgpack")


@dataclass(frozen=True, slots=True)
class AgentFile:
    """The agent's file on this machine: ``sha256`` is hex, ``size`` is in bytes."""

    path: Path
    sha256: str
    size: int


def agent_file(cache: Path) -> AgentFile:
    """The agent's file, from the cache or built. Raises CacheError."""
    files = agent_sources()
    prefix = shell_prefix(sys.version_info.minor)
    key = content_key(files, prefix)
    path, data = cached(
        cache, f"phalanx-agent-{key[:16]}.pyz", 0o700, lambda: prefix + zip_bytes(with_byte_code(files))
    )
    return AgentFile(path, hashlib.sha256(data).hexdigest(), len(data))


def shell_prefix(minor: int) -> bytes:
    """The head of sh, asking first for Python 3.``minor``, whose byte code the file carries."""
    minors = sorted(MINORS, key=lambda known: known != minor)
    text = Path(__file__).with_name("agent_prefix.sh").read_text(encoding="utf-8")
    text = text.replace("@MINORS@", " ".join(str(known) for known in minors))
    return text.replace("@SHIMS@", " ".join(f"python3.{known}" for known in minors)).encode()


def agent_sources() -> dict[str, bytes]:
    """Everything of the zip by its name in it: sources, and the entry at the root."""
    files: dict[str, bytes] = {}
    for package in _PACKAGES:
        files.update(_package_sources(package))
    files["__main__.py"] = files["phalanx/agent/__main__.py"]
    return files


def _package_sources(package: str) -> Iterator[tuple[str, bytes]]:
    """Python sources of an installed package; C modules stay behind, for which msgpack has its fallback."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} is not installed", name=package)
    root = Path(next(iter(spec.submodule_search_locations)))
    folder = package.replace(".", "/")
    for path in sorted(root.rglob("*.py")):
        yield f"{folder}/{path.relative_to(root).as_posix()}", path.read_bytes()
