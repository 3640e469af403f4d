"""``phalanx report``: results and runs as pages to look at, to send, and side by side."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import click
from phalanx.controller.cli.completing import run_ids
from phalanx.controller.cli.selecting import chosen, json_option, put, refuse
from phalanx.controller.cli.verbs import Verbs
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text
from phalanx.controller.runs.directory import runs_root


@click.group(cls=Verbs)
def command() -> None:
    """Results and runs as pages, as mail, and side by side."""


HTML_EPILOG = """\b
Examples:
  phalanx report to-html                                  the latest run: its report.html
  phalanx report to-html @failed --open
  phalanx report to-html --csv-file-path perf.csv         perf.html beside it

The page is one file that loads nothing from anywhere: it can be sent, kept and printed. That of a run
holds the ends of its logs, and is written for its owner alone unless -o names another place.
Exit: 0 written, 1 the table cannot be read or the page not written, 4 bad arguments or no such run.
"""


@command.command("to-html", epilog=HTML_EPILOG)
@click.argument("run", required=False, default="", metavar="[RUN]", shell_complete=run_ids)
@click.option(
    "--csv-file-path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A table of results: perf.csv.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="Write the page here.")
@click.option("--open", "open_it", is_flag=True, help="Show it in a browser, where there is a display.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was read and how large the page is.")
def to_html(run: str, csv_file_path: Path | None, output: Path | None, open_it: bool, verbose: bool) -> int:
    """A page for RUN (the latest without a name), or for a table of results."""
    if csv_file_path is not None and run:
        raise click.UsageError(f"cannot report on both: give RUN ({run}) or --csv-file-path, not both")
    begun = time.monotonic()
    if csv_file_path is not None:
        page, place = _of_table(csv_file_path, output), output or csv_file_path.with_suffix(".html")
    else:
        page, place = _of_run(run or "@latest", output)
    _write(place, page, private=csv_file_path is None and output is None)
    _say_where(place)
    if verbose:
        took = time.monotonic() - begun
        click.echo(f"phalanx: {len(page) / 1e6:.2f} MB in {took:.2f} s", err=True)
    if open_it:
        _open(place, os.environ)
    return Exit.OK


def _of_table(path: Path, output: Path | None) -> bytes:
    from phalanx.controller.report.csv_page import csv_page
    from phalanx.controller.results.summary import read_summary
    from phalanx.controller.results.table import TableError

    shown = clean_text(str(path))
    if path.suffix.lower() != ".csv":
        refuse(f"cannot make a page of {shown}: expected a file that ends in .csv")
    if output is not None and output.exists() and path.exists() and output.samefile(path):
        refuse(f"cannot write the page to {shown}: it is the table itself; name another file with -o")
    try:
        return csv_page(path.name, str(path.absolute().parent), read_summary(path))
    except TableError as error:
        refuse(f"cannot make a page of {shown}: {clean_text(str(error))}")


def _of_run(selector: str, output: Path | None) -> tuple[bytes, Path]:
    from phalanx.controller.report.run_page import ReportError, run_page

    found = chosen(selector)
    try:
        page = run_page(found, time.time())
    except ReportError as error:
        refuse(clean_text(str(error)))
    return page, output or Path(found.shown()) / "report.html"


def _write(place: Path, page: bytes, *, private: bool) -> None:
    from phalanx.controller.report.rendering import write_page

    try:
        write_page(place, page, private=private)
    except OSError as error:
        why = error.strerror or str(error)
        refuse(f"cannot write {clean_text(str(place))}: {why}; choose another place with -o")


def _say_where(place: Path) -> None:
    """The path on standard output, unless the page went to a device or pipe: that may be the same."""
    from phalanx.controller.results.locking import is_stream

    if not is_stream(place):
        put(str(place))


def _open(place: Path, environ: Mapping[str, str]) -> None:
    """In a browser of this display; without one the path is all there is to give."""
    import webbrowser

    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        click.echo("phalanx: cannot open it: there is no display here", err=True)
    elif not webbrowser.open(place.absolute().as_uri()):
        click.echo("phalanx: cannot open it: no browser was found", err=True)


MAIL_EPILOG = """\b
Examples:
  phalanx report to-email
  phalanx report to-email --directory results --output nightly.html
  mutt -e 'set content_type=text/html' -s nightly team@example.org < nightly.html

It sends no mail: it writes a page that mail programs show as it is, without scripts or style sheets.
Exit: 0 written, also when a table could not be read, which is then named on the page and here;
1 no table that can be read, 4 bad arguments.
"""


@command.command("to-email", epilog=MAIL_EPILOG)
@click.option(
    "--directory", "--dir", type=click.Path(path_type=Path), default=".", metavar="DIR",
    show_default=True, help="Every *.csv in it is shown, by name.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="run_results.html", metavar="FILE",
    show_default=True, help="Write the page here.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Say what was read.")
def to_email(directory: Path, output: Path, verbose: bool) -> int:
    """One page for mail of all tables of a folder. It sends no mail."""
    from phalanx.controller.report.mail import mail_page, read_folder

    shown = clean_text(str(directory))
    try:
        found = read_folder(directory)
    except OSError as error:
        refuse(f"cannot read the folder {shown}: {error.strerror}")
    for name, why in found.unreadable:
        click.echo(f"phalanx: cannot read {clean_text(name)}: {clean_text(why)}; the page says so", err=True)
    if not found.tables:
        why = "no *.csv in it can be read" if found.unreadable else "there is no *.csv in it"
        refuse(f"cannot make a page of {shown}: {why}; name a folder with results with --directory")
    if verbose:
        for table in found.tables:
            click.echo(f"phalanx: {clean_text(table.stem)}: {table.total} rows", err=True)
    title = f"Results of {directory.absolute().name or directory}"
    _write(output, mail_page(title, found.tables, found.unreadable), private=False)
    _say_where(output)
    return Exit.OK


COMPARE_EPILOG = """\b
Examples:
  phalanx report compare 7f3a 91bc                          two runs
  phalanx report compare baseline/perf.csv @latest
  phalanx report compare A.csv B.csv C.csv -o compare.html
  phalanx report compare last/perf_super.json perf_super.json --json

Each is a run (id, @latest, ..., directory) or a file: perf.csv, perf_entry.json, perf_super.json. Changes are
in percent of the first. Of a file with several rows of a model the last counts.
Exit: 0 compared, whatever came out, 1 the page cannot be written, 4 something cannot be read.
"""


@command.command("compare", epilog=COMPARE_EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="A B [C]...", shell_complete=run_ids)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with bars, too."
)
@json_option
def compare(names: tuple[str, ...], output: Path | None, as_json: bool) -> int:
    """Runs or tables of results side by side, against the first."""
    from phalanx.controller.report.compare_text import lines
    from phalanx.controller.report.sides import SideError, compared, page, read_sides, sides_document
    from phalanx.controller.results.compare import document

    try:
        sides = read_sides(names, runs_root())
    except SideError as error:
        refuse(clean_text(str(error)), Exit.USAGE)
    found = compared(sides)
    if as_json:
        whole = {**document(found), "tables": sides_document(sides)}
        put(json.dumps(whole, ensure_ascii=False, allow_nan=False))
    else:
        put("\n".join(lines(sides, found)))
    if output is not None:
        _write(output, page(sides, found), private=False)
        click.echo(f"phalanx: wrote {clean_text(str(output))}", err=True)
    return Exit.OK
