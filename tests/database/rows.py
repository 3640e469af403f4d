"""Files of results as runs write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phalanx.controller.results.database.documents import Document, documents_of
from phalanx.controller.results.database.key import identified, key_of
from phalanx.controller.results.database.source import Row, Source
from phalanx.controller.results.database.upload import Upload
from phalanx.controller.results.perf_csv import append_rows

NOW = datetime(2026, 11, 22, 2, 1, 24, 7000, tzinfo=UTC)


def result(model: str = "bert", performance: str = "14164.0", **more: str) -> dict[str, str]:
    """A row as a run writes it."""
    return {
        "model": model,
        "n_gpus": "16",
        "nnodes": "2",
        "gpus_per_node": "8",
        "training_precision": "fp16",
        "pipeline": "",
        "args": "--steps 5",
        "docker_sha": "1234567",
        "git_commit": "12e5",
        "machine_name": "4711",
        "performance": performance,
        "metric": "samples_per_second",
        "status": "SUCCESS",
        "test_duration": "61.25",
        **more,
    }


def perf_csv(path: Path, *rows: Mapping[str, str]) -> Path:
    """A perf.csv as phalanx writes it; rows are appended to one that is there."""
    append_rows(path, rows)
    return path


def csv_source(*rows: Mapping[str, str]) -> Source:
    """Rows of a CSV file."""
    return Source(
        "perf.csv", True, tuple(Row(f"row {place}", row) for place, row in enumerate(rows, start=2))
    )


def json_source(*rows: Mapping[str, Any]) -> Source:
    """Rows of a JSON file."""
    entries = tuple(Row(f"entry {place}", row) for place, row in enumerate(rows, start=1))
    return Source("perf.json", False, entries)


def contents(source: Source) -> list[dict[str, Any]]:
    """What is stored of rows."""
    return [dict(one.content) for one in documents_of(source).documents]


def of(*contents: Mapping[str, Any]) -> tuple[Document, ...]:
    """Documents with these contents."""
    return tuple(Document(f"row {place}", one) for place, one in enumerate(contents, start=2))


def upload(
    documents: Sequence[Document], *keys: str, upsert: bool = True, index: bool = True, size: int = 2
) -> Upload:
    """An upload of documents."""
    key = key_of(documents, keys)
    rows = identified(documents, key, "perf.csv")
    return Upload("perf.csv", "perf", "results", rows, key, upsert, index, size, NOW)
