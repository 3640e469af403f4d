"""What of a project is sent to the node that builds: build contexts, Dockerfiles, the folder of tools."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..workflow.errors import InputError
from .argv import TOOLS_DOCKERFILE as TEXT
from .compute import TOOLS_DOCKERFILE
from .credentials import FILE as CREDENTIALS
from .dockerfiles import TOOLS_FOLDER, with_tools_stage
from .model import BuildPlan

#: Never part of a build: results, histories, what Python leaves, and what opens other doors.
_LEFT_OUT = frozenset({"phalanx-runs", ".git", "__pycache__", CREDENTIALS})


def stage(plan: BuildPlan, folder: Path, tools_image: str) -> None:
    """Copy what the builds need below ``folder``; Dockerfiles that need the folder of tools get its image as
    a stage. Raises InputError.
    """
    project = Path(plan.project)
    try:
        for place in _folders(plan):
            shutil.copytree(
                project / place, folder / place, symlinks=True, ignore=_left_out(project), dirs_exist_ok=True
            )
        for build in plan.builds:
            target = folder / build.dockerfile
            target.parent.mkdir(parents=True, exist_ok=True)
            text = (project / build.dockerfile).read_text()
            target.unlink(missing_ok=True)
            target.write_text(with_tools_stage(text, tools_image) if build.tools else text)
        (folder / TOOLS_DOCKERFILE).write_text(TEXT)
    except (OSError, shutil.Error) as error:
        raise InputError(f"cannot copy what the build needs: {error}") from error


def _left_out(project: Path) -> Callable[[str, list[str]], set[str]]:
    """What is not copied: the names above, and links that lead out of the project or nowhere.

    A build here would send the link; a copy of what it leads to could be anything of this machine.
    """
    root = project.resolve()

    def ignore(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name in _LEFT_OUT or _leads_away(Path(folder, name), root)}

    return ignore


def _leads_away(path: Path, root: Path) -> bool:
    if not path.is_symlink():
        return False
    try:
        return not path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # nowhere, or round in a ring
        return True


def _folders(plan: BuildPlan) -> Sequence[str]:
    """The folders of the builds, without those that lie in another of them."""
    wanted = {build.folder for build in plan.builds}
    wanted |= {TOOLS_FOLDER for build in plan.builds if build.tools}
    if "." in wanted:
        return ["."]
    return sorted(one for one in wanted if not any(one.startswith(f"{other}/") for other in wanted))
