"""Blobs whose digests are still being made: what is known is read, kept and given on, and nothing else is."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.events import BlobComplete, ParentLost, Progress, PullComplete
from phalanx.agent.relay.spool import Spool
from phalanx.agent.relay.wanted import Wanted
from phalanx.protocol.blob import ChunkMismatch, Manifest
from phalanx.protocol.messages import BlobChunks, Chunk, ChunkGet, Parent, RelayWait

from tests.relay.conftest import MakeNode
from tests.relay.nodes import CHUNK, Fetch, Node, blob_of, cut, fill, until
from tests.relay.test_server import answer, reading


def begun(whole: Manifest, known: int) -> Manifest:
    """The manifest as it is when so many of its digests were told."""
    return Manifest(whole.blob, whole.size, whole.digests[:known], whole.chunk_bytes)


def tell(manifest: Manifest, whole: Manifest, known: int) -> None:
    """One page more, after which so many digests are known."""
    first = len(manifest.digests)
    digests = whole.digests[first:known]
    manifest.add(BlobChunks(whole.blob, whole.size, first, digests, whole.chunk_bytes))


class Giver:
    """A controller that gives every chunk that is asked for."""

    def __init__(self, node: Node, content: bytes, manifest: Manifest) -> None:
        self.asked: list[int] = []
        self.manifest = manifest

        def ask(wanted: ChunkGet) -> bool:
            self.asked.append(wanted.index)
            payload = cut(content)[wanted.index]
            self.fetch.pull.on_chunk(Chunk(wanted.blob, wanted.index, payload=payload))
            return True

        self.fetch: Fetch = node.fetch(manifest, ask=ask, trusted=True)
        self.fetch.start([Parent("")])


def test_a_chunk_is_kept_and_given_on_before_the_last_digest_is_known(make_node: MakeNode) -> None:
    content, whole = blob_of(5.5)
    source, middle, last = (make_node(f"n{number}", number=number) for number in range(3))
    source.holds(content, whole)
    known = [begun(whole, 1), begun(whole, 1)]
    fetches = [
        middle.fetch(known[0], trusted=True).start([source.for_reader("n1")]),
        last.fetch(known[1], trusted=True).start([middle.for_reader("n2")]),
    ]
    for fetch in fetches:
        fetch.until(Progress, lambda event: event.verified == CHUNK)
    for told in (2, 4, 6):
        assert not any(fetch.all_of(BlobComplete) for fetch in fetches)
        for manifest, fetch in zip(known, fetches, strict=True):
            tell(manifest, whole, told)
            fetch.pull.more_known()
        there = min(told * CHUNK, whole.size)
        for fetch in fetches:
            fetch.until(Progress, lambda event, there=there: event.verified == there)  # type: ignore[misc]
    for node, fetch in zip((middle, last), fetches, strict=True):
        fetch.until(PullComplete)
        assert node.has(whole) == content
        assert not fetch.all_of(ParentLost)


def test_nothing_is_asked_for_before_its_digest_is_known(make_node: MakeNode) -> None:
    content, whole = blob_of(8)
    giver = Giver(make_node("sink"), content, begun(whole, 3))
    giver.fetch.until(Progress, lambda event: event.verified == 3 * CHUNK)
    assert giver.asked == [0, 1, 2]
    tell(giver.manifest, whole, 8)
    giver.fetch.pull.more_known()
    giver.fetch.until(PullComplete)
    assert giver.asked == list(range(8))


def test_without_its_last_page_a_fetch_never_has_the_whole_and_ends_at_once(make_node: MakeNode) -> None:
    content, whole = blob_of(4)
    node = make_node("sink")
    giver = Giver(node, content, begun(whole, 3))
    giver.fetch.until(Progress, lambda event: event.verified == 3 * CHUNK)
    ended = threading.Thread(target=giver.fetch.pull.close)
    ended.start()
    ended.join(0.9)
    assert not ended.is_alive()
    assert not giver.fetch.all_of(BlobComplete)
    assert node.cache.whole(whole.blob, whole.size) is None
    assert node.cache.lease(whole.blob, whole.size) is None


def test_what_is_left_of_a_damaged_layer_is_replaced_by_a_run_that_has_it_right(make_node: MakeNode) -> None:
    content, whole = blob_of(6)
    wrong = bytearray(content)
    wrong[CHUNK + 5] ^= 4
    damaged = bytes(wrong)
    digests = tuple(hashlib.sha256(piece).digest() for piece in cut(damaged))
    node = make_node("sink")
    first = Giver(node, damaged, Manifest(whole.blob, whole.size, digests[:5], CHUNK))
    first.fetch.until(Progress, lambda event: event.verified == 5 * CHUNK)
    first.fetch.pull.close()
    assert node.cache.whole(whole.blob, whole.size) is None
    again = Giver(node, content, whole)
    again.fetch.until(PullComplete)
    assert again.asked == [1, 5]
    assert node.has(whole) == content


def test_what_an_earlier_fetch_has_left_is_taken_up_as_its_digests_come(make_node: MakeNode) -> None:
    content, whole = blob_of(8)
    node = make_node("sink")
    left = node.cache.open(whole)
    assert node.cache.claim(left)
    fill(left, content, [0, 1, 2, 4, 5, 7])
    with left.part.open("r+b") as file:
        file.seek(5 * CHUNK)
        file.write(b"not what was verified")
    left.unclaim()
    node.cache.close(left)
    giver = Giver(node, content, begun(whole, 2))
    until(lambda: giver.fetch.pull._desk.wanted.spools[0].verified == 2 * CHUNK)
    tell(giver.manifest, whole, 8)
    giver.fetch.pull.more_known()
    giver.fetch.until(PullComplete)
    assert giver.asked == [3, 5, 6]
    assert node.has(whole) == content


def test_what_was_left_is_not_thrown_away_because_none_of_its_digests_is_known_yet(tmp_path: Path) -> None:
    content, whole = blob_of(4)
    spool = Spool(tmp_path / "blob", whole)
    assert spool.claim()
    fill(spool, content, [2, 3])
    spool.unclaim()
    again = Spool(tmp_path / "blob", begun(whole, 1))
    assert again.claim()
    assert again.verified == 0
    again.unclaim()
    last = Spool(tmp_path / "blob", whole)
    assert last.claim()
    assert list(last.missing(0, 1)) == [0, 1]


def test_a_relay_neither_gives_nor_refuses_what_has_no_digest_yet(make_node: MakeNode) -> None:
    content, whole = blob_of(3)
    node = make_node("n1", wait_every_s=0.05, unknown_s=0.1)
    manifest = begun(whole, 1)
    spool = node.cache.open(manifest)
    assert node.cache.claim(spool)
    node.relay.serve(spool)
    fill(spool, content, [0])
    with pytest.raises(ChunkMismatch):
        spool.keep(2, cut(content)[2])
    wire = reading(node)
    wire.send(ChunkGet(whole.blob, 2))
    for _ in range(4):  # longer than for a blob that it does not know
        assert answer(wire) == (RelayWait(whole.blob, 2), b"")
    tell(manifest, whole, 3)
    fill(spool, content, [2])
    while isinstance((got := answer(wire))[0], RelayWait):
        pass
    assert got == (Chunk(whole.blob, 2), cut(content)[2])
    wire.close()


def test_a_manifest_that_grows_shares_a_blob_with_none_that_may_not(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", 1 << 30, reserve_bytes=0)
    content, whole = blob_of(2)
    growing = begun(whole, 1)
    one, same, other = (cache.open(manifest) for manifest in (growing, growing, begun(whole, 1)))
    assert one is same
    assert one is not other
    assert cache.claim(one)
    assert not cache.claim(other)
    tell(growing, whole, 2)
    assert cache.open(whole) is one
    fill(one, content)
    assert other.adopt()
    for spool in (one, one, one, other):
        cache.close(spool)
    assert cache.prune() >= whole.size


@given(
    chunks=st.integers(1, 30),
    of=st.integers(1, 4),
    pages=st.lists(st.integers(1, 8)),
    turns=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["take", "tell", "lose"]))),
)
def test_every_chunk_is_asked_for_once_its_digest_is_known_and_not_before(
    chunks: int, of: int, pages: list[int], turns: list[tuple[int, str]]
) -> None:
    content, whole = blob_of(chunks, 8)
    manifest, todo = begun(whole, 1), [*pages, chunks]
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder, "blob"), manifest)
        wanted = Wanted(Spool.claim)
        wanted.add(spool)

        def take(stripe: int, kept: bool) -> bool:
            want = wanted.take(stripe % of, of)
            if want is None:
                return False
            index = want[1]
            assert index < len(manifest.digests)
            assert index % of == stripe % of
            if kept:
                assert spool.keep(index, cut(content, 8)[index])  # False for one that was there
                wanted.came(whole.blob, index)
            else:
                wanted.give_back([want])
            return True

        def more() -> None:
            known = min(chunks, len(manifest.digests) + todo.pop(0))
            if known > len(manifest.digests):
                tell(manifest, whole, known)

        for stripe, what in turns:
            if what != "tell":
                take(stripe, what == "take")
            elif todo:
                more()
        while todo:
            more()
        for stripe in range(of):
            while take(stripe, kept=True):
                pass
        assert spool.finish()
        assert spool.path.read_bytes() == content
        spool.close()
