"""What the history keeps of a run: its event log and ``run.json``, as values. Pure.

The log and the file may come from another machine (``phalanx history import``): what they hold is text of a
limited length here, whatever it was there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from phalanx.controller.exits import Exit
from phalanx.controller.results.history import NodeEntry, RowEntry, RunEntry
from phalanx.controller.runs.echoes import end_words, out_of_time
from phalanx.controller.runs.model import Failure, Fault, RunView

#: Characters of a cell and of a sentence; rows and nodes of a run; words of a command line.
CELL_LIMIT, WORDS_LIMIT = 65_536, 1_000
ROW_LIMIT, NODE_LIMIT, ARGV_LIMIT = 100_000, 100_000, 4_096
#: Wall clocks that a calendar has everywhere: 1970-01-02 to 9999-12-30.
_EARLIEST, _LATEST = 86_400.0, 253_402_128_000.0


def entry_of(directory: str, view: RunView, identity: Mapping[str, Any]) -> RunEntry:
    """The entry of a run that is over. ``identity``: what ``run.json`` says, {} when there is none.

    Raises ValueError for a run that is not over.
    """
    if view.exit_code is None or view.finished_at is None:
        raise ValueError(f"{view.run_id} is not over")
    return RunEntry(
        id=text(view.run_id),
        name=text(view.name),
        directory=directory,
        started=_moment(view.started_at if view.started_at is not None else view.finished_at),
        finished=_moment(view.finished_at),
        state=text(view.state),
        exit_code=int(view.exit_code),
        reason=sentence(view.reason),
        target=text(view.target),
        job_id=text(view.job_id),
        node_count=int(view.expected),
        argv=_argv(identity.get("argv")),
        user=text(identity.get("user", "")),
        host=text(identity.get("host", "")),
        rows=_rows(view),
        nodes=_nodes(view),
    )


def number(cell: str) -> float | None:
    """The number that a cell holds, None when it holds none that can be compared."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def text(value: object) -> str:
    """Anything as text that a database takes: no lone surrogate, no NUL, no more than fits a cell."""
    return str(value)[:CELL_LIMIT].replace("\0", "").encode("utf-8", "replace").decode()


def sentence(value: object) -> str:
    """Words for a person, on one line."""
    return " ".join(text(value).split())[:WORDS_LIMIT]


def _moment(at: float) -> float:
    """A wall clock that can be shown in any time zone."""
    return min(max(at, _EARLIEST), _LATEST)


def _argv(words: object) -> tuple[str, ...]:
    return tuple(text(word) for word in words[:ARGV_LIMIT]) if isinstance(words, list) else ()


def _rows(view: RunView) -> tuple[RowEntry, ...]:
    """The rows of all cases in the order of the plan; of a case that has none, one with its status."""
    found: list[RowEntry] = []
    for name in dict.fromkeys([*view.case_names, *view.cases]):
        case = view.case(name)
        at = _moment(case.ended if case.ended is not None else view.finished_at or 0.0)
        for row in case.rows or ({"model": name, "status": case.status or "SKIPPED"},):
            columns = {text(key): text(cell) for key, cell in row.items()}
            found.append(RowEntry(text(name), at, number(columns.get("performance", "")), columns))
    return tuple(found[:ROW_LIMIT])


def _nodes(view: RunView) -> tuple[NodeEntry, ...]:
    return tuple(
        NodeEntry(text(name), *_part(view, name)) for name in list(dict.fromkeys(view.nodes))[:NODE_LIMIT]
    )


def _part(view: RunView, node: str) -> tuple[bool, str]:
    """Whether a node failed first, and why it is to blame at all."""
    first = view.failure
    if first is not None and first.node == node:
        return not any(out_of_time(view)), sentence(_why(first))
    if node in view.missing:
        why = view.missing[node] or "no word from it"
        return view.exit_code == Exit.JOIN, sentence(f"did not join: {why}")
    return False, ""


def _why(first: Failure) -> str:
    """The first failure in one sentence."""
    if first.fault is Fault.RANK:
        where = f"rank {first.rank} " if first.rank >= 0 else ""
        step = "" if first.step in ("", "main") else f"in step {first.step} "
        how = end_words(first.status, first.cause)
        return f"{where}{step}{how}" + (f": {first.detail}" if first.detail else "")
    if first.fault is Fault.NODE:
        return f"lost: {first.detail}" if first.detail else "lost"
    return f"{first.fault.value}: {first.detail}" if first.detail else f"{first.fault.value} failed"
