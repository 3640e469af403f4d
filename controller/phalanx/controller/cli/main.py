"""``phalanx``: the group of verbs. A verb is imported when it is called, so ``--help`` answers at once."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli import streams

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: Verb and its one line for ``--help``. Its module is ``cli.<verb>``, the command in it ``command``.
VERBS = {
    "discover": "List the models of a project, or those that tags choose.",
    "run": "Run a command or models on many nodes, and stream what they say.",
    "build": "Build the images of models, and write the manifest that a run begins from.",
    "image": "Bring an image to nodes, see who has it, remove what is kept of images.",
    "exec": "Run one more command on the nodes of a live run.",
    "ps": "List the runs of this directory.",
    "status": "How a run stands, or how it ended.",
    "nodes": "The nodes of a run.",
    "logs": "Show what the ranks of a run wrote.",
    "report": "Results and runs as pages, as mail, and side by side.",
    "cancel": "End a run.",
    "wait": "Wait for a run and return its exit code.",
    "history": "Results and nodes of runs over time.",
    "baseline": "Values to hold later ones against, and whether a run has got worse.",
    "database": "Put a file of results into a MongoDB.",
    "doctor": "What this machine has, and what is missing for which target.",
    "completion": "Print the completion script of a shell.",
}

EPILOG = """\b
Examples:
  phalanx run -N 2 -- hostname
  phalanx run --tags ring_allreduce -N 4
  phalanx logs -f
  phalanx status @latest --json

RUN is an id, a unique beginning of one, @latest (what you get without it), @failed,
a Slurm job id or a run's name. Runs are kept in $PHALANX_RUNS_DIR or ./phalanx-runs.
"""

#: Objects between two collections. Python's 700 means a hundred of them while modules are imported, which
#: make no garbage: a tenth of the CPU of a short run.
GC_THRESHOLD = 20_000


#: The verb whose arguments are files of this machine, which may be called anything.
OF_FILES = "report"


class ReaderGone(Exception):
    """Standard output was closed by who read it."""


class LazyGroup(click.Group):
    """Knows its verbs by name and imports one only to call it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, when all of it is text: no run and no file of one can hold anything else."""
        if not ctx.resilient_parsing and args[:1] != [OF_FILES]:
            for number, word in enumerate(args, start=1):
                if not _is_text(word):
                    raise click.UsageError(_no_text(number, args[:number]))
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are used, not by alphabet."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb's command, or None."""
        if name not in VERBS:
            return None
        command = importlib.import_module(f"phalanx.controller.cli.{name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"phalanx.controller.cli.{name} has no command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table, as in help: click would import every verb for its line."""
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(name, help=words) for name, words in VERBS.items() if name.startswith(incomplete)
        ]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, but a closed pipe keeps its meaning: click would make it exit 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table: describing the verbs must not import them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest spelling for an unknown verb."""
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            raise click.UsageError(f"cannot find verb {name!r}{nearest(name, VERBS)}", ctx)
        return super().resolve_command(ctx, args)


def nearest(word: str, known: Iterable[str]) -> str:
    """`` ; did you mean X?`` when something known is spelled alike, else ""."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _is_text(word: str) -> bool:
    if word.isascii():  # nearly all are: what looks at the others brings the whole plan along
        return True
    from phalanx.controller.plan.text import is_text

    return is_text(word)


def _no_text(number: int, words: list[str]) -> str:
    """Words about the last argument, which is not shown: it may hold a secret, or act on the terminal."""
    from phalanx.controller.plan.text import no_text

    said = [word.partition("=")[0] for word in [*words[-1:], *words[-2:-1]]]
    option = next((word for word in said if word.startswith("-") and word != "--" and _is_text(word)), "")
    return no_text(f"argument {number}{option and f' ({option})'}")


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from phalanx.protocol.release import VERSION

        click.echo(f"phalanx {VERSION}")
        ctx.exit()


@click.command(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
)
def phalanx() -> None:
    """Containerised workloads on whole clusters: one controller, one light agent per node."""


def main(argv: Sequence[str] | None = None) -> None:
    """The ``phalanx`` command once its modules are there. Ends the process with a code of ``exits``."""
    gc.set_threshold(GC_THRESHOLD)
    code = 0
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of ``entry``, while modules were imported
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = phalanx.main(
            args=None if argv is None else list(argv), prog_name="phalanx", standalone_mode=False
        )
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - the last boundary: no traceback reaches a user
        code = code or _told(error)
    except KeyboardInterrupt:
        code = 130
    finally:
        streams.settle()
    gc.freeze()  # what lives at the end is no garbage: the interpreter need not search it
    sys.exit(int(code or 0))


def _told(error: Exception) -> int:
    """Say what went wrong, to whom still reads; the exit code."""
    try:
        return _put(error)
    except BrokenPipeError:
        return _silence()


def _put(error: Exception) -> int:
    """Say it in the words that fit; the exit code."""
    from phalanx.controller.exits import Exit

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return Exit.USAGE
    if isinstance(error, click.UsageError):
        click.echo(f"phalanx: {error.format_message()}", err=True)
        if error.ctx is not None:
            click.echo(f"see: {error.ctx.command_path} --help", err=True)
        return Exit.USAGE
    if isinstance(error, click.ClickException):
        click.echo(f"phalanx: {error.format_message()}", err=True)
        return int(getattr(error, "code", Exit.FAILURE))
    if isinstance(error, click.Abort):
        return Exit.INTERRUPTED
    if isinstance(error, streams.OutputLost):
        click.echo(f"phalanx: cannot write to standard output: {error}", err=True)
        streams.drop()
        return Exit.FAILURE
    if isinstance(error, ReaderGone | BrokenPipeError):
        return _silence()
    if isinstance(error, OSError) and (why := _closed_to_us(error)):
        click.echo(f"phalanx: {why}", err=True)
        return Exit.FAILURE
    return _bug(error)


def _closed_to_us(error: OSError) -> str:
    """What a user can do about a place that is gone or not to be read; "" for another error."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "cannot go on: this directory is gone; cd to one that exists"
    if isinstance(error, PermissionError) and error.filename:
        from phalanx.controller.logs.clean import clean_text

        where = clean_text(os.fsdecode(error.filename))
        return f"cannot use {where}: {error.strerror}; let this user read it, or name another place"
    return ""


def _silence() -> int:
    """Nobody reads our output any more (``| head``): end as a program that SIGPIPE kills, without words."""
    streams.drop()
    return 128 + signal.SIGPIPE


def _bug(error: Exception) -> int:
    """Keep the traceback in a file and say where."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="phalanx-bug-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    what = f"{type(error).__name__}: {error}"
    click.echo(f"phalanx: this is a bug: {what}; report it with {file.name}", err=True)
    return 1
