"""Chunks go packed where that pays, and who packs badly is found out like anyone who sends something else."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from phalanx.agent.relay import packer as packer_module
from phalanx.agent.relay.descriptor import open_own
from phalanx.agent.relay.events import ParentLost, Progress, PullComplete
from phalanx.agent.relay.packer import UNSENT_BYTES, Packer
from phalanx.protocol import zstd
from phalanx.protocol.blob import Manifest, make_manifest
from phalanx.protocol.messages import BulkSecurity, Chunk, ChunkGet, ChunkRefused, Parent
from phalanx.protocol.packing import Packing, Sent

from tests.relay.conftest import MakeNode
from tests.relay.nodes import CHUNK, cut, until
from tests.relay.test_server import answer, reading

pytestmark = pytest.mark.skipif(zstd.library() is None, reason="this machine has no libzstd")

CONTROLLER = Parent("")
#: A cap on the rate, for relays that are to pack: bytes a second.
SLOW = 16 * CHUNK


def text_of(chunks: float) -> tuple[bytes, Manifest]:
    """Content that gets a lot smaller, and its manifest."""
    lines = (b"%d lines of a file that is in a layer\n" % number for number in itertools.count())
    content = bytearray()
    while len(content) < chunks * CHUNK:
        content += next(lines)
    del content[int(chunks * CHUNK) :]
    return bytes(content), make_manifest(cut(bytes(content)), CHUNK)


def packed(content: bytes) -> bytes:
    library = zstd.library()
    assert library is not None
    into = memoryview(bytearray(2 * len(content) + 1000))
    return bytes(into[: library.compress(content, into)])


@pytest.mark.parametrize("security", BulkSecurity)
def test_over_slow_links_a_layer_comes_packed_and_whole_on_every_node(
    make_node: MakeNode, security: BulkSecurity
) -> None:
    content, manifest = text_of(48.3)
    nodes = [make_node(f"n{i}", number=i, security=security, rate_bytes_s=SLOW) for i in range(3)]
    nodes[0].holds(content, manifest)
    fetches = [
        node.fetch(manifest).start([parent.for_reader(node.name)])
        for parent, node in itertools.pairwise(nodes)
    ]
    for node, fetch in zip(nodes[1:], fetches, strict=True):
        fetch.until(PullComplete)
        assert node.has(manifest) == content
        assert not fetch.all_of(ParentLost)
        assert fetch.all_of(Progress)[-1].read < manifest.size // 2


def test_a_layer_of_noise_comes_as_it_is_over_a_slow_link(make_node: MakeNode) -> None:
    content = os.urandom(24 * CHUNK)
    manifest = make_manifest(cut(content), CHUNK)
    source, sink = make_node("source", rate_bytes_s=4 * SLOW), make_node("sink", number=1)
    source.holds(content, manifest)
    fetch = sink.fetch(manifest).start([source.for_reader("sink")])
    fetch.until(PullComplete)
    assert sink.has(manifest) == content


def test_a_reader_without_the_library_gets_chunks_as_they_are(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, manifest = text_of(8)
    source, sink = make_node("source", rate_bytes_s=SLOW), make_node("sink", number=1)
    source.holds(content, manifest)
    monkeypatch.setattr("phalanx.agent.relay.stripe.zstd.library", lambda: None)
    fetch = sink.fetch(manifest).start([source.for_reader("sink")])
    fetch.until(PullComplete)
    assert sink.has(manifest) == content
    assert fetch.all_of(Progress)[-1].read > manifest.size


def test_a_relay_without_the_library_sends_chunks_as_they_are(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, manifest = text_of(3)
    node = make_node("n1", rate_bytes_s=SLOW)
    node.holds(content, manifest)
    monkeypatch.setattr("phalanx.agent.relay.packer.zstd.library", lambda: None)
    wire = reading(node)
    for index in range(3):
        wire.send(ChunkGet(manifest.blob, index, unpacks=True))
        assert answer(wire) == (Chunk(manifest.blob, index), cut(content)[index])
    wire.close()


@pytest.mark.parametrize("security", BulkSecurity)
def test_packed_chunks_come_in_the_order_in_which_they_were_asked_for(
    make_node: MakeNode, security: BulkSecurity
) -> None:
    content, manifest = text_of(16)
    node = make_node("n1", security=security, rate_bytes_s=SLOW, unknown_s=0.0)
    node.holds(content, manifest)
    wire = reading(node)
    asked = [ChunkGet(manifest.blob, index, unpacks=index % 5 != 0) for index in (*range(15, 0, -1), 99, 0)]
    for get in asked:
        wire.send(get)
    library, room = zstd.library(), memoryview(bytearray(CHUNK))
    assert library is not None
    for get in asked:
        message, payload = answer(wire)
        if get.index == 99:
            assert isinstance(message, ChunkRefused)
            continue
        assert message == Chunk(manifest.blob, get.index, packed=get.unpacks)
        content_of = bytes(room[: library.decompress(payload, room)]) if get.unpacks else payload
        assert content_of == cut(content)[get.index]
    wire.close()


def test_a_chunk_that_cannot_be_read_is_refused_and_those_before_it_come(make_node: MakeNode) -> None:
    content, manifest = text_of(8)
    node = make_node("n1", rate_bytes_s=SLOW)
    node.holds(content, manifest)
    os.truncate(node.cache.folder / manifest.blob.hex(), 6 * CHUNK)
    wire = reading(node)
    for index in range(8):
        wire.send(ChunkGet(manifest.blob, index, unpacks=True))
    kinds = [type(answer(wire)[0]) for _ in range(8)]
    assert kinds == [Chunk] * 6 + [ChunkRefused] * 2
    wire.close()


def test_what_was_packed_ahead_for_a_chunk_that_is_not_given_goes_out_for_no_other(tmp_path: Path) -> None:
    content, manifest = text_of(4)
    path, library, room = tmp_path / "layer", zstd.library(), memoryview(bytearray(CHUNK))
    path.write_bytes(content)
    file = open_own(path, os.O_RDONLY)
    assert library is not None
    packer = Packer(lambda: None, lambda: 1e-5)
    first, second, third = (ChunkGet(manifest.blob, index, unpacks=True) for index in range(3))
    assert packer.pack(first, (file, 0, CHUNK))
    packer.begin(second, (file, CHUNK, CHUNK))
    packed_third = packer.pack(third, (file, 2 * CHUNK, CHUNK))
    assert room[: library.decompress(packed_third, room)] == cut(content)[2]
    packer.close()


def test_little_waits_in_the_kernel_until_the_link_is_known(tmp_path: Path) -> None:
    content, manifest = text_of(1)
    path = tmp_path / "layer"
    path.write_bytes(content)
    file = open_own(path, os.O_RDONLY)
    counted, held = iter([Sent(0, 0.0, 0.0), Sent(1000, 0.01, 0.0), Sent(10**6, 1.0, 0.0)]), []
    packer = Packer(lambda: next(counted), lambda: 0.0, held.append)
    get, span = ChunkGet(manifest.blob, 0, unpacks=True), (file, 0, CHUNK)
    packed_sizes = [len(packer.pack(get, span)) for _ in range(3)]
    assert held == [UNSENT_BYTES, 0]
    assert [size > 0 for size in packed_sizes] == [False, False, True]
    packer.close()


def test_a_relay_that_packs_stops_at_once_and_leaves_no_thread(make_node: MakeNode) -> None:
    content, manifest = text_of(64)
    node = make_node("n1", rate_bytes_s=CHUNK)
    node.holds(content, manifest)
    wire = reading(node)
    for index in range(64):
        wire.send(ChunkGet(manifest.blob, index, unpacks=True))
    until(lambda: any(thread.name.startswith("relay: packing") for thread in threading.enumerate()))
    stopping = threading.Thread(target=node.relay.stop)
    stopping.start()
    stopping.join(0.9)
    assert not stopping.is_alive()
    assert not any(thread.name.startswith("relay: packing") for thread in threading.enumerate())
    wire.close()


#: A frame that is skipped (RFC 8878, 3.1.2), as large as a chunk.
SKIPPED = b"\x50\x2a\x4d\x18" + CHUNK.to_bytes(4, "little") + bytes(CHUNK)
BAD: dict[str, Callable[[bytes], bytes]] = {
    "not zstd": lambda chunk: b"no zstd at all",
    "empty": lambda chunk: b"",
    "cut short": lambda chunk: packed(chunk)[:-1],
    "of another chunk": lambda chunk: packed(chunk[::-1]),
    "of less": lambda chunk: packed(chunk[:-1]),
    "of more": lambda chunk: packed(chunk + b"x"),
    "of far more": lambda chunk: packed(bytes(64 << 20)),
    "not smaller": lambda chunk: packed(chunk) + SKIPPED,
    "not packed at all": lambda chunk: chunk,
}


@pytest.mark.parametrize("bad", BAD)
def test_who_sends_what_does_not_unpack_to_the_chunk_is_corrupt_and_not_read_from_again(
    make_node: MakeNode, bad: str
) -> None:
    content, manifest = text_of(4)
    spare, sink = make_node("spare"), make_node("sink", number=1)
    spare.holds(content, manifest)

    def ask(wanted: ChunkGet) -> bool:
        payload = BAD[bad](cut(content)[wanted.index])
        fetch.pull.on_chunk(Chunk(wanted.blob, wanted.index, packed=True, payload=payload))
        return True

    fetch = sink.fetch(manifest, ask=ask)
    fetch.start([CONTROLLER, spare.for_reader("sink")])
    lost = fetch.until(ParentLost)
    fetch.until(PullComplete)
    assert (lost.node, lost.corrupt) == ("", True)
    assert sink.has(manifest) == content


def test_what_was_not_asked_for_packed_is_not_taken_packed(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, manifest = text_of(2)
    sink = make_node("sink")
    small = [packed(chunk) for chunk in cut(content)]
    monkeypatch.setattr("phalanx.agent.relay.stripe.zstd.library", lambda: None)

    def ask(wanted: ChunkGet) -> bool:
        assert not wanted.unpacks
        fetch.pull.on_chunk(Chunk(wanted.blob, wanted.index, packed=True, payload=small[wanted.index]))
        return True

    fetch = sink.fetch(manifest, ask=ask)
    fetch.start([CONTROLLER])
    lost = fetch.until(ParentLost)
    assert lost.corrupt
    assert "packed" in lost.reason


def test_packed_chunks_of_the_controller_are_unpacked(make_node: MakeNode) -> None:
    content, manifest = text_of(9.5)
    sink = make_node("sink")

    def ask(wanted: ChunkGet) -> bool:
        assert wanted.unpacks
        payload = packed(cut(content)[wanted.index])
        fetch.pull.on_chunk(Chunk(wanted.blob, wanted.index, packed=True, payload=payload))
        return True

    fetch = sink.fetch(manifest, ask=ask)
    fetch.start([CONTROLLER])
    fetch.until(PullComplete)
    assert sink.has(manifest) == content
    assert fetch.all_of(Progress)[-1].read < manifest.size // 2


def test_the_kernel_tells_how_fast_a_link_is(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    rules: list[Packing] = []

    def kept() -> Packing:
        rules.append(Packing())
        return rules[-1]

    monkeypatch.setattr(packer_module, "Packing", kept)
    content = os.urandom(40 << 20)
    manifest = make_manifest(cut(content, 4 << 20), 4 << 20)
    node = make_node("n1", security=BulkSecurity.INTEGRITY)
    node.holds(content, manifest)
    wire = reading(node)
    for index in range(10):
        wire.send(ChunkGet(manifest.blob, index, unpacks=True))
        assert answer(wire)[1] == cut(content, 4 << 20)[index]
    wire.close()
    (rule,) = rules
    assert rule.wire_s is not None
    assert 0 <= rule.wire_s < 1e-6
