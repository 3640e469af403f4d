"""Tools around a model's script: what runs before, around and after it, in madengine's verified order.

For tools A, B: pre-scripts of B, then of A, the user's, rocEnv; ``cmd_B cmd_A script``; post-scripts of the
user, of A, of B. A tool's command is code, and may need a shell (it may end in ``&&``). The words of the
script never pass through one: a shell gets them as arguments and passes them on as ``"$@"``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from ..workflow.scripts import FoundScript
from ..workflow.tools import ChosenTool

#: A command of these letters alone means the same to a shell as split at its spaces.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./^=\t -]*")
_PROGRAM = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_.+/-]*")
#: What a shell does not look for on the PATH (POSIX.1-2017 2.4, 2.14; bash's own that run commands).
_OF_THE_SHELL = re.compile(
    r"[!.:]|alias|bg|break|builtin|case|cd|command|continue|coproc|declare|do|done|elif|else|enable|esac|eval|"
    r"exec|exit|export|fg|fi|for|function|getopts|hash|if|in|jobs|let|local|readonly|return|select|set|shift|"
    r"shopt|source|then|time|times|trap|type|typeset|ulimit|umask|unalias|unset|until|wait|while"
)
#: Pairs of a tool and what it needs; the first argument is where that is looked for.
_CHECK = """\
set -f
where=$1 status=0
shift
while [ "$#" -gt 1 ]; do
    found= IFS='|'
    for program in $2; do
        if command -v "$program" >/dev/null 2>&1; then found=1; fi
    done
    unset IFS
    if [ -z "$found" ]; then
        case $2 in
        *'|'*) what="none of $(printf %s "$2" | sed 's/|/, /g') is" ;;
        *) what="$2 is not" ;;
        esac
        echo "cannot use tool $1: $what $where; provide it, or leave the tool out" >&2
        status=127
    fi
    shift 2
done
exit "$status"
"""


@dataclass(frozen=True, slots=True)
class ToolStack:
    """What runs around a model's script. Nothing of it is shared between models.

    ``pre`` and ``post``: in the order in which they run. ``commands``: those of the tools, the outermost
    first, each once. ``env``: by name the value, which may be a whole placeholder, and its origin.
    ``collect``: patterns of files of the model's folder. ``needs``: a tool, and a program (or ``a|b``).
    """

    pre: tuple[FoundScript, ...] = ()
    post: tuple[FoundScript, ...] = ()
    commands: tuple[str, ...] = ()
    env: dict[str, tuple[str, str]] = field(default_factory=dict)
    collect: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def command(self) -> str:
        """All commands as one text, as it stands before the script."""
        return " ".join(self.commands)

    def then(self, script: FoundScript) -> ToolStack:
        """The same with one script more, last before the model."""
        return replace(self, pre=(*self.pre, script))


def stack(
    tools: Sequence[ChosenTool],
    pre_scripts: Sequence[FoundScript] = (),
    post_scripts: Sequence[FoundScript] = (),
) -> ToolStack:
    """What runs around a model that has these tools and these scripts of the user."""
    pre: list[FoundScript] = []
    post = list(post_scripts)
    env: dict[str, tuple[str, str]] = {}
    collect: list[str] = []
    needs: list[tuple[str, str]] = []
    commands: list[str] = []
    for tool in tools:
        pre[:0] = tool.pre_scripts
        post += tool.post_scripts
        env |= tool.env
        collect += (*tool.leaves, f"{tool.name}_output/*")
        needs += ((tool.name, program) for program in _needs(tool))
        if tool.command and tool.command not in commands:
            commands.insert(0, tool.command)
    return ToolStack(
        (*pre, *pre_scripts),
        tuple(post),
        tuple(commands),
        env,
        tuple(dict.fromkeys(collect)),
        tuple(dict.fromkeys(needs)),
    )


def system_details(
    script: FoundScript, model: str, mode: str, guest_os: str, hidden: Collection[str]
) -> FoundScript:
    """The script that writes ``<model>_env.csv``, last before the model.

    ``mode``: lite, full, or "" for lite. ``guest_os``: "" for not said. ``hidden``: names of variables that
    are secrets; they are left out.
    """
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", model).lstrip(".-") or "model"
    words = (f"{stem}_env", mode or "lite", guest_os, *sorted(hidden))
    return replace(script, args=shlex.join(words))


def wrap(stack: ToolStack, encapsulate: Sequence[str], script: Sequence[str]) -> tuple[str, ...]:
    """The command of the main step. ``encapsulate``: words that stand right before those of the script.

    Without a shell, unless a tool's command needs one.
    """
    words = (*encapsulate, *script)
    if all(_is_plain(command) for command in stack.commands):
        return (*(word for command in stack.commands for word in command.split()), *words)
    return ("bash", "-c", f'{stack.command} "$@"', "bash", *words)


def check_argv(stack: ToolStack, where: str = "in the image") -> tuple[str, ...] | None:
    """A command that fails with 127 and the names of what the tools lack; None when they need nothing.

    To be run where the model will run, on each node: what another machine has says nothing about it.
    """
    if not stack.needs:
        return None
    return ("sh", "-c", _CHECK, "sh", where, *(word for pair in stack.needs for word in pair))


def _is_plain(command: str) -> bool:
    first = command.split(maxsplit=1)[0]
    return _PLAIN.fullmatch(command) is not None and "=" not in first and not _OF_THE_SHELL.fullmatch(first)


def _needs(tool: ChosenTool) -> tuple[str, ...]:
    if tool.needs is not None:
        return tool.needs
    first = next(iter(tool.command.split(maxsplit=1)), "")
    if not _PROGRAM.fullmatch(first) or _OF_THE_SHELL.fullmatch(first):
        return ()
    return (first,)
