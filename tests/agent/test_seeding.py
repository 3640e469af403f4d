"""A layer that this node is to seed while another run of the user works with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from phalanx.agent import seeding
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.spool import SpoolError
from phalanx.agent.runtimes.layers import Span

from tests.relay.nodes import CHUNK, blob_of, fill


def test_a_layer_that_another_run_has_not_settled_is_waited_for_and_never_served_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "OTHERS_S", 0.3)
    content, manifest = blob_of(2)
    (tmp_path / "layer").write_bytes(content)
    span = Span(tmp_path / "layer", 0, len(content))
    other = BlobCache(tmp_path / "cache", 100 * CHUNK, reserve_bytes=0)
    theirs = other.open(manifest)
    assert other.claim(theirs)
    fill(theirs, content, [0, 1])
    assert theirs.finish()  # it has its name, and is not on the disk for sure
    ours = BlobCache(tmp_path / "cache", 100 * CHUNK, reserve_bytes=0)
    spool = ours.open(manifest)
    with pytest.raises(SpoolError, match="another run of yours"):
        seeding.fill(ours, spool, span)
    theirs.settle()
    seeding.fill(ours, spool, span)
    assert spool.whole


def test_a_layer_that_nobody_has_is_taken_in_and_settled(tmp_path: Path) -> None:
    content, manifest = blob_of(2)
    (tmp_path / "layer").write_bytes(b"before" + content)
    cache = BlobCache(tmp_path / "cache", 100 * CHUNK, reserve_bytes=0)
    spool = cache.open(manifest)
    seeding.fill(cache, spool, Span(tmp_path / "layer", 6, len(content)))
    seeding.settle([spool])
    assert not spool.bitmap.exists()
    other = BlobCache(tmp_path / "cache", 100 * CHUNK, reserve_bytes=0).open(manifest)
    assert other.adopt()
