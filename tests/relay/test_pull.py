"""Blobs go from node to node, whatever the nodes between do."""

from __future__ import annotations

import itertools
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from phalanx.agent.relay.events import (
    BlobComplete,
    ParentLost,
    Patience,
    Progress,
    PullComplete,
    PullFailed,
    Starved,
)
from phalanx.agent.relay.parents import MOST_PARDONS
from phalanx.agent.relay.stripe import window
from phalanx.protocol.blob import Manifest
from phalanx.protocol.messages import BulkSecurity, Chunk, ChunkGet, ChunkRefused, Parent

from tests.relay.conftest import MakeNode
from tests.relay.nodes import (
    BRISK,
    CHUNK,
    Fetch,
    Node,
    blob_of,
    close,
    cut,
    fill,
    flip,
    meddling,
    swallow,
    until,
)
from tests.small_disk import small_filesystem

CONTROLLER = Parent("")
#: Bytes on the wire beyond those of a blob: frames, ciphers, handshakes.
OVERHEAD = 1.05


def last_progress(fetch: Fetch) -> Progress:
    return fetch.all_of(Progress)[-1]


@pytest.mark.parametrize("security", BulkSecurity)
def test_a_chain_of_relays_gives_every_node_the_same_bytes(
    make_node: MakeNode, security: BulkSecurity
) -> None:
    blobs = [blob_of(7.3), blob_of(0), blob_of(20), blob_of(0.01)]
    manifests = [manifest for _, manifest in blobs]
    nodes = [make_node(f"n{i}", number=i, security=security) for i in range(5)]
    fetches = [
        node.fetch(*manifests).start([parent.for_reader(node.name)])
        for parent, node in itertools.pairwise(nodes)
    ]
    for content, manifest in blobs:
        nodes[0].holds(content, manifest)
    for node, fetch in zip(nodes[1:], fetches, strict=True):
        fetch.until(PullComplete)
        assert [event.blob for event in fetch.all_of(BlobComplete)] == [m.blob for m in manifests]
        assert [node.has(manifest) for manifest in manifests] == [content for content, _ in blobs]
        assert last_progress(fetch).verified == sum(m.size for m in manifests)
        assert not fetch.all_of(ParentLost)


def test_a_blob_is_read_while_the_digests_of_the_next_are_still_to_come(make_node: MakeNode) -> None:
    source, sink = make_node("n0"), make_node("n1", number=1)
    (first, one), (second, two) = blob_of(5), blob_of(3)
    source.holds(first, one)
    source.holds(second, two)
    fetch = sink.fetch(one, count=2).start([source.for_reader("n1")])
    fetch.until(BlobComplete)
    assert not fetch.all_of(PullComplete)
    fetch.pull.add(two)
    fetch.until(PullComplete)
    assert [sink.has(manifest) for manifest in (one, two)] == [first, second]
    waiting = sink.fetch(count=1).start([source.for_reader("n1")])
    waiting.pull.cancel()  # does not wait for what will never come
    assert not waiting.all_of(PullComplete)


def test_two_stripes_read_their_halves_from_two_parents(make_node: MakeNode) -> None:
    content, manifest = blob_of(31.5)
    left, right, sink = make_node("left"), make_node("right", number=1), make_node("sink")
    # each has one half only: chunks of the other are never asked of it
    for node, first in ((left, 0), (right, 1)):
        spool = node.cache.open(manifest)
        assert node.cache.claim(spool)
        for index in range(first, 32, 2):
            spool.keep(index, cut(content)[index])
        node.relay.serve(spool)
    fetch = sink.fetch(manifest).start([left.for_reader("sink")], [right.for_reader("sink")])
    fetch.until(PullComplete)
    assert sink.has(manifest) == content


@pytest.mark.parametrize("how", [close, swallow])
def test_a_parent_that_dies_is_left_for_the_next_and_nothing_verified_is_read_twice(
    make_node: MakeNode, how: object
) -> None:
    content, manifest = blob_of(256)
    first, second, sink = make_node("first"), make_node("second", number=1), make_node("sink")
    first.holds(content, manifest)
    second.holds(content, manifest)
    with meddling(first, how, after=manifest.size // 2) as meddler:  # type: ignore[arg-type]
        fetch = sink.fetch(manifest)
        fetch.start([first.for_reader("sink", port=meddler.port), second.for_reader("sink")])
        fetch.until(PullComplete)
    assert sink.has(manifest) == content
    (lost,) = fetch.all_of(ParentLost)
    assert lost.node == "first"
    assert not lost.corrupt
    # at most the chunk that was broken off came twice
    assert last_progress(fetch).read < manifest.size * OVERHEAD + CHUNK


def test_a_relay_that_waits_for_a_chunk_itself_is_not_left(make_node: MakeNode) -> None:
    content, manifest = blob_of(6)
    parent, other = make_node("parent", wait_every_s=0.1), make_node("other", number=1)
    sink = make_node("sink")
    other.holds(content, manifest)
    spool = parent.cache.open(manifest)
    assert parent.cache.claim(spool)
    parent.relay.serve(spool)
    with meddling(parent, lambda data: data, after=0) as between:
        fetch = sink.fetch(manifest)
        fetch.start([parent.for_reader("sink", port=between.port), other.for_reader("sink")])
        fill(spool, content, [0])
        fetch.until(Progress, lambda event: event.verified == CHUNK)
        words = between.words
        until(lambda: between.words > words + 8)  # twice as long as it may be silent
        assert not fetch.all_of(ParentLost)
        fill(spool, content)
        fetch.until(PullComplete)
    assert not fetch.all_of(ParentLost)


def test_a_flipped_bit_is_found_at_the_first_honest_hop_and_its_sender_is_named(make_node: MakeNode) -> None:
    content, manifest = blob_of(64)
    source = make_node("source", security=BulkSecurity.INTEGRITY)
    honest = make_node("honest", number=1, security=BulkSecurity.INTEGRITY)
    last = make_node("last", number=2, security=BulkSecurity.INTEGRITY)
    spare = make_node("spare", number=3, security=BulkSecurity.INTEGRITY)
    source.holds(content, manifest)
    spare.holds(content, manifest)
    behind = last.fetch(manifest).start([honest.for_reader("last")])
    with meddling(source, flip, after=manifest.size // 3) as meddler:
        fetch = honest.fetch(manifest)
        fetch.start([source.for_reader("honest", port=meddler.port), spare.for_reader("honest")])
        lost = fetch.until(ParentLost)
        fetch.until(PullComplete)
        behind.until(PullComplete)
    assert (lost.node, lost.corrupt) == ("source", True)
    assert not behind.all_of(ParentLost)
    assert honest.has(manifest) == last.has(manifest) == content


def test_who_sent_rubbish_once_is_not_read_from_again_while_another_gives(make_node: MakeNode) -> None:
    content, manifest = blob_of(16)
    integrity = BulkSecurity.INTEGRITY
    source, sink = make_node("source", security=integrity), make_node("sink", security=integrity)
    spare = make_node("spare", security=integrity, rate_bytes_s=32 * CHUNK)
    for node in (source, spare):
        node.holds(content, manifest)
    with meddling(source, flip, after=manifest.size // 2) as meddler:
        fetch = sink.fetch(manifest)
        fetch.start([source.for_reader("sink", port=meddler.port), spare.for_reader("sink")])
        assert fetch.until(ParentLost).corrupt
        fetch.change([source.for_reader("sink"), spare.for_reader("sink")])  # the honest port, and still
        fetch.until(PullComplete)
    assert len(source.relay._gate.spent) == 1
    assert sink.has(manifest) == content


def test_an_only_parent_that_sent_rubbish_once_is_believed_again(make_node: MakeNode) -> None:
    content, manifest = blob_of(16)
    integrity = BulkSecurity.INTEGRITY
    source, sink = make_node("source", security=integrity), make_node("sink", security=integrity)
    source.holds(content, manifest)
    flips = itertools.chain([flip], itertools.repeat(lambda data: data))
    with meddling(source, lambda data: next(flips)(data), after=manifest.size // 2) as meddler:
        fetch = sink.fetch(manifest).start([source.for_reader("sink", port=meddler.port)])
        lost = fetch.until(ParentLost)
        fetch.until(PullComplete)
    assert (lost.node, lost.corrupt) == ("source", True)
    assert sink.has(manifest) == content


def test_who_sent_rubbish_once_is_believed_again_when_the_others_give_nothing(make_node: MakeNode) -> None:
    content, manifest = blob_of(16)
    integrity = BulkSecurity.INTEGRITY
    source, sink, gone = (make_node(name, security=integrity) for name in ("source", "sink", "gone"))
    source.holds(content, manifest)
    gone.relay.stop()
    flips = itertools.chain([flip], itertools.repeat(lambda data: data))
    with meddling(source, lambda data: next(flips)(data), after=manifest.size // 2) as meddler:
        fetch = sink.fetch(manifest)
        fetch.start([source.for_reader("sink", port=meddler.port), gone.for_reader("sink")])
        fetch.until(PullComplete)
    assert sink.has(manifest) == content


@pytest.mark.parametrize("stripes", [1, 2])
def test_an_only_parent_that_sends_nothing_but_rubbish_ends_the_fetch_and_is_named(
    make_node: MakeNode, stripes: int
) -> None:
    content, manifest = blob_of(16)
    integrity = BulkSecurity.INTEGRITY
    source, sink = make_node("source", security=integrity), make_node("sink", security=integrity)
    source.holds(content, manifest)
    with meddling(source, flip, after=manifest.size // 2) as meddler:
        parents = [source.for_reader("sink", port=meddler.port)]
        fetch = sink.fetch(manifest).start(*[parents] * stripes)
        reason = fetch.until(PullFailed).reason
    assert "source: " in reason
    assert "have its memory" in reason
    assert len(fetch.all_of(ParentLost)) >= MOST_PARDONS + 1


def test_a_controller_that_sends_nothing_but_rubbish_ends_the_fetch_and_is_named(make_node: MakeNode) -> None:
    content, manifest = blob_of(4)
    asked: list[int] = []

    def ask(wanted: ChunkGet) -> bool:
        asked.append(wanted.index)
        payload = flip(cut(content)[wanted.index]) if wanted.index else cut(content)[0]
        fetch.pull.on_chunk(Chunk(wanted.blob, wanted.index, payload=payload))
        return True

    fetch = make_node("sink").fetch(manifest, ask=ask)
    fetch.start([CONTROLLER])
    reason = fetch.until(PullFailed).reason
    assert "the controller: chunk 1 does not match its digest" in reason
    assert asked.count(1) == MOST_PARDONS + 1


def test_a_squatter_with_another_certificate_is_told_nothing(make_node: MakeNode) -> None:
    content, manifest = blob_of(4)
    squatter, source, sink = make_node("squatter", number=9), make_node("source"), make_node("sink")
    source.holds(content, manifest)
    fetch = sink.fetch(manifest)
    fetch.start([source.for_reader("sink", port=squatter.port), source.for_reader("sink")])
    lost = fetch.until(ParentLost)
    assert "certificate" in lost.reason
    fetch.until(PullComplete)
    assert squatter.relay._gate.spent == set()


def test_a_parent_without_a_listener_is_left_at_once_and_tried_again_later(make_node: MakeNode) -> None:
    content, manifest = blob_of(4)
    source, sink, gone = make_node("source"), make_node("sink"), make_node("gone")
    gone.relay.stop()
    source.holds(content, manifest)
    fetch = sink.fetch(manifest).start([gone.for_reader("sink")])
    assert fetch.until(ParentLost).node == "gone"
    assert "refused" in fetch.until(Starved).reason
    fetch.change([gone.for_reader("sink"), source.for_reader("sink")])
    fetch.until(PullComplete)
    assert len(fetch.all_of(Starved)) == 1


def test_tickets_run_out_and_others_are_waited_for(make_node: MakeNode) -> None:
    content, manifest = blob_of(40)
    source, sink = make_node("source", security=BulkSecurity.INTEGRITY), make_node("sink")
    source.holds(content, manifest)
    with meddling(source, close, after=CHUNK * 3) as meddler:
        fetch = sink.fetch(manifest).start([source.for_reader("sink", count=1, port=meddler.port)])
        fetch.until(Starved)
    fetch.change([source.for_reader("sink")])
    fetch.until(PullComplete)
    assert sink.has(manifest) == content


def test_new_parents_with_the_same_first_keep_its_connection(make_node: MakeNode) -> None:
    content, manifest = blob_of(8)
    source, sink = make_node("source"), make_node("sink")
    spool = source.cache.open(manifest)
    assert source.cache.claim(spool)
    source.relay.serve(spool)
    fetch = sink.fetch(manifest).start([source.for_reader("sink")])
    spool.keep(0, cut(content)[0])
    fetch.until(Progress)
    fetch.change([source.for_reader("sink"), CONTROLLER])
    for index, piece in enumerate(cut(content)):
        spool.keep(index, piece)
    fetch.until(PullComplete)
    assert len(source.relay._gate.spent) == 1


def test_without_parents_it_waits_and_keeps_what_it_has(make_node: MakeNode) -> None:
    content, manifest = blob_of(8)
    source, sink = make_node("source"), make_node("sink")
    spool = source.cache.open(manifest)
    assert source.cache.claim(spool)
    source.relay.serve(spool)
    for index in range(5):
        spool.keep(index, cut(content)[index])
    fetch = sink.fetch(manifest).start([source.for_reader("sink")])
    fetch.until(Progress, lambda event: event.verified == 5 * CHUNK)
    fetch.change([])
    for index in range(5, 8):
        spool.keep(index, cut(content)[index])
    fetch.change([source.for_reader("sink")], [source.for_reader("sink")])  # of two stripes now
    fetch.until(PullComplete)
    assert not fetch.all_of(ParentLost)
    assert last_progress(fetch).read < manifest.size * OVERHEAD + CHUNK


def test_a_fetch_that_nobody_gives_what_it_lacks_says_so_once(make_node: MakeNode) -> None:
    (first, one), (second, two) = blob_of(2), blob_of(3)
    sink = make_node("sink")
    sink.holds(first, one)
    fetch = sink.fetch(one, two).start()  # both were there when it was asked
    assert "no parent is named" in fetch.until(Starved).reason
    fetch.change([])
    fetch.until(Starved)
    assert not fetch.all_of(PullComplete)
    assert len(fetch.all_of(Starved)) == 2
    source = make_node("source")
    source.holds(second, two)
    fetch.change([source.for_reader("sink")])
    fetch.until(PullComplete)


def test_a_stripe_without_parents_beside_one_that_has_some_says_so(make_node: MakeNode) -> None:
    content, manifest = blob_of(8)
    source, sink = make_node("source"), make_node("sink")
    source.holds(content, manifest)
    fetch = sink.fetch(manifest).start([source.for_reader("sink")], [])
    assert fetch.until(Starved).stripe == 1
    assert last_progress(fetch).verified == 4 * CHUNK
    fetch.change([source.for_reader("sink")])
    fetch.until(PullComplete)


def test_nobody_is_missed_while_no_digest_is_known(make_node: MakeNode) -> None:
    (_, manifest), patience = blob_of(2), replace(BRISK, silent_s=0.02)
    sink = make_node("sink")
    fetch = sink.fetch(count=1, patience=patience).start()
    fetch.pull._stripes[0].thread.join(0.2)
    fetch.pull.add(Manifest(manifest.blob, manifest.size, (), manifest.chunk_bytes))
    fetch.pull._stripes[0].thread.join(0.2)
    assert not fetch.all_of(Starved)


def test_the_controller_is_a_parent_over_its_own_link(make_node: MakeNode) -> None:
    content, manifest = blob_of(9.5)
    sink = make_node("sink")
    asked: list[int] = []
    link = {"up": False}

    def ask(wanted: ChunkGet) -> bool:
        asked.append(wanted.index)
        if link["up"]:
            fetch.pull.on_chunk(Chunk(wanted.blob, wanted.index, payload=cut(content)[wanted.index]))
        return link["up"]

    fetch = sink.fetch(manifest, ask=ask)
    fetch.start([CONTROLLER])
    lost = fetch.until(ParentLost)
    assert (lost.node, lost.corrupt) == ("", False)
    link["up"] = True
    fetch.pull.on_chunk(ChunkRefused(bytes(32), 0, "nobody asked"))
    fetch.until(PullComplete)
    assert sink.has(manifest) == content


def test_a_link_to_the_controller_that_has_to_be_made_is_no_reason_to_leave_it(make_node: MakeNode) -> None:
    content, manifest = blob_of(5)
    sink = make_node("sink")
    refusals = iter([False] * 5)

    def ask(wanted: ChunkGet) -> bool:
        up = next(refusals, True)
        if up:
            fetch.pull.on_chunk(Chunk(wanted.blob, wanted.index, payload=cut(content)[wanted.index]))
        return up

    fetch = sink.fetch(manifest, ask=ask)
    fetch.start([CONTROLLER])
    fetch.until(PullComplete)
    assert not fetch.all_of(ParentLost)
    assert sink.has(manifest) == content


def test_a_silent_controller_is_left_like_any_parent(make_node: MakeNode) -> None:
    content, manifest = blob_of(5)
    source, sink = make_node("source"), make_node("sink")
    source.holds(content, manifest)
    fetch = sink.fetch(manifest, ask=lambda wanted: True)
    fetch.start([CONTROLLER, source.for_reader("sink")])
    assert fetch.until(ParentLost).node == ""
    fetch.until(PullComplete)


def test_two_fetches_of_one_blob_read_it_once(make_node: MakeNode) -> None:
    content, manifest = blob_of(64)
    source, sink = make_node("source", rate_bytes_s=64 * CHUNK), make_node("sink")
    source.holds(content, manifest)
    fetches = [sink.fetch(manifest).start([source.for_reader("sink")]) for _ in range(2)]
    for fetch in fetches:
        fetch.until(BlobComplete)
        fetch.until(PullComplete)
    assert sum(last_progress(fetch).read for fetch in fetches) < manifest.size * OVERHEAD
    assert sink.has(manifest) == content


def test_a_fetch_goes_on_with_what_a_cancelled_one_was_at(make_node: MakeNode) -> None:
    content, manifest = blob_of(64)
    source, sink = make_node("source", rate_bytes_s=128 * CHUNK), make_node("sink")
    source.holds(content, manifest)
    first = sink.fetch(manifest).start([source.for_reader("sink")])
    first.until(Progress, lambda event: event.verified > 4 * CHUNK)  # it is the one who writes
    second = sink.fetch(manifest).start([source.for_reader("sink")])
    first.until(Progress, lambda event: event.verified > 16 * CHUNK)
    first.pull.cancel()
    second.until(PullComplete)
    assert last_progress(second).read < manifest.size * 0.8
    assert sink.has(manifest) == content


def test_a_cancelled_fetch_is_taken_up_by_the_next_agent(make_node: MakeNode, tmp_path: Path) -> None:
    content, manifest = blob_of(64)
    source, sink = make_node("source", rate_bytes_s=128 * CHUNK), make_node("sink")
    source.holds(content, manifest)
    first = sink.fetch(manifest).start([source.for_reader("sink")])
    first.until(Progress, lambda event: event.verified > 16 * CHUNK)
    first.pull.close()
    before = first.all_of(Progress)[-1].verified
    again = Node(tmp_path, "sink")
    try:
        second = again.fetch(manifest).start([source.for_reader("sink")])
        second.until(PullComplete)
        assert last_progress(second).read < (manifest.size - before) * OVERHEAD + CHUNK
        assert again.has(manifest) == content
    finally:
        again.stop()


def test_what_lies_in_the_cache_is_not_asked_for(make_node: MakeNode) -> None:
    content, manifest = blob_of(5)
    sink = make_node("sink")
    sink.holds(content, manifest)
    fetch = sink.fetch(manifest).start()
    assert fetch.until(BlobComplete).path.read_bytes() == content
    fetch.until(PullComplete)


def test_a_full_disk_ends_the_fetch_with_words_and_leaves_nothing(
    make_node: MakeNode, tmp_path: Path
) -> None:
    content, manifest = blob_of(40)
    with small_filesystem(tmp_path / "small", 20 * CHUNK) as folder:
        source, sink = make_node("source"), Node(folder, "sink")
        try:
            source.holds(content, manifest)
            fetch = sink.fetch(manifest).start([source.for_reader("sink")])
            reason = fetch.until(PullFailed).reason
            assert reason.startswith("cannot keep layers in")
            assert str(manifest.size) in reason
            assert "PHALANX_CACHE_DIR" in reason
            fetch.pull.cancel()
            assert list(sink.cache.folder.iterdir()) == []
            # the room was there when it began, and is not now
            sink.cache.check_room = lambda size: None  # type: ignore[method-assign]
            fetch = sink.fetch(manifest).start([source.for_reader("sink")])
            reason = fetch.until(PullFailed).reason
            assert reason.startswith("cannot write")
            assert "No space left" in reason
            fetch.pull.close()
            assert list(sink.cache.folder.iterdir()) == []
        finally:
            sink.stop()


def test_cancelling_is_prompt_whatever_it_waits_for(make_node: MakeNode) -> None:
    _, manifest = blob_of(4)
    source, sink = make_node("source"), make_node("sink")
    spool = source.cache.open(manifest)
    assert source.cache.claim(spool)
    source.relay.serve(spool)
    for parents in ([], [[source.for_reader("sink")]], [[CONTROLLER]]):
        fetch = sink.fetch(manifest, ask=lambda wanted: True).start(*parents)
        ended = threading.Thread(target=fetch.pull.cancel)
        ended.start()
        ended.join(0.9)
        assert not ended.is_alive()


def test_a_parent_that_does_not_answer_the_call_is_hung_up_on(make_node: MakeNode) -> None:
    _, manifest = blob_of(4)
    sink = make_node("sink")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        waiting = [socket.create_connection(("127.0.0.1", port))]  # nobody else gets through
        parent = Parent("deaf", "127.0.0.1", port, b"")
        fetch = sink.fetch(manifest, patience=Patience(silent_s=30)).start([parent])
        until(lambda: fetch.pull._stripes[0]._source)
        ended = threading.Thread(target=fetch.pull.cancel)
        ended.start()
        ended.join(0.9)
        assert not ended.is_alive()
        fetch = sink.fetch(manifest, patience=Patience(silent_s=0.2)).start([parent])
        assert fetch.until(ParentLost).node == "deaf"
        waiting[0].close()


def test_the_window_fills_slow_and_fast_links() -> None:
    assert window(4 << 20) * (4 << 20) == 16 << 20
    assert window(256 << 10) * (256 << 10) == 8 << 20
