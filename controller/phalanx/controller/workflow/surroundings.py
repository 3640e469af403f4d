"""What a run's context and command line put around every model: scripts, tools, what tells of containers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .bundled import FOLDER, bundled_folder
from .context import Context
from .scripts import FoundScript, find_scripts
from .tools import ChosenTool, find_system_details, load_tools


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All found on the login node. ``pre_scripts``, ``post_scripts``: of the user.

    ``system_script``: what tells of each container, None for nothing. ``common``: folders that lie over each
    other as ``scripts/common`` of the project, the first on top, when there is something that may use them.
    """

    pre_scripts: tuple[FoundScript, ...] = ()
    post_scripts: tuple[FoundScript, ...] = ()
    tools: tuple[ChosenTool, ...] = ()
    system_script: FoundScript | None = None
    common: tuple[str, ...] = ()


def find_surroundings(
    context: Context, project: Path, tools_config: str = "", system_details: bool | None = None
) -> Surroundings:
    """Find all of it. ``system_details``: what the command line says, None for nothing. Raises InputError."""

    def found(key: str) -> tuple[FoundScript, ...]:
        origin = context.origin(key)
        return find_scripts(getattr(context, key), (project,), lambda number: f"{origin}[{number}]")

    wanted = context.system_details if system_details is None else system_details
    scripts = found("pre_scripts"), found("post_scripts"), load_tools(context, project, tools_config)
    own = project / FOLDER
    common = (*([str(own.absolute())] if own.is_dir() else ()), str(bundled_folder()))
    details = None if wanted is False else find_system_details(project)
    return Surroundings(*scripts, details, common if any(scripts) else ())
