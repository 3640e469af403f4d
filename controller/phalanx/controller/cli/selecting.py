"""What several verbs share: the RUN argument, node options, colour, and words of refusal."""

from __future__ import annotations

import locale
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from phalanx.controller.cli.completing import run_ids
from phalanx.controller.cli.streams import OutputLost, drop
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text
from phalanx.controller.nodesets import NodesetError, expand, ranges
from phalanx.controller.runs.directory import RunDirectory, SelectionError, runs_root, select
from phalanx.controller.runs.words import Style

if TYPE_CHECKING:
    from phalanx.controller.runs.model import RunView

F = TypeVar("F", bound=Callable[..., Any])


class Refused(click.ClickException):
    """A command that cannot do what was asked; ``code`` is how the process ends."""

    def __init__(self, message: str, code: Exit = Exit.FAILURE) -> None:
        super().__init__(message)
        self.code = code


def run_argument(function: F) -> F:
    """The optional RUN."""
    return click.argument("run", required=False, default="@latest", metavar="[RUN]", shell_complete=run_ids)(
        function
    )


def color_option(function: F) -> F:
    """``--color``, independent of ``--progress``."""
    return click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        envvar="PHALANX_COLOR",
        help="Colours: auto means on a terminal, unless NO_COLOR is set.",
    )(function)


def prefix_option(function: F) -> F:
    """``--prefix``; one that no line could get is refused."""
    return click.option(
        "--prefix",
        default="auto",
        metavar="MODE",
        callback=_prefix,
        help="auto, host, rank, both, none, or a {node}/{rank} text.",
    )(function)


def _prefix(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value == "auto" or ctx.resilient_parsing:
        return value
    from phalanx.controller.logs.prefix import prefix_error

    if why := prefix_error(value):
        refuse(f"cannot use --prefix {value!r}: {why}", Exit.USAGE)
    return value


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")(
        function
    )


def chosen(selector: str) -> RunDirectory:
    """The run that a selector means, or a usage error."""
    try:
        return select(runs_root(), selector)
    except SelectionError as error:
        raise Refused(str(error), Exit.USAGE) from error


def node_names(nodeset: str) -> tuple[str, ...]:
    """The names of a node set, () for "", or a usage error."""
    try:
        return expand(nodeset) if nodeset else ()
    except NodesetError as error:
        raise Refused(str(error), Exit.USAGE) from error


def controller_of(run: RunDirectory, cannot: str) -> Path:
    """The socket of a run that goes on, or a refusal that begins with ``cannot``."""
    from phalanx.controller.runs.contact import socket_path
    from phalanx.controller.runs.status import summary

    if summary(run).finished:
        raise Refused(f"{cannot}: it is over; see: phalanx ps")
    path = socket_path(run)
    if path is None:
        raise Refused(f"{cannot}: it has no controller; see: phalanx status {run.run_id}")
    return path


def run_nodes(run: RunDirectory, nodeset: str, exclude: str, cannot: str) -> tuple[str, ...] | None:
    """The nodes of a run that are meant, None for all; or a usage error that begins with ``cannot``."""
    if not nodeset and not exclude:
        return None
    from phalanx.controller.runs.records import read_all
    from phalanx.controller.runs.view import fold

    known = [name for name, node in fold(read_all(run.events)).nodes.items() if node.joined_at is not None]
    wanted = node_names(nodeset) or tuple(known)
    strangers = [name for name in wanted if name not in known]
    if strangers:
        raise Refused(
            f"{cannot} on {', '.join(strangers)}: no such node in {run.run_id}; see: phalanx nodes",
            Exit.USAGE,
        )
    without = frozenset(node_names(exclude))
    return tuple(name for name in wanted if name not in without)


def refuse_strange_nodes(run: RunDirectory, view: RunView, names: tuple[str, ...], cannot: str) -> None:
    """A usage error that begins with ``cannot`` for nodes that the run has not."""
    from phalanx.controller.nodesets import fold
    from phalanx.controller.runs.asked import strange_nodes

    if strangers := strange_nodes(view, names):
        refuse(f"{cannot} {fold(strangers)}: no such node in {run.run_id}; see: phalanx nodes", Exit.USAGE)


def refuse_strange_case(run: RunDirectory, view: RunView, name: str, cannot: str) -> None:
    """A usage error that begins with ``cannot`` for a case that the run has not; "" is none."""
    from phalanx.controller.listing import listed
    from phalanx.controller.runs.asked import strange_case

    if name and strange_case(view, name):
        these = listed(list(view.case_names), 10)
        refuse(
            f"{cannot} case {clean_text(name)}: no such case in {run.run_id}; it has {these or 'none'}",
            Exit.USAGE,
        )


def rank_ranges(text: str) -> tuple[range, ...]:
    """The ranks of ``0-7,12``, () for "", or a usage error."""
    try:
        return ranges(text) if text else ()
    except NodesetError as error:
        raise Refused(str(error), Exit.USAGE) from error


def wants_color(choice: str, stream: Any) -> bool:
    """Whether to colour what goes to ``stream``: the option, NO_COLOR, FORCE_COLOR, then the terminal."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR") or os.environ.get("CLICOLOR_FORCE"):
        return True
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def style_for(choice: str, stream: Any) -> Style:
    """What the terminal behind ``stream`` can show."""
    terminal = stream.isatty()
    width = shutil.get_terminal_size().columns - 1 if terminal else 0
    return Style(color=wants_color(choice, stream), unicode=speaks_unicode(), width=width)


def speaks_unicode() -> bool:
    """Whether symbols outside ASCII arrive as such."""
    return "utf" in (locale.getpreferredencoding(False) or "").lower()


def refuse(message: str, code: Exit = Exit.FAILURE) -> NoReturn:
    """End the command with words and a code."""
    raise Refused(message, code)


def put(text: str) -> None:
    """A line of data on standard output."""
    sys.stdout.write(text + "\n")


def put_last(text: str, otherwise: str) -> Exit:
    """The last line of data; when it cannot be written that is a failure, said with ``otherwise``."""
    try:
        put(text)
        sys.stdout.flush()
    except OutputLost as error:
        click.echo(f"phalanx: cannot write to standard output: {error}; {otherwise}", err=True)
        drop()
        return Exit.FAILURE
    return Exit.OK
