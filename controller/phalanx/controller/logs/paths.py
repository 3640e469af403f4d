"""Where the log of a stream lies in the run directory, and what a path says about its stream."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from phalanx.protocol.messages import MAIN_STEP, NODE_LEVEL

#: What a node sees when a case failed. A file for people, not output of the workload: it ends in ``.txt``.
DIAGNOSTICS = "diagnostics"
_SAFE = re.compile(r"[^A-Za-z0-9_.@+=-]")


@dataclass(frozen=True, slots=True)
class StreamName:
    """A log stream: output of one process of a step. ``rank`` -1 for a step that runs once on its node."""

    node: str
    case: str
    step: str
    rank: int
    output: str


def safe(name: str) -> str:
    """``name`` as one path component: other characters become ``_``, a leading dot too."""
    cleaned = _SAFE.sub("_", name)[:128]
    return "_" + cleaned[1:] if cleaned[:1] in ("", ".") else cleaned


def log_path(stream: StreamName, *, single_case: bool) -> PurePosixPath:
    """Path relative to the run directory: ``logs/NODE/[CASE/][STEP.]rankR.out``."""
    folder = PurePosixPath("logs", safe(stream.node))
    if not single_case and stream.case:
        folder /= safe(stream.case)
    if stream.step == DIAGNOSTICS:
        return folder / f"{DIAGNOSTICS}.txt"
    step = "" if stream.step == MAIN_STEP else safe(stream.step)
    rank = "" if stream.rank == NODE_LEVEL else f"rank{stream.rank}"
    stem = ".".join(part for part in (step, rank) if part) or MAIN_STEP
    return folder / f"{stem}.{safe(stream.output)}"
