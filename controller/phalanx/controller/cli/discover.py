"""``phalanx discover``: the models of a project, as a run would find them.

Exit codes are madengine's: 1 for no models.json and for a tag that takes nothing, which is what discovery is
about; 4, as everywhere here, for a file of the project that cannot be used. ``-t`` and ``-v`` are not taken:
to ``phalanx run`` they are a time limit and mounts, and what was tried here is typed there next.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.run_options import tags_option
from phalanx.controller.cli.selecting import color_option, json_option, put, refuse, wants_color
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text

if TYPE_CHECKING:
    from phalanx.controller.workflow.card import ModelCard

EPILOG = """\b
Examples:
  phalanx discover
  phalanx discover --tags inference,llama70b
  phalanx discover --tags scope/all --json
  MODEL_DIR=~/project phalanx discover | awk '{ print $1 }'

A tag takes the models that have it or are named so; all takes all; dir/TAG looks among the models
of scripts/dir only; TAG:batch-size=8:fast adds --batch-size 8 --fast to their arguments. With
--tags, models that a get_models_json.py makes are shown as a run gets them: after update_model().
Exit: 0 found, 1 no models.json or a tag that takes nothing, 4 a file that cannot be used.
"""

COLUMNS = ("NAME", "TAGS", "GPUS", "DOCKERFILE", "SCRIPTS", "SOURCE")
MORE_COLUMNS = ("LAUNCHER", "TIMEOUT", "DATA", "ARGS")
#: Tags that are shown on a terminal; the rest are counted.
TAGS_SHOWN = 6
#: More rows than this are printed as plain columns on a terminal too: laying them out would take seconds.
LAID_OUT = 300
#: Most lines of notes of one kind.
NOTES_SHOWN = 8


@click.command(epilog=EPILOG)
@tags_option("Only models that these tags or names choose.")
@click.option("--verbose", is_flag=True, help="More columns: launcher, timeout, data, arguments.")
@json_option
@color_option
def command(tags: tuple[str, ...], verbose: bool, as_json: bool, color: str) -> int:
    """List the models of the project in $MODEL_DIR, or in this directory."""
    cards, notes = _found(tags)
    _tell(notes)
    _tell([warning for card in cards for warning in card.warnings()])
    if as_json:
        put(json.dumps([document(card) for card in cards], ensure_ascii=False))
    elif not cards:
        click.echo("no models in models.json and scripts/", err=True)
    else:
        _show(cards, verbose, color)
    return Exit.OK


def _found(tags: Sequence[str]) -> tuple[Sequence[ModelCard], Sequence[str]]:
    """Cards and notes, or the end of the command."""
    from phalanx.controller.workflow.errors import DiscoveryError, InputError
    from phalanx.controller.workflow.models import chosen, discover, project_folder
    from phalanx.controller.workflow.tags import same_names

    project = project_folder(os.environ)
    try:
        if tags:
            found = chosen(project, tags)
            return found.cards, found.notes
        cards = discover(project)
    except DiscoveryError as error:
        refuse(str(error), Exit.FAILURE)
    except InputError as error:
        refuse(str(error), Exit.USAGE)
    return cards, same_names(cards)


def _tell(notes: Sequence[str]) -> None:
    for note in notes[:NOTES_SHOWN]:
        click.echo(f"phalanx: {clean_text(note)}", err=True)
    if len(notes) > NOTES_SHOWN:
        click.echo(f"phalanx: and {len(notes) - NOTES_SHOWN} more like this", err=True)


def document(card: ModelCard) -> dict[str, Any]:
    """A card as JSON: what is known of it, and fields of other tools as they stand."""
    from phalanx.controller.workflow.card import ModelCard

    # What is said of errors in logs stands as the card has it.
    names = [field.name for field in fields(ModelCard) if field.name not in ("raw", "error_scan")]
    known = {name: getattr(card, name) for name in names}
    return {**known, "where": card.where, **{key: card.raw[key] for key in card.raw if key not in known}}


def row(card: ModelCard, verbose: bool = False, tags_shown: int | None = None) -> tuple[str, ...]:
    """A card in columns; "-" for what it does not say, so that columns can be counted."""
    shown = card.tags[:tags_shown]
    more = f",+{len(card.tags) - len(shown)}" if len(shown) < len(card.tags) else ""
    cells: tuple[str, ...] = (
        card.name,
        ",".join(shown) + more,
        card.n_gpus,
        card.dockerfile,
        card.scripts,
        card.source,
    )
    if verbose:
        launcher = str(card.distributed.get("launcher", ""))
        cells = (*cells, launcher, str(card.timeout or ""), card.data, card.args.strip())
    return tuple(cell or "-" for cell in cells)


def _show(cards: Sequence[ModelCard], verbose: bool, color: str) -> None:
    head = (*COLUMNS, *MORE_COLUMNS) if verbose else COLUMNS
    if sys.stdout.isatty() and len(cards) <= LAID_OUT:
        _lay_out(head, (row(card, verbose, TAGS_SHOWN) for card in cards), wants_color(color, sys.stdout))
        return
    from phalanx.controller.cli.tables import table

    put("\n".join(table(head, [row(card, verbose) for card in cards])))


def _lay_out(head: Sequence[str], rows: Iterable[Sequence[str]], color: bool) -> None:
    """Columns that fit the terminal: what is too long goes on in the next line of its cell."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        width=shutil.get_terminal_size().columns,
        color_system="standard" if color else None,
        force_terminal=color,
        highlight=False,
    )
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        grid.add_column(name, overflow="fold", style="cyan" if name == "NAME" else None)
    for cells in rows:
        grid.add_row(*(Text(clean_text(cell)) for cell in cells))
    console.print(grid)
