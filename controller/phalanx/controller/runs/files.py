"""What a run directory says beside its event log: small files for people and scripts, derived from events.

``status.json`` may be polled over a network filesystem; ``failed.nodes`` is a node set to exclude;
``lock.json`` is what the run ran on; ``launch/`` holds its commands, to be pasted.
Losing any of them loses nothing: the log tells it all again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import time
from pathlib import Path
from typing import Any

from ..fleet.events import AllocationRequested, CaseStarted, Recorded, RunFinished, SpawnStarted
from .directory import RunDirectory, write_private
from .facts import failed_nodes, lock_document
from .model import Mark, RunView
from .status import entry, stamp
from .view import advance

#: Seconds between two writes of status.json when nothing but numbers changes.
STATUS_EVERY_S = 1.0

log = logging.getLogger("phalanx.controller")


class RunFiles:
    """The files of one run. ``take`` gets every event once it is believed."""

    def __init__(self, run_dir: Path, run_id: str) -> None:
        self._run = RunDirectory(run_dir)
        self._view = RunView(run_id=run_id)
        self._launch: dict[str, Any] = {"v": 1, "allocation": None, "spawn": []}
        self._due: dict[str, bytes] = {}
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._shown: tuple[str, str] = ("", "")

    def take(self, recorded: Recorded) -> None:
        """An event is true now."""
        try:
            self._take(recorded)
        except Exception:  # these files are a convenience: they must never cost the run
            log.exception("cannot derive the files of the run from event %d", recorded.seq)

    def _take(self, recorded: Recorded) -> None:
        advance(self._view, recorded)
        event = recorded.event
        if isinstance(event, AllocationRequested):
            self._launch["allocation"] = list(event.argv)
            self._write_launch()
        elif isinstance(event, SpawnStarted):
            self._launch["spawn"].append(list(event.argv))
            self._write_launch()
        elif isinstance(event, CaseStarted | RunFinished) and self._view.nodes:
            self._due["lock.json"] = _document(lock_document(self._view))
        if isinstance(event, RunFinished) and (nodes := failed_nodes(self._view)):
            self._due["failed.nodes"] = f"{nodes}\n".encode()
        shown = (self._view.state, phase_of(self._view))
        if shown != self._shown:
            self._shown = shown
            self._hurry.set()
        self._wake.set()

    def _write_launch(self) -> None:
        self._due["launch/argv.json"] = _document(self._launch)
        self._due["launch/srun.sh"] = script(self._launch).encode()

    # --- writing

    async def keep_written(self) -> None:
        """Write what changes, at once when the phase does and else once a second; until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._hurry.clear()
            await self._write()
            try:
                async with asyncio.timeout(STATUS_EVERY_S):
                    await self._hurry.wait()
            except TimeoutError:  # our own pause
                continue

    async def _write(self) -> None:
        due, self._due = self._due, {}
        status = _document(status_document(self._run, self._view, time.time()))
        try:
            await asyncio.to_thread(_write_all, self._run.path, {**due, "status.json": status})
        except OSError as error:
            self._due = {**due, **self._due}
            log.warning("cannot write %s: %s", error.filename or "status.json", error.strerror)

    async def close(self) -> None:
        """Write the last state."""
        await self._write()


def phase_of(view: RunView) -> str:
    """The phase that a run is in or was in last, "" before the first. Between cases it may be an image's."""
    begun = [name for name, phase in view.phases.items() if phase.mark is not Mark.WAITING]
    active = [name for name in begun if view.phases[name].mark is Mark.ACTIVE]
    return "image" if "image" in active else (active or begun or [""])[-1]


def status_document(run: RunDirectory, view: RunView, now: float) -> dict[str, Any]:
    """The state of a run as its controller knows it: an element of ``ps --json``, its phase and its age."""
    return {
        **entry(run, view, now, view.state),
        "phase": phase_of(view),
        "reason": view.reason or view.ending,
        "seq": view.seq,
        "written_at": stamp(now),
    }


def script(launch: dict[str, Any]) -> str:
    """The commands of a run as a script for people; it holds no secret and starts no agent by itself."""
    lines = [
        "#!/bin/sh",
        "# The commands with which this run got its nodes and started its agents, to be read and pasted.",
        "# Agents also need a line with addresses, certificate and secret on stdin; it is kept nowhere.",
    ]
    commands = [launch["allocation"], *launch["spawn"]]
    lines += [shlex.join(command) for command in commands if command]
    return "\n".join(lines) + "\n"


def _document(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        if path.parent != folder:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(path, content)
