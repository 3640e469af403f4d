"""Runs for the history, made by hand."""

from __future__ import annotations

from phalanx.controller.results.history import NodeEntry, RowEntry, RunEntry
from phalanx.controller.results.perf_csv import COLUMNS

#: 2026-11-22 02:01:24 UTC.
START = 1795312884.0
DAY_S = 86_400.0


def row(value: float | str | None, at: float = START, **columns: str) -> RowEntry:
    """A row of model m in tok/s on two nodes; ``value`` None is a failure."""
    written = "" if value is None else str(value)
    known = {
        **dict.fromkeys(COLUMNS, ""),
        "model": "m",
        "metric": "tok/s" if written else "",
        "nnodes": "2",
        "n_gpus": "16",
        "launcher": "torchrun",
        "performance": written,
        "status": "SUCCESS" if written else "FAILURE",
        **columns,
    }
    return RowEntry("m", at, float(written) if written else None, known)


def run(number: int, *rows: RowEntry, at: float = START, nodes: tuple[NodeEntry, ...] = ()) -> RunEntry:
    """The run of a number; it ended well unless one of its nodes failed first."""
    failed = any(node.failed_first for node in nodes)
    return RunEntry(
        id=f"20261122-020124-r-{number:04x}",
        name="r",
        directory=f"/runs/{number}",
        started=at - 60,
        finished=at,
        state="failed" if failed else "succeeded",
        exit_code=3 if failed else 0,
        target="slurm",
        node_count=2,
        argv=("phalanx", "run", "--tags", "m"),
        rows=rows,
        nodes=nodes,
    )
