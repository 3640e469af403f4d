"""The command in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from .driver import Phalanx


@pytest.fixture
def phalanx(tmp_path: Path) -> Phalanx:
    """``phalanx`` with a controller that plays a part."""
    return Phalanx(tmp_path)
