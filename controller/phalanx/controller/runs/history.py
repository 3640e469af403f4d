"""A run on its way into the history: read from its event log, kept once, and noted in its directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from phalanx.controller.results.history import HistoryError, RunEntry, opened
from phalanx.controller.results.state_home import history_path
from phalanx.controller.runs.directory import RUN_ID, RunDirectory, read_identity
from phalanx.controller.runs.history_entry import entry_of
from phalanx.controller.runs.history_note import NOTE, leave_note
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.records import parse
from phalanx.controller.runs.view import advance

#: An event of a case with 10,000 rows is some 20 MB.
_LINE_LIMIT = 128 * 1024 * 1024

log = logging.getLogger("phalanx.controller")


class NotRecorded(Exception):
    """A run directory holds nothing that the history could keep. The message is for the user."""


def keep(run: RunDirectory, environ: Mapping[str, str]) -> None:
    """Add a run that is over to the history and leave the note. Never raises: the run must not be hurt."""
    try:
        error = _kept(run, environ)
    except Exception as failure:  # noqa: BLE001 - a run that went well must not end badly for its bookkeeping
        error = f"cannot add the run to the history: {type(failure).__name__}: {failure}"
    if error:
        log.warning("%s", error)
    try:
        leave_note(run, error)
    except OSError as failure:
        log.warning("cannot write %s: %s", NOTE, failure.strerror)


def _kept(run: RunDirectory, environ: Mapping[str, str]) -> str:
    """Empty when the run is in the history, or is not to be; else why it is not."""
    path = history_path(environ)
    if path is None:
        return ""
    try:
        entry = read_entry(run)
        with opened(path) as history:
            history.add(entry)
    except (HistoryError, NotRecorded) as error:
        return str(error)
    return ""


def read_entry(run: RunDirectory) -> RunEntry:
    """The entry of a run directory. Raises NotRecorded."""
    cannot = f"cannot add {run.shown()} to the history"
    view = RunView()
    try:
        with run.events.open("rb") as file:
            for line in iter(lambda: file.readline(_LINE_LIMIT), b""):
                for recorded in parse([line] if line.endswith(b"\n") else []):
                    advance(view, recorded)
                view.run_id = view.run_id or _run_id(line) or run.run_id
        if view.finished:
            return entry_of(str(run.path), view, _identity(run))
    except OSError as error:
        raise NotRecorded(f"{cannot}: {error.filename or run.events}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        # A log from elsewhere: its lines are events by name, and their fields may be anything.
        raise NotRecorded(f"{cannot}: events.jsonl holds what is no event ({error})") from error
    raise NotRecorded(f"{cannot}: its event log has no end, so what became of it is not known")


def _run_id(line: bytes) -> str:
    """The run that an event is of; a directory may have been renamed since."""
    try:
        found = str(json.loads(line)["run"])
    except (ValueError, KeyError, TypeError):
        return ""
    return found if RUN_ID.fullmatch(found) else ""


def _identity(run: RunDirectory) -> Mapping[str, object]:
    """What run.json says; {} when it says nothing that can be read."""
    try:
        return read_identity(run)
    except (OSError, ValueError):
        return {}
