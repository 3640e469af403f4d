"""Blobs: chunks in any order, across reconnects, from liars: what is written is what the digests say."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from phalanx.protocol.blob import (
    WINDOW,
    ChunkMismatch,
    Download,
    Manifest,
    ManifestBuilder,
    chunk_count,
    chunk_length,
    layer_chunk_bytes,
)
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.messages import CHUNK_BYTES, CHUNK_BYTES_MIN, CHUNKS_PER_PAGE, BlobChunks


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def content(size: int) -> bytes:
    return bytes(index % 251 for index in range(size))


def manifest_of(data: bytes, chunk: int) -> Manifest:
    pieces = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    return Manifest(digest(data), len(data), tuple(map(digest, pieces)), chunk)


class Fetch(RuleBasedStateMachine):
    """A reader, chunks on their way, a broken link and a liar. Chunks have 4 bytes here."""

    chunk = 4

    @initialize(size=st.integers(0, 50))
    def begin(self, size: int) -> None:
        self.data = content(size)
        self.download = Download(manifest_of(self.data, self.chunk))
        self.file = bytearray(size)
        self.asked: list[int] = []

    def piece(self, index: int) -> bytes:
        return self.data[index * self.chunk : (index + 1) * self.chunk]

    @rule()
    def ask(self) -> None:
        wanted = self.download.to_ask()
        assert not set(wanted) & set(self.asked)
        self.asked += wanted

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def a_chunk_comes(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(self.asked))
        self.asked.remove(index)
        offset = self.download.on_chunk(index, self.piece(index))
        self.file[offset : offset + self.chunk] = self.piece(index)
        with pytest.raises(RemoteError):
            self.download.on_chunk(index, self.piece(index))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), wrong=st.binary(max_size=8))
    def a_liar_sends(self, data: st.DataObject, wrong: bytes) -> None:
        index = data.draw(st.sampled_from(self.asked))
        if wrong != self.piece(index):
            with pytest.raises(ChunkMismatch):
                self.download.on_chunk(index, wrong)

    @rule(index=st.integers(0, 20))
    def a_chunk_comes_that_nobody_asked_for(self, index: int) -> None:
        if index not in self.asked:
            with pytest.raises(RemoteError):
                self.download.on_chunk(index, self.piece(index))

    @rule()
    def the_link_breaks(self) -> None:
        self.download.restart()
        self.asked.clear()

    @invariant()
    def what_counts_as_received_is_written_and_right(self) -> None:
        if hasattr(self, "data"):
            done = self.download.received
            assert self.file[:done] == self.data[:done]
            assert len(self.asked) <= WINDOW

    def teardown(self) -> None:
        if not hasattr(self, "data"):
            return
        self.the_link_breaks()
        while not self.download.complete:
            self.ask()
            for index in list(self.asked):
                self.asked.remove(index)
                offset = self.download.on_chunk(index, self.piece(index))
                self.file[offset : offset + self.chunk] = self.piece(index)
        assert bytes(self.file) == self.data
        assert self.download.received == len(self.data)


TestFetch = Fetch.TestCase


@pytest.mark.parametrize("count", [0, 1, CHUNKS_PER_PAGE, CHUNKS_PER_PAGE + 1, 3 * CHUNKS_PER_PAGE])
def test_a_manifest_of_any_length_comes_back_from_its_pages(count: int) -> None:
    manifest = Manifest(bytes(32), count * CHUNK_BYTES, tuple(digest(bytes([n % 256])) for n in range(count)))
    builder = ManifestBuilder()
    *early, last = manifest.pages()
    assert all(builder.add(page) is None for page in early)
    assert builder.add(last) == manifest


def test_pages_that_do_not_fit_together_are_refused() -> None:
    size = (CHUNKS_PER_PAGE + 1) * CHUNK_BYTES
    first = BlobChunks(bytes(32), size, 0, (bytes(32),) * CHUNKS_PER_PAGE)
    for second in (
        BlobChunks(b"o" * 32, size, CHUNKS_PER_PAGE, (bytes(32),)),
        BlobChunks(bytes(32), size + 1, CHUNKS_PER_PAGE, (bytes(32),)),
        BlobChunks(bytes(32), size, CHUNKS_PER_PAGE - 1, (bytes(32),)),
        BlobChunks(bytes(32), size, CHUNKS_PER_PAGE, ()),
        BlobChunks(bytes(32), size, CHUNKS_PER_PAGE, (bytes(32),) * 2),
        BlobChunks(bytes(32), size, CHUNKS_PER_PAGE, (bytes(32),), CHUNK_BYTES // 2),
    ):
        builder = ManifestBuilder()
        assert builder.add(first) is None
        with pytest.raises(RemoteError):
            builder.add(second)


def test_a_page_without_its_beginning_is_refused() -> None:
    with pytest.raises(RemoteError, match="does not fit"):
        ManifestBuilder().add(BlobChunks(bytes(32), CHUNK_BYTES, 1, (bytes(32),)))


@pytest.mark.parametrize(
    ("size", "count", "last"),
    [(0, 0, 0), (1, 1, 1), (CHUNK_BYTES, 1, CHUNK_BYTES), (CHUNK_BYTES + 1, 2, 1)],
)
def test_every_chunk_has_its_full_length_but_the_last(size: int, count: int, last: int) -> None:
    assert chunk_count(size) == count
    if count:
        assert chunk_length(size, count - 1) == last


@pytest.mark.parametrize(
    ("total", "chunk"),
    [
        (0, 256 << 10),
        (1, 256 << 10),
        (64 << 20, 256 << 10),
        (256 << 20, 1 << 20),
        (300 << 20, 1 << 20),
        (1 << 30, 4 << 20),
        (40 << 30, 4 << 20),
    ],
)
def test_chunks_of_layers_grow_with_the_image_up_to_the_most_that_travels(total: int, chunk: int) -> None:
    assert layer_chunk_bytes(total) == chunk


def test_a_manifest_of_small_chunks_comes_back_from_its_pages() -> None:
    data = content(3 * CHUNK_BYTES_MIN + 5)
    manifest = manifest_of(data, CHUNK_BYTES_MIN)
    builder = ManifestBuilder()
    assert [builder.add(page) for page in manifest.pages()] == [manifest]
    assert [manifest.length(index) for index in range(4)] == [CHUNK_BYTES_MIN] * 3 + [5]
    assert [manifest.offset(index) for index in range(4)] == [index * CHUNK_BYTES_MIN for index in range(4)]
