"""Blobs: chunks in any order, across reconnects, from liars: what is written is what the digests say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from phalanx.protocol import blob
from phalanx.protocol.blob import (
    WINDOW,
    BlobMismatch,
    ChunkMismatch,
    Download,
    Manifest,
    chunk_count,
    chunk_length,
    layer_chunk_bytes,
    make_pages,
    with_page,
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


def put_together(pages: Iterable[BlobChunks]) -> Manifest:
    manifest = None
    for page in pages:
        manifest = with_page(manifest, page)
    assert manifest is not None
    return manifest


@pytest.mark.parametrize("count", [0, 1, CHUNKS_PER_PAGE, CHUNKS_PER_PAGE + 1, 3 * CHUNKS_PER_PAGE])
def test_a_manifest_of_any_length_comes_back_from_its_pages(count: int) -> None:
    manifest = Manifest(bytes(32), count * CHUNK_BYTES, tuple(digest(bytes([n % 256])) for n in range(count)))
    pages = manifest.pages()
    assert put_together(pages) == manifest
    wholes = [put_together(pages[:some]).whole for some in range(1, len(pages) + 1)]
    assert wholes == [False] * (len(pages) - 1) + [True]


def test_pages_that_do_not_fit_together_are_refused_and_change_nothing() -> None:
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
        manifest = with_page(None, first)
        with pytest.raises(RemoteError):
            with_page(manifest, second)
        assert manifest.pages() == [first]


def test_a_page_without_its_beginning_is_refused() -> None:
    with pytest.raises(RemoteError, match="does not fit"):
        with_page(None, BlobChunks(bytes(32), CHUNK_BYTES, 1, (bytes(32),)))


def test_a_first_page_begins_anew_and_leaves_what_was_begun_before_as_it_is() -> None:
    pages = manifest_of(content(9 * CHUNK_BYTES_MIN), CHUNK_BYTES_MIN).pages()
    half = BlobChunks(pages[0].blob, pages[0].size, 0, pages[0].digests[:4], CHUNK_BYTES_MIN)
    before = with_page(None, half)
    again = with_page(before, pages[0])
    assert (again.whole, before.whole, len(before.digests)) == (True, False, 4)


def test_a_chunk_whose_digest_is_not_known_yet_is_not_taken() -> None:
    data = content(3 * CHUNK_BYTES_MIN)
    whole = manifest_of(data, CHUNK_BYTES_MIN)
    some = Manifest(whole.blob, whole.size, whole.digests[:2], CHUNK_BYTES_MIN)
    pieces = [data[n : n + CHUNK_BYTES_MIN] for n in range(0, len(data), CHUNK_BYTES_MIN)]
    some.verify(1, pieces[1])
    with pytest.raises(ChunkMismatch, match="of 2 are known"):
        some.verify(2, pieces[2])
    download = Download(some)
    assert download.to_ask() == [0, 1]
    for index in (0, 1):
        download.on_chunk(index, pieces[index])
    assert not download.complete
    some.add(BlobChunks(whole.blob, whole.size, 2, whole.digests[2:], CHUNK_BYTES_MIN))
    assert download.to_ask() == [2]


# --- digests told while they are made


@given(
    size=st.integers(0, 50),
    page=st.integers(1, 20),
    damaged=st.none() | st.floats(0, 1, exclude_max=True),
    cut=st.integers(0, 8),
)
def test_the_last_page_comes_only_of_a_blob_that_is_what_its_digest_says(
    size: int, page: int, damaged: float | None, cut: int
) -> None:
    data = content(size)
    whole = manifest_of(data, 4)
    read = bytearray(data[: max(0, size - cut)])
    if damaged is not None and read:
        read[int(damaged * len(read))] ^= 4
    chunks = (bytes(read[n : n + 4]) for n in range(0, len(read), 4))
    told: list[BlobChunks] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blob, "PAGE_BYTES", page)
        try:
            told.extend(make_pages(whole.blob, size, chunks, 4))
        except BlobMismatch:
            assert bytes(read) != data
            assert sum(len(one.digests) for one in told) < max(1, whole.count)
        else:
            assert bytes(read) == data
            assert put_together(told) == whole
            assert max(len(one.digests) for one in told) <= max(1, page // 4)


def test_a_page_is_told_before_the_chunks_of_the_next_are_read() -> None:
    data = content(16)
    whole = manifest_of(data, 4)
    read: list[int] = []

    def chunks() -> Iterator[bytes]:
        for index in range(4):
            read.append(index)
            yield data[index * 4 :][:4]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blob, "PAGE_BYTES", 8)
        pages = make_pages(whole.blob, len(data), chunks(), 4)
        assert next(pages).digests == whole.digests[:2]
        assert read == [0, 1]
        assert [page.digests for page in pages] == [whole.digests[2:]]


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
        (256 << 20, 512 << 10),
        (300 << 20, 512 << 10),
        (1 << 30, 2 << 20),
        (2 << 30, 4 << 20),
        (40 << 30, 4 << 20),
    ],
)
def test_chunks_of_layers_grow_with_the_image_up_to_the_most_that_travels(total: int, chunk: int) -> None:
    assert layer_chunk_bytes(total) == chunk


def test_a_manifest_of_small_chunks_comes_back_from_its_pages() -> None:
    data = content(3 * CHUNK_BYTES_MIN + 5)
    manifest = manifest_of(data, CHUNK_BYTES_MIN)
    assert put_together(manifest.pages()) == manifest
    assert [manifest.length(index) for index in range(4)] == [CHUNK_BYTES_MIN] * 3 + [5]
    assert [manifest.offset(index) for index in range(4)] == [index * CHUNK_BYTES_MIN for index in range(4)]
