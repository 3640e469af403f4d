"""Run directories: how they are named, made and found again.

A run is a directory that sorts by time and can be read by a person: ``YYYYMMDD-HHMMSS-<name>-<4 hex>``. It is
private to its user (logs and environment may tell more than its owner knows), and only the controller's
machine has to see it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

RUN_ID = re.compile(r"(?P<day>\d{8})-(?P<time>\d{6})-(?P<name>.+)-(?P<token>[0-9a-f]{4})")
DEFAULT_ROOT = "phalanx-runs"
LATEST = "latest"
#: A name is part of host-side paths and labels: short, and nothing that a shell or a path would read.
NAME_LIMIT = 40
#: Bytes of run.json that are read: it is a few hundred, and a command line may be long.
_IDENTITY_LIMIT = 4 * 1024 * 1024


#: What helps who cannot use a folder of runs.
_OWN = "set PHALANX_RUNS_DIR to a folder of yours"


class SelectionError(Exception):
    """No run, or more than one, answers to a selector. The message is for the user."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The places of one run."""

    path: Path

    @property
    def run_id(self) -> str:
        """The id is the directory's name."""
        return self.path.name

    @property
    def name(self) -> str:
        """The readable part of the id."""
        match = RUN_ID.fullmatch(self.path.name)
        return match["name"] if match else self.path.name

    @property
    def events(self) -> Path:
        """The truth: one event a line."""
        return self.path / "events.jsonl"

    @property
    def control(self) -> Path:
        """Where the controller says how to reach it."""
        return self.path / "control.json"

    @property
    def plan(self) -> Path:
        """What the run was told to do."""
        return self.path / "plan.json"

    @property
    def identity(self) -> Path:
        """Who started it, where, with which words."""
        return self.path / "run.json"

    @property
    def logs(self) -> Path:
        """One directory per node below, and controller.log."""
        return self.path / "logs"

    @property
    def controller_log(self) -> Path:
        """What the controller process prints."""
        return self.logs / "controller.log"

    def shown(self) -> str:
        """The path as a person would type it: relative when it is below the current directory."""
        try:
            return str(self.path.relative_to(Path.cwd()))
        except ValueError:
            return str(self.path)


def slug(name: str) -> str:
    """``name`` as part of a run id: letters, digits, dot, dash and underscore."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:NAME_LIMIT].strip("-.")
    return kept or "run"


def new_run_id(name: str, now: datetime | None = None, token: str | None = None) -> str:
    """A fresh run id; ``now`` is local time and ``token`` four hexadecimal digits."""
    moment = now or datetime.now().astimezone()
    return f"{moment:%Y%m%d-%H%M%S}-{slug(name)}-{token or secrets.token_hex(2)}"


def runs_root(environ: Mapping[str, str] = os.environ) -> Path:
    """``$PHALANX_RUNS_DIR``, else ``phalanx-runs`` in the current directory; absolute."""
    chosen = environ.get("PHALANX_RUNS_DIR") or DEFAULT_ROOT
    return Path(chosen).expanduser().absolute()


def create(root: Path, run_id: str) -> RunDirectory:
    """Make the directory of a run (mode 0700) with its log folder. Raises FileExistsError for a taken id."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = root / run_id
    path.mkdir(mode=0o700)
    run = RunDirectory(path)
    run.logs.mkdir(mode=0o700)
    return run


def point_latest(run: RunDirectory) -> None:
    """Let ``latest`` show this run. A filesystem without symbolic links does without."""
    fresh = run.path.parent / f".{LATEST}-{run.run_id}"
    try:
        fresh.symlink_to(run.run_id)
        fresh.replace(run.path.parent / LATEST)
    except OSError:
        fresh.unlink(missing_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Write a whole file that only its owner may read, by rename: a reader sees all of it or nothing."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_identity(run: RunDirectory) -> dict[str, Any]:
    """What run.json says; {} when it holds no object. Raises OSError, and ValueError for what is no JSON."""
    with run.identity.open("rb") as file:
        content = file.read(_IDENTITY_LIMIT)
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return found if isinstance(found, dict) else {}


def all_runs(root: Path) -> Iterator[RunDirectory]:
    """Every run below ``root``, newest first. Raises SelectionError for a folder that cannot be read."""
    try:
        names = sorted(
            (entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)), reverse=True
        )
    except FileNotFoundError:
        return
    except OSError as error:
        raise SelectionError(f"cannot read the runs in {root}: {error.strerror}; {_OWN}") from error
    for name in names:
        if RUN_ID.fullmatch(name):
            yield RunDirectory(root / name)


def select(root: Path, selector: str = "@latest") -> RunDirectory:
    """The run that a selector means.

    Accepted: an id, a unique prefix or the last four digits of one, ``@latest``, ``@failed``, a Slurm job id,
    a run's name (the newest of that name), a path. Raises SelectionError, also for a run that cannot be read.
    """
    run = _found(root, selector)
    if why := unreadable(run):
        raise SelectionError(f"cannot read run {run.run_id}: {why}; it may be another user's: {_OWN}")
    return run


def unreadable(run: RunDirectory) -> str:
    """Why a run's event log cannot be read; "" when it can be, or is not there yet."""
    try:
        run.events.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _found(root: Path, selector: str) -> RunDirectory:
    if "/" in selector:
        path = Path(selector).absolute()
        if (
            unreadable(RunDirectory(path))
            or (path / "events.jsonl").exists()
            or (path / "plan.json").exists()
        ):
            return RunDirectory(path.resolve())
        raise SelectionError(f"cannot find a run in {selector}: it has no events.jsonl")
    runs = list(all_runs(root))
    if not runs:
        raise SelectionError(f"cannot find a run: {root} holds none; start one with: phalanx run -- COMMAND")
    if selector in ("", "@latest"):
        return _latest(root, runs)
    if selector == "@failed":
        return _failed(root, runs)
    return _named(root, runs, selector)


def _latest(root: Path, runs: list[RunDirectory]) -> RunDirectory:
    """What the link shows, else the newest by name."""
    try:
        target = (root / LATEST).readlink().name
    except OSError:
        return runs[0]
    return next((run for run in runs if run.run_id == target), runs[0])


def _failed(root: Path, runs: list[RunDirectory]) -> RunDirectory:
    from phalanx.controller.runs.records import last_state  # events take longer to import than most verbs

    for run in runs:
        if last_state(run.events) == "failed":
            return run
    raise SelectionError(f"cannot find a failed run: none of the {len(runs)} in {root} ended as failed")


def _named(root: Path, runs: list[RunDirectory], selector: str) -> RunDirectory:
    for run in runs:
        if run.run_id == selector:
            return run
    if selector.isdigit():
        from phalanx.controller.runs.records import granted_job

        for run in runs:
            if granted_job(run.events) == selector:
                return run
    for run in runs:
        if run.name == selector:
            return run
    found = [run for run in runs if run.run_id.startswith(selector) or run.run_id.endswith("-" + selector)]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(run.run_id for run in found[:4]) + (" ..." if len(found) > 4 else "")
        raise SelectionError(
            f"cannot tell which run {selector!r} means: {len(found)} begin so ({some}); write more of the id"
        )
    raise SelectionError(
        f"cannot find run {selector!r} in {root}: no id, name or job is like it; see: phalanx ps"
    )
