"""What tests of the log store share: a disk that is soon full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_disk import small_filesystem


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of four MiB."""
    with small_filesystem(tmp_path / "disk", 4 * 1024 * 1024) as folder:
        yield folder
