"""The last lines that explain a failure, read from the log files of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from phalanx.controller.logs.clean import clean, cut
from phalanx.controller.logs.paths import DIAGNOSTICS, StreamName, log_path
from phalanx.controller.logs.reader import tail_offset
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.history_note import trouble
from phalanx.controller.runs.model import Failure, Fault, RunView
from phalanx.protocol.messages import MAIN_STEP, NODE_LEVEL

#: Lines of a rank that a failure screen shows.
LINES = 20
#: A shown line is cut here: a screen is no pager.
LINE_BYTES = 400
#: Never read more of the end of a file than this for the screen.
_READ_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """The end of the file that has the cause. ``path`` as one would type it; ``total`` counts its lines.

    ``history``: why the run is not in the history, "" when nothing is wrong with that.
    """

    path: str = ""
    lines: tuple[str, ...] = ()
    total: int = 0
    diagnostics: str = ""
    history: str = ""


def gather(run: RunDirectory, view: RunView) -> Evidence:
    """The evidence for the first failure: what the rank wrote, standard error before output."""
    found = Evidence() if view.failure is None else of_failure(run, view, view.failure)
    return replace(found, history=trouble(run))


def of_failure(run: RunDirectory, view: RunView, failure: Failure, lines: int = LINES) -> Evidence:
    """The evidence for any failure of a run: the last ``lines`` lines and what the node wrote down."""
    diagnostics = _diagnostics(run, view, failure)
    for stream in _streams(view, failure):
        found = _tail(run, str(log_path(stream, single_case=len(view.case_names) <= 1)), lines)
        if found.lines:
            return replace(found, diagnostics=diagnostics)
    return Evidence(diagnostics=diagnostics)


def _diagnostics(run: RunDirectory, view: RunView, failure: Failure) -> str:
    """What the node wrote down about itself before it cleaned up; "" when it did not."""
    if not failure.node or not failure.case:
        return ""
    for output in ("txt", "out"):
        stream = StreamName(failure.node, failure.case, DIAGNOSTICS, NODE_LEVEL, output)
        path = log_path(stream, single_case=len(view.case_names) <= 1)
        if (run.path / path).exists():
            return f"{run.shown()}/{path}"
    return ""


def _streams(view: RunView, failure: Failure) -> list[StreamName]:
    if failure.fault is Fault.RANK:
        return [
            StreamName(failure.node, failure.case, failure.step, failure.rank, output)
            for output in ("err", "out")
        ]
    if failure.fault in (Fault.NODE, Fault.ALLOCATION) or (failure.fault is Fault.CASE and not failure.node):
        ranks = [rank for rank in view.ranks.values() if failure.node in ("", rank.node)]
        if not ranks:
            return []
        last = next((rank for rank in ranks if rank.step == MAIN_STEP), ranks[0])
        return [StreamName(last.node, last.case, last.step, last.rank, output) for output in ("err", "out")]
    return []


def _tail(run: RunDirectory, relative: str, lines: int) -> Evidence:
    path = run.path / relative
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            total = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
            start = max(tail_offset(path, lines, size), size - _READ_LIMIT)
            file.seek(start)
            data = file.read(size - start)
    except OSError:
        return Evidence()
    if data and not data.endswith(b"\n"):
        total += 1
    text = cut(clean(data), LINE_BYTES).decode("utf-8", "replace").rstrip("\n")
    if not text.strip():
        return Evidence()
    shown = RunDirectory(run.path).shown()
    return Evidence(f"{shown}/{relative}", tuple(text.split("\n")[-lines:]), total)
