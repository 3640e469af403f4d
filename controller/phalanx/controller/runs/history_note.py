"""``history.json`` in a run directory: the controller's last word to its clients, after the last event.

It says that the run is in the history, or why it is not. Nothing about the run depends on it: its verdict is
in the event log already.
"""

from __future__ import annotations

import asyncio
import json
import time

from phalanx.controller.runs.contact import Contact, contact
from phalanx.controller.runs.directory import RunDirectory, write_private

NOTE = "history.json"
_NOTE_LIMIT = 64 * 1024
#: How long a client waits for the note of a controller that lives, seconds, and the pause between looks.
NOTE_S, _PAUSE_S = 5.0, 0.02


def leave_note(run: RunDirectory, error: str) -> None:
    """Say that the run is in the history, or ``error``: why it is not. Raises OSError."""
    write_private(run.path / NOTE, json.dumps({"v": 1, "error": error}).encode() + b"\n")


def trouble(run: RunDirectory) -> str:
    """Why a run is not in the history, "" when nothing is known to be wrong."""
    try:
        with (run.path / NOTE).open("rb") as file:
            return str(json.loads(file.read(_NOTE_LIMIT))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


async def noted(run: RunDirectory, patience_s: float = NOTE_S) -> None:
    """Wait until the controller of a run that is over has left its note, or is gone."""
    end = time.monotonic() + patience_s
    while not _is_there(run) and time.monotonic() < end and contact(run) is Contact.ALIVE:  # noqa: ASYNC110
        await asyncio.sleep(_PAUSE_S)  # another process writes it: there is nothing here to be told by


def _is_there(run: RunDirectory) -> bool:
    return (run.path / NOTE).exists()
