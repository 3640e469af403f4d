"""The form of a tools file, typed. Imported when a run has tools: pydantic takes long to import.

``needs``, ``leaves`` and ``about`` are phalanx's own keys. The descriptions are the table of docs/tools.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr

from .context_schema import Scalar, ScriptEntry

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_PROGRAM = r"[A-Za-z0-9_/][A-Za-z0-9_.+/-]{0,199}"
_NEED = re.compile(rf"{_PROGRAM}(\|{_PROGRAM}){{0,15}}")
#: Longest command, path, pattern or text, in characters.
LONGEST = 4096


def _name(value: str) -> str:
    """A tool's name is part of the names of files and of patterns for them."""
    if not _NAME.fullmatch(value):
        raise ValueError("expected a name of letters, digits, _, . and -")
    return value


def _need(value: str) -> str:
    if not _NEED.fullmatch(value):
        raise ValueError("expected the name of a program, or several such as amd-smi|rocm-smi")
    return value


def _line(value: str) -> str:
    if len(value) > LONGEST or re.search(r"[\0\r\n]", value):
        raise ValueError(f"expected one line of at most {LONGEST} characters")
    return value


def _pattern(value: str) -> str:
    if not value or value.startswith("/") or ".." in value.split("/"):
        raise ValueError("expected a pattern of paths below the model's folder")
    return _line(value)


Name = Annotated[StrictStr, AfterValidator(_name)]
Need = Annotated[StrictStr, AfterValidator(_need)]
Line = Annotated[StrictStr, AfterValidator(_line)]
Pattern = Annotated[StrictStr, AfterValidator(_pattern)]


class ToolDefinition(BaseModel):
    """One tool."""

    model_config = _STRICT

    pre_scripts: list[ScriptEntry] = Field(
        default_factory=list, max_length=64, description="run before the model, those of the last tool first"
    )
    cmd: Line = Field(
        "", description="stands before the command that runs the model; may end in `&&` or `--`"
    )
    env_vars: dict[str, Scalar] = Field(
        default_factory=dict, max_length=256, description="environment of the workload"
    )
    post_scripts: list[ScriptEntry] = Field(
        default_factory=list, max_length=64, description="run after the model, those of the first tool first"
    )
    needs: list[Need] | None = Field(
        None,
        max_length=16,
        description="programs on the PATH, `a|b` for either; when it is not said, the first word of `cmd`",
    )
    leaves: list[Pattern] = Field(
        default_factory=list, max_length=64, description="files to bring back, beside those in `NAME_output/`"
    )
    about: Line = Field("", description="what it is, for people")


class ToolsFile(BaseModel):
    """The whole file."""

    model_config = _STRICT

    tools: dict[Name, ToolDefinition] = Field(max_length=1000, description="definitions by name")


def known_keys(names: Iterable[str]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The keys that are known at each place of a file that defines these tools."""
    scripts = tuple(ScriptEntry.model_fields)
    found: dict[tuple[str, ...], tuple[str, ...]] = {(): tuple(ToolsFile.model_fields)}
    for name in names:
        found["tools", name] = tuple(ToolDefinition.model_fields)
        found["tools", name, "pre_scripts"] = found["tools", name, "post_scripts"] = scripts
    return found
