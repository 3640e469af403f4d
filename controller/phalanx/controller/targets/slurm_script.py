"""A batch script that waits in the queue in our stead: the same options as salloc, and phalanx within.

``sbatch`` reads its lines with rules of its own, tried on the real one by the tests: a space or ``#`` ends a
word unless it stands in quotes, where a backslash makes the next character plain and nothing else is special.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib.resources import files

from ..plan.model import SlurmOptions
from .slurm_argv import salloc

#: sbatch reads a line into a buffer of the C library's BUFSIZ (8192); a longer one would be cut.
LONGEST_OPTION = 4096
#: Options of salloc that sbatch does not have: there is no terminal, and a batch job always has a shell.
_OF_SALLOC = {"--no-shell", "--no-bell"}
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]~^*?-]+")


class ScriptError(Exception):
    """A value that no line of a batch script can hold; the message names it."""


def quote(option: str) -> str:
    """An option as one word of an ``#SBATCH`` line. Raises ScriptError for what has no place in a line."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in option):
        raise ScriptError(f"cannot write {option!r} into a batch script: it holds a control character")
    if len(option.encode("utf-8", "surrogateescape")) > LONGEST_OPTION:
        raise ScriptError(f"cannot write {option[:40]!r}... into a batch script: it is too long")
    if _PLAIN.fullmatch(option):
        return option
    escaped = option.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def sbatch_script(
    options: SlurmOptions, *, nodes: int, name: str, run_id: str, cwd: str, argv: Sequence[str]
) -> str:
    """The script's text. In its job phalanx finds the allocation by SLURM_JOB_ID. Raises ScriptError."""
    from jinja2 import Environment, StrictUndefined

    asked = [
        word for word in salloc(options, nodes=nodes, name=name, run_id=run_id)[1:] if word not in _OF_SALLOC
    ]
    words = [shlex.quote(word) for word in argv]
    if any("\0" in word or "\n" in word for word in (cwd, *argv)):
        raise ScriptError("cannot write the command into a batch script: it holds a line break or a NUL")
    # a shell script, not a page: every value passes through one of the two filters
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"quote": quote, "shell": shlex.quote}
    text = files("phalanx.templates").joinpath("slurm", "allocation.sbatch.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(options=asked, cwd=cwd, argv=words)
