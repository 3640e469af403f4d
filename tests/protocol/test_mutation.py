"""A million mutated frames give typed errors only."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter

import pytest
from phalanx.protocol.messages import MESSAGES

from .mutation import run

BATCHES = 20
NAMES = {kind.__name__ for kind in MESSAGES.values()}


@pytest.mark.parametrize("count", [1_000_000])
def test_a_million_mutated_frames_give_messages_or_typed_errors_only(count: int) -> None:
    seeds = [(seed, count // BATCHES) for seed in range(BATCHES)]
    with multiprocessing.get_context("spawn").Pool(min(4, os.cpu_count() or 1)) as pool:
        seen = sum(pool.starmap(run, seeds), Counter[str]())
    assert sum(seen.values()) == count
    assert set(seen) - NAMES == {"FrameError", "SchemaError", "waits"}
    assert seen["SchemaError"] > count // 4, "most mutations must get past the framing"
    assert len(set(seen) & NAMES) > len(NAMES) // 2, "some mutations must leave a message"
