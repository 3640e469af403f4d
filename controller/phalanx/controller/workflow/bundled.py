"""What every project finds below ``scripts/common`` without having it: tools, example scripts, rocEnv.

The files are data of ``phalanx.templates``. A project's own file of the same path goes before ours, file by
file; nothing is ever written into the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

#: Where in a project the files appear.
FOLDER = "scripts/common"


def bundled_folder() -> Path:
    """Where our files are: what they have below it, they have below ``FOLDER`` in a project."""
    return Path(str(files("phalanx.templates"))) / "tools"


@cache
def bundled_files() -> Mapping[str, Path]:
    """Our files by their path in a project (``scripts/common/tools.json``)."""
    root = bundled_folder()
    return {
        f"{FOLDER}/{path.relative_to(root).as_posix()}": path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "__init__.py" and "__pycache__" not in path.parts
    }
