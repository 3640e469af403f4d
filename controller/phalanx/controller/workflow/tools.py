"""Profilers and tracers of a run: what the context asks for, with what tools.json says of each.

The project's file lies over ours: its definition of a name replaces ours whole. What an entry of the context
says goes over both: its command instead of theirs, its environment value by value. Nothing that is read is
changed, so one model's tools never reach the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .bundled import FOLDER, bundled_files
from .context import Context
from .context_parts import Script, Tool
from .errors import InputError, did_you_mean
from .place import parse_json, read_text, without_comments
from .scripts import FoundScript, find_scripts

#: Where a project keeps its definitions.
TOOLS_FILE = f"{FOLDER}/tools.json"
#: The key of a context that asks for what tells of a container.
SYSTEM_DETAILS = "gen_sys_env_details"
#: Largest tools file, in bytes, and most tools of one run.
FILE_LIMIT = 1024 * 1024
MOST_TOOLS = 64


@dataclass(frozen=True, slots=True)
class Definition:
    """What a tools file says of a tool. ``where``: file and key path; ``needs``: None for not said."""

    name: str
    where: str
    command: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    pre_scripts: tuple[Script, ...] = ()
    post_scripts: tuple[Script, ...] = ()
    needs: tuple[str, ...] | None = None
    leaves: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True, slots=True)
class ChosenTool:
    """A tool of a run: its definition with what the context says over it.

    ``where``: the definition. ``env``: by name the value, which may be a whole placeholder, and its origin.
    ``needs``: programs on the PATH where the model runs, or None for the first word of ``command``.
    """

    name: str
    where: str
    command: str
    command_origin: str
    env: Mapping[str, tuple[str, str]]
    pre_scripts: tuple[FoundScript, ...]
    post_scripts: tuple[FoundScript, ...]
    needs: tuple[str, ...] | None
    leaves: tuple[str, ...]


def load_tools(context: Context, project: Path, said: str = "") -> tuple[ChosenTool, ...]:
    """The tools of a run in the order of the context. ``said``: a tools file named on the command line.

    Without it the project's own file counts, when there is one. Raises InputError.
    """
    if not context.tools and not said:
        return ()
    return chosen(context, definitions(project, said), project)


def definitions(project: Path, said: str = "") -> dict[str, Definition]:
    """All tools that a run in this project can name. Raises InputError."""
    found = read_definitions(bundled_files()[TOOLS_FILE], "phalanx's tools.json")
    if said:
        found |= read_definitions(project / said, said)
    elif (project / TOOLS_FILE).exists():
        found |= read_definitions(project / TOOLS_FILE, TOOLS_FILE)
    return found


def read_definitions(path: Path, shown: str) -> dict[str, Definition]:
    """The definitions of one file, ``shown`` in errors. Raises InputError."""
    from pydantic import ValidationError

    from .tools_schema import ToolsFile, known_keys
    from .wording import explain

    document = without_comments(parse_json(read_text(path, shown, FILE_LIMIT), shown), kept=("env_vars",))
    try:
        file = ToolsFile.model_validate(document)
    except ValidationError as error:
        inner = document.get("tools") if isinstance(document, dict) else None
        names = inner if isinstance(inner, dict) else ()
        hints = dict.fromkeys(known_keys(["x"])["tools", "x"], 'it belongs to a tool: {"tools": {NAME: ...}}')
        raise explain(shown, error, known_keys(names), hints, document) from error
    return {name: _definition(name, said, f"{shown}: tools.{name}") for name, said in file.tools.items()}


def _definition(name: str, said: Any, where: str) -> Definition:
    return Definition(
        name,
        where,
        said.cmd.strip(),
        {key: str(value) for key, value in said.env_vars.items()},
        tuple(Script(one.path, str(one.args)) for one in said.pre_scripts),
        tuple(Script(one.path, str(one.args)) for one in said.post_scripts),
        None if said.needs is None else tuple(said.needs),
        tuple(said.leaves),
        said.about,
    )


def chosen(context: Context, known: Mapping[str, Definition], project: Path) -> tuple[ChosenTool, ...]:
    """The context's tools. Raises InputError for one that is not known, is there twice or lacks a script."""
    origin = context.origin("tools")
    if len(context.tools) > MOST_TOOLS:
        raise InputError(f"cannot use {origin}: {len(context.tools)} tools, {MOST_TOOLS} are the most")
    found: dict[str, ChosenTool] = {}
    for place, entry in enumerate(context.tools):
        where = f"{origin}[{place}]"
        if entry.name not in known:
            near = did_you_mean(entry.name, known) or f"; the tools are {', '.join(sorted(known))}"
            raise InputError(f"cannot use {where}.name: there is no tool {entry.name!r}{near}")
        if entry.name in found:
            raise InputError(f"cannot use {where}.name: {entry.name} is in the list already")
        found[entry.name] = _over(known[entry.name], entry, where, project)
    return tuple(found.values())


def find_system_details(project: Path) -> FoundScript:
    """What tells of a container; its arguments come with the model (``plan.tools.system_details``)."""
    script = Script(f"{FOLDER}/pre_scripts/run_rocenv_tool.sh")
    (found,) = find_scripts((script,), (project,), lambda _: SYSTEM_DETAILS)
    return found


def _over(definition: Definition, entry: Tool, where: str, project: Path) -> ChosenTool:
    command, origin, needs = definition.command, f"{definition.where}.cmd", definition.needs
    if entry.command is not None:
        command, origin, needs = entry.command.strip(), f"{where}.cmd", None
        if any(letter in command for letter in "\0\r\n"):
            raise InputError(f"cannot use {origin}: expected one line")
    env = {name: (value, f"{definition.where}.env_vars.{name}") for name, value in definition.env.items()}
    env |= {name: (value, f"{where}.env_vars.{name}") for name, value in entry.env.items()}

    def found(key: str, scripts: tuple[Script, ...]) -> tuple[FoundScript, ...]:
        return find_scripts(scripts, (project,), lambda number: f"{definition.where}.{key}[{number}]")

    return ChosenTool(
        definition.name,
        definition.where,
        command,
        origin,
        env,
        found("pre_scripts", definition.pre_scripts),
        found("post_scripts", definition.post_scripts),
        needs,
        definition.leaves,
    )
