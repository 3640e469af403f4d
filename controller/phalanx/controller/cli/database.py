"""``phalanx database``: a file of results to a MongoDB collection.

The letters are madengine's: ``-f``, ``-c``, ``-k``, ``-v``. What is partly uploaded ends with 1.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.selecting import json_option, put, refuse
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text

if TYPE_CHECKING:
    from phalanx.controller.results.database.address import Address
    from phalanx.controller.results.database.upload import Tally, Upload

EPILOG = """\b
Examples:
  phalanx database -f perf.csv --db perf -c results
  phalanx database -f perf_super.json --db perf -c results -k model,build_number
  phalanx database -f perf.csv --db perf -c results --dry-run
  MONGO_HOST=db1 MONGO_TLS=1 MONGO_USER=ci MONGO_PASSWORD_FILE=~/.mongo phalanx database ...

\b
Without -k a row is known by its whole content: uploading a file again adds nothing, the next
run's file replaces nothing. With -k the document with the same values of those fields is updated.
Server: MONGO_HOST (localhost), MONGO_PORT (27017) or MONGO_URI; MONGO_USER, MONGO_PASSWORD or
MONGO_PASSWORD_FILE, MONGO_AUTH_SOURCE (admin); MONGO_TLS=1, MONGO_TLS_CA_FILE;
MONGO_TIMEOUT_MS (5000).
Exit: 0 every row is there, 1 some or none are, 4 a file, key or variable that cannot be used.
"""

#: Documents that a dry run prints, and refused rows that are told without --verbose.
DOCUMENTS_SHOWN = 3
ERRORS_SHOWN = 10


@click.command(epilog=EPILOG)
@click.option(
    "-f", "--file", "path", type=click.Path(), required=True, metavar="FILE", help="CSV or JSON file."
)
@click.option("--database", "--db", required=True, metavar="NAME", help="The database.")
@click.option("-c", "--collection", required=True, metavar="NAME", help="The collection in it.")
@click.option(
    "-k", "--unique-key", "keys", multiple=True, metavar="FIELD[,...]", help="Fields that identify a row."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Rows sent at a time.",
)
@click.option("--no-upsert", is_flag=True, help="Add every row as a new document.")
@click.option("--no-index", is_flag=True, help="Make no indexes.")
@click.option("--dry-run", is_flag=True, help="Show the documents; connect to nothing.")
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Every refused row, the key and the indexes.")
def command(
    path: str,
    database: str,
    collection: str,
    keys: tuple[str, ...],
    batch_size: int,
    no_upsert: bool,
    no_index: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Put a file of results into a MongoDB."""
    from phalanx.controller.results.database.address import address_of
    from phalanx.controller.results.database.mongo import check_sizes
    from phalanx.controller.results.database.planning import planned
    from phalanx.controller.workflow.errors import InputError

    try:
        address = address_of(os.environ)
        upload, notes = planned(
            Path(path),
            database,
            collection,
            keys,
            batch_size=batch_size,
            upsert=not no_upsert,
            index=not no_index,
            now=datetime.now(UTC),
        )
        check_sizes(upload)
    except InputError as error:
        refuse(clean_text(str(error)), Exit.USAGE)
    _tell([*notes, address.warning()])
    if dry_run:
        _show(upload, address, as_json)
        return Exit.OK
    return _upload(upload, address, as_json, verbose)


def _upload(upload: Upload, address: Address, as_json: bool, verbose: bool) -> int:
    import asyncio

    from phalanx.controller.results.database.mongo import MongoError, carry_out
    from phalanx.controller.results.database.upload import Tally
    from phalanx.controller.workflow.errors import InputError

    tally, ended, code = Tally(len(upload.rows)), "", Exit.OK
    if verbose:
        _tell([_key_words(upload)])
    try:
        _tell(asyncio.run(carry_out(upload, address, tally, lambda: _progress(tally))))
    except InputError as error:
        refuse(str(error), Exit.USAGE)
    except MongoError as error:
        ended, code = str(error), Exit.FAILURE
    except KeyboardInterrupt:
        ended, code = "interrupted; uploading the file again goes on where it stopped", Exit.INTERRUPTED
        if not upload.upsert:
            ended = "interrupted; with --no-upsert, uploading the file again adds rows a second time"
    _progress_ends()
    if as_json:
        put(json.dumps(_document(upload, address, tally, ended), ensure_ascii=False))
    _tell(_error_words(tally, verbose))
    if ended and not tally.stored:
        refuse(ended, code)
    if not as_json:
        put(_result_words(upload, address, tally))
    if ended:
        refuse(ended, code)
    return Exit.FAILURE if tally.failed else Exit.OK


def _document(upload: Upload, address: Address, tally: Tally, ended: str) -> dict[str, Any]:
    return {
        "v": 1,
        "status": tally.status,
        **_target(upload, address),
        "inserted": tally.inserted,
        "updated": tally.updated,
        "unchanged": tally.unchanged,
        "failed": tally.failed,
        "errors": [{"row": place, "error": words} for place, words in tally.errors],
        "ended_by": ended or None,
    }


def _target(upload: Upload, address: Address) -> dict[str, Any]:
    return {
        "file": upload.shown,
        "server": address.seen,
        "database": upload.database,
        "collection": upload.collection,
        "key": list(upload.key.fields) if upload.keyed else [],
        "rows": len(upload.rows),
    }


def _show(upload: Upload, address: Address, as_json: bool) -> None:
    """A dry run: the first documents, where they would go, and under which key."""
    from phalanx.controller.results.database.upload import document, indexes

    documents = [document(upload, row) for row in upload.rows[:DOCUMENTS_SHOWN]]
    made = [{"fields": list(index.fields), "unique": index.unique} for index in indexes(upload)]
    if as_json:
        whole = {"v": 1, "dry_run": True, **_target(upload, address), "indexes": made, "documents": documents}
        put(json.dumps(whole, ensure_ascii=False, default=_in_json))
        return
    for shown in documents:
        lines = json.dumps(shown, indent=2, ensure_ascii=False, default=_in_json).split("\n")
        put("\n".join(line[: len(line) - len(line.lstrip())] + clean_text(line) for line in lines))
    if len(upload.rows) > len(documents):
        put(f"and {len(upload.rows) - len(documents)} more")
    put(f"{_rows(len(upload.rows))} of {upload.shown} would go to {_place(upload, address)}")
    put(_key_words(upload))


def _in_json(value: Any) -> str:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else str(value)


def _key_words(upload: Upload) -> str:
    from phalanx.controller.results.database.upload import indexes

    if not upload.keyed:
        key = "key: none, every row is a new document"
    elif upload.key.digest:
        key = "key: _id, made of the row's content"
    else:
        key = f"key: {', '.join(upload.key.fields)}"
    names = [f"{', '.join(one.fields)}{' (unique)' if one.unique else ''}" for one in indexes(upload)]
    return f"{key}; indexes: {'; '.join(names) or 'none'}"


def _result_words(upload: Upload, address: Address, tally: Tally) -> str:
    return (
        f"{tally.status}: {_rows(tally.rows)} of {upload.shown} to {_place(upload, address)}: "
        f"{tally.inserted} inserted, {tally.updated} updated, {tally.unchanged} unchanged, "
        f"{tally.failed} failed"
    )


def _place(upload: Upload, address: Address) -> str:
    return f"{upload.database}.{upload.collection} on {clean_text(address.seen)}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _error_words(tally: Tally, verbose: bool) -> list[str]:
    shown = tally.errors if verbose else tally.errors[:ERRORS_SHOWN]
    more = len(tally.errors) - len(shown)
    return [*(f"{place}: {words}" for place, words in shown), f"and {more} more; see -v" if more else ""]


def _tell(notes: list[str]) -> None:
    for note in notes:
        if note:
            click.echo(f"phalanx: {clean_text(note)}", err=True)


def _progress(tally: Tally) -> None:
    """One line that is written over, on a terminal, while more is to come."""
    done = tally.stored + len(tally.errors)
    if sys.stderr.isatty() and done < tally.rows:
        click.echo(f"\r{done} of {_rows(tally.rows)}", err=True, nl=False)


def _progress_ends() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
