"""Dockerfiles of a model: which there are, which fit a context, and what a build has to know of each.

A model names a prefix, and every ``<prefix>.*`` is a candidate; its ``# CONTEXT {...}`` line within the first
five says for which machines it is (madengine's rule). Only what decides a build is read here: the engine's
builder judges the rest.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..workflow.errors import InputError
from ..workflow.place import inside, read_text
from ..workflow.wording import kind_of

#: Largest Dockerfile, in bytes.
MOST_BYTES = 1 << 20
#: Lines at the top among which the context's line is looked for.
HEADER_LINES = 5
MARK = "# CONTEXT "
SUFFIX = ".Dockerfile"
#: The folder that Dockerfiles may copy from as ``--from=tools``, and that name.
TOOLS, TOOLS_FOLDER = "tools", "docker/common"
BASE = "BASE_DOCKER"
_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_OPTION = re.compile(r"--([a-z-]+)(?:=(\"[^\"]*\"|'[^']*'|\S+))?(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """What a build has to know of a Dockerfile. ``path`` is relative to the project.

    ``header``: for which context it is, None without such a line. ``arguments``: names that its ARG lines
    declare, each with its default or None. ``secrets``: ids of secrets that it mounts. ``stages``: names of
    its stages, ``bases``: the images they start from, as written. ``sources``: what it copies or mounts from.
    ``passed_over``: why it is no candidate, "" for one that is.
    """

    path: str
    header: Mapping[str, Any] | None
    arguments: Mapping[str, str | None]
    secrets: frozenset[str]
    stages: frozenset[str]
    bases: tuple[str, ...]
    sources: frozenset[str]
    gpu_vendor: str
    passed_over: str = ""

    def starts_from(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The images it starts from, with these build arguments; one that cannot be told is left out."""
        known = {name: default for name, default in self.arguments.items() if default is not None}
        found = [
            _VARIABLE.sub(lambda part: {**known, **values}.get(part[1], "\0"), base) for base in self.bases
        ]
        return tuple(dict.fromkeys(base for base in found if "\0" not in base and "$" not in base))

    @property
    def stem(self) -> str:
        """Its part of an image's name: the file's name without ``.Dockerfile``."""
        return PurePosixPath(self.path).name.replace(SUFFIX, "")

    @property
    def needs_tools(self) -> bool:
        """Whether it copies from the project's folder of tools."""
        return TOOLS in self.sources and TOOLS not in self.stages


def candidates(names: Iterable[str], prefix: str, where: str) -> list[str]:
    """The files ``<prefix>.*``, relative to the project, by name. ``names``: of the files of its folder.

    Raises InputError for a prefix outside the project.
    """
    relative = checked_prefix(prefix, where)
    start = f"{relative.name}."
    return [str(relative.parent / name) for name in names if name.startswith(start)]


def checked_prefix(prefix: str, where: str) -> PurePosixPath:
    """A card's ``dockerfile``, relative to the project. Raises InputError when it leaves it."""
    relative = inside(PurePosixPath(), prefix)
    if relative is None:
        raise InputError(f"cannot build {where}: dockerfile {prefix!r} leaves the project's folder")
    return relative


def files_of(folder: Path) -> list[str]:
    """Names of the files of a folder, in order; [] when there is no such folder. Raises InputError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error


def read_dockerfile(project: Path, path: str) -> Dockerfile:
    """A candidate of the project. Raises InputError for a context's line that cannot be read.

    A file that is no text, or far too long, is passed over: other files may begin like a Dockerfile.
    """
    try:
        text = read_text(project / path, path, MOST_BYTES)
    except InputError as error:
        words = str(error).removeprefix(f"cannot read {path}: ")
        return Dockerfile(path, None, {}, frozenset(), frozenset(), (), frozenset(), "", words)
    return parse_dockerfile(text, path)


def parse_dockerfile(text: str, path: str) -> Dockerfile:
    """What the text of a Dockerfile says. Raises InputError for a context's line that cannot be read."""
    arguments: dict[str, str | None] = {}
    secrets: set[str] = set()
    stages: set[str] = set()
    bases: list[str] = []
    sources: set[str] = set()
    for word, rest in instructions(text):
        if word == "ARG":
            arguments.update(_declared(rest))
        elif word == "FROM":
            bases.append(_base(rest))
            stages.update(_stage(rest))
        elif word in ("COPY", "ADD", "RUN"):
            for option, value in _options(rest):
                if option == "from":
                    sources.add(value)
                if option == "mount":
                    _mounted(value, secrets, sources)
    sources.update(base for base in bases if base == TOOLS)
    header = _header(text, path)
    return Dockerfile(
        path=path,
        header=header,
        arguments=arguments,
        secrets=frozenset(secrets),
        stages=frozenset(stages),
        bases=tuple(base for base in bases if base.lower() not in {*stages, "scratch", "", TOOLS}),
        sources=frozenset(sources),
        gpu_vendor=_vendor(path, text),
        passed_over="it has no '# CONTEXT {...}' line among its first five" if header is None else "",
    )


def fits(header: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    """Whether a Dockerfile is for this context: what both name must be equal; the rest does not count."""
    return all(context[key] == value for key, value in header.items() if key in context)


def with_tools_stage(text: str, image: str) -> str:
    """The Dockerfile with a stage ``tools`` made from an image, for builders without named build contexts.

    It stands just before the first FROM: ARG lines above it stay global, parser directives stay first.
    """
    lines = text.splitlines(keepends=True)
    for number, word, _ in _instructions(text):
        if word == "FROM":
            return "".join((*lines[:number], f"FROM {image} AS {TOOLS}\n", *lines[number:]))
    return text


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """``("RUN", "make all")`` for each instruction, continued lines joined, comments left out."""
    for _, word, rest in _instructions(text):
        yield word, rest


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """First line (from 0), instruction, rest. Here-documents are read as lines."""
    escape = "`" if re.match(r"\s*#\s*escape\s*=\s*`", text) else "\\"
    joined, first = "", 0
    for number, line in enumerate(text.splitlines()):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if not joined:
            first = number
        if stripped.endswith(escape):
            joined += stripped[:-1] + " "
            continue
        found = _INSTRUCTION.match(joined + stripped)
        joined = ""
        if found:
            yield first, found[1].upper(), found[2].strip()


def _declared(rest: str) -> dict[str, str | None]:
    """``ARG A B=1`` as {A: None, B: "1"}."""
    found: dict[str, str | None] = {}
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    for word in words:
        name, equals, value = word.partition("=")
        found[name] = value if equals else None
    return found


def _stage(rest: str) -> list[str]:
    words = rest.split()
    return [words[-1].lower()] if len(words) > 2 and words[-2].upper() == "AS" else []


def _base(rest: str) -> str:
    """The image of ``FROM [--platform=...] image [AS name]``, "" when there is none."""
    return next((word for word in rest.split() if not word.startswith("--")), "")


def _options(rest: str) -> Iterator[tuple[str, str]]:
    """The ``--option=value`` words that an instruction begins with."""
    while found := _OPTION.match(rest):
        yield found[1], (found[2] or "").strip("\"'")
        rest = rest[found.end() :].lstrip()


def _mounted(value: str, secrets: set[str], sources: set[str]) -> None:
    """``type=secret,id=X,...`` and ``type=bind,from=Y,...``."""
    parts = {name: text.strip("\"'") for name, _, text in (part.partition("=") for part in value.split(","))}
    if parts.get("type") == "secret":
        target = parts.get("target") or parts.get("dst") or parts.get("destination") or ""
        secrets.add(parts.get("id") or PurePosixPath(target).name)
    elif "from" in parts:
        sources.add(parts["from"])


def _header(text: str, path: str) -> Mapping[str, Any] | None:
    for number, line in enumerate(text.splitlines()[:HEADER_LINES], start=1):
        if MARK not in line:
            continue
        said = line.split(MARK, 1)[1].strip()
        try:
            found = ast.literal_eval(said)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise InputError(
                f"cannot read {path}: line {number}: what follows {MARK.strip()!r} is no dictionary, "
                f"such as {{'gpu_vendor': 'AMD'}}"
            ) from error
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise InputError(
                f"cannot read {path}: line {number}: CONTEXT: expected an object with text keys, "
                f"found {kind_of(found)}"
            )
        return found
    return None


def _vendor(path: str, text: str) -> str:
    """Whose GPUs an image is for: by the file's name, else by words in it; "" when neither says."""
    name, words = path.lower(), text.lower()
    for vendor, part in (("AMD", ".amd."), ("NVIDIA", ".nvidia.")):
        if part in name:
            return vendor
    if "rocm" in words or "amd" in words.replace("amd64", ""):
        return "AMD"
    return "NVIDIA" if "nvidia" in words or "cuda" in words else ""
