"""What the history costs a run at its end, and a person who looks at it.

``add_run_ms``: opening the history and adding a run of one row and two nodes, beside what is in it already;
``add_rows_s``: a run of 10,000 rows on 1,000 nodes. ``list_ms``, ``model_ms``, ``node_ms``, ``summary_ms``:
``phalanx history`` in its forms over all that (100,000 rows of 50 models), the interpreter's start
(``interpreter_ms``) included. ``wal_add_run_ms``: the same small run with write-ahead logging, which is what
the rollback journal costs where both would do. ``size_mb``: the file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from phalanx.controller.results.history import NodeEntry, RowEntry, RunEntry, opened
from phalanx.controller.results.perf_csv import COLUMNS

from benchmarks.crew import BenchmarkError
from benchmarks.planning import COMMAND, timed
from benchmarks.report import document, show

START = 1_795_312_884.0
MODELS = 50
ROWS_AT_ONCE = 10_000
NODES_AT_ONCE = 1_000
#: Small runs that are added one after another.
SMALL = 20


def entry(number: int, rows: int, nodes: int) -> RunEntry:
    """A run that is like those of people: long cells for image and arguments."""
    at = START + number * 60
    known = {
        **dict.fromkeys(COLUMNS, "x"),
        "metric": "tok/s",
        "nnodes": "8",
        "n_gpus": "64",
        "status": "SUCCESS",
        "docker_image": "registry.example.invalid/team/train@sha256:" + "5" * 64,
        "args": "--batch-size 128 --sequence-length 4096 --precision bf16",
    }
    return RunEntry(
        id=f"20261122-020124-r{number:07d}-7f3a",
        name="r",
        directory=f"/home/alice/phalanx-runs/{number}",
        started=at,
        finished=at + 50,
        state="succeeded",
        exit_code=0,
        rows=[_row(known, number, place, at) for place in range(rows)],
        nodes=[NodeEntry(f"node{place:04d}") for place in range(nodes)],
    )


def _row(known: dict[str, str], number: int, place: int, at: float) -> RowEntry:
    columns = {**known, "model": f"model{(number + place) % MODELS}"}
    return RowEntry("m", at + place / 1000, float(place), columns)


def must(holds: bool, words: str) -> None:
    if not holds:
        raise BenchmarkError(words)


def add(path: Path, one: RunEntry, journal: str = "") -> float:
    """Seconds to open the history and add a run."""
    began = time.perf_counter()
    with opened(path) as history:
        if journal:
            history.connection.execute(f"PRAGMA journal_mode = {journal}")
        must(history.add(one), f"{one.id} was there")
    return time.perf_counter() - began


def measure(folder: Path, rows: int) -> dict[str, Any]:
    path = folder / "history.db"
    big = [add(path, entry(number, ROWS_AT_ONCE, NODES_AT_ONCE)) for number in range(rows // ROWS_AT_ONCE)]
    small = sorted(add(path, entry(1_000_000 + number, 1, 2)) for number in range(SMALL))
    wal = folder / "wal.db"
    add(wal, entry(0, 1, 2), "WAL")
    logged = sorted(add(wal, entry(1 + number, 1, 2)) for number in range(SMALL))
    environ = {**os.environ, "PHALANX_HISTORY": str(path)}

    def shown(*words: str) -> float:
        took, text = timed((*COMMAND, "history", *words), folder, environ)
        must(text.count("\n") > 1, f"history {' '.join(words)} said nothing")
        return round(took * 1000, 1)

    return {
        "rows": rows,
        "add_rows_s": round(sorted(big)[len(big) // 2], 3),
        "add_run_ms": round(small[SMALL // 2] * 1000, 2),
        "wal_add_run_ms": round(logged[SMALL // 2] * 1000, 2),
        "list_ms": shown(),
        "model_ms": shown("model7"),
        "node_ms": shown("node0087"),
        "summary_ms": shown("--summary"),
        "interpreter_ms": round(timed((sys.executable, "-c", ""), folder)[0] * 1000, 1),
        "size_mb": round(path.stat().st_size / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    samples = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="phalanx-history-", dir=".") as folder:
            samples.append(measure(Path(folder).absolute(), options.rows))
    show(document(samples), options.json)


if __name__ == "__main__":
    main()
