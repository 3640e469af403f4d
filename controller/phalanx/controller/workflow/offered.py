"""Words that ``--tags`` would take, for completion: read from the files as they are, unchecked and at once.

Models that a program makes are not among them, because nothing is run for a key press; their folder is, as
``dir/all``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .place import FILE_LIMIT, reading


def offered(project: str) -> list[str]:
    """Names, then tags, then ``all``, each once. Files that cannot be read are left out."""
    names: dict[str, None] = {}
    tags: dict[str, None] = {}
    _add(Path(project, "models.json"), "", names, tags)
    for folder in _folders(Path(project, "scripts")):
        if (folder / "get_models_json.py").exists():
            names[f"{folder.name}/all"] = None
        else:
            _add(folder / "models.json", f"{folder.name}/", names, tags)
    return list({**names, **tags, "all": None}) if names else []


def _folders(scripts: Path) -> list[Path]:
    try:
        with os.scandir(scripts) as entries:
            return [scripts / name for name in sorted(entry.name for entry in entries if entry.is_dir())]
    except OSError:
        return []


def _add(path: Path, scope: str, names: dict[str, None], tags: dict[str, None]) -> None:
    for entry in _entries(path):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            continue
        names[scope + entry["name"]] = None
        words = entry.get("tags")
        for word in words.split(",") if isinstance(words, str) else words if isinstance(words, list) else ():
            if isinstance(word, str) and word.strip():
                tags[word.strip()] = None


def _entries(path: Path) -> list[Any]:
    try:
        with reading(path) as file:
            document = json.loads(file.read(FILE_LIMIT))
    except (OSError, ValueError, RecursionError):
        return []
    return document if isinstance(document, list) else []
