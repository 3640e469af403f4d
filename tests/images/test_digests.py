"""Digests are told while they are made: pages in their order, the last one only of what is right."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from phalanx.controller.images import digests
from phalanx.controller.images.archive import Span, span_pages
from phalanx.controller.images.digests import made_here, tell_digests
from phalanx.protocol import blob
from phalanx.protocol.blob import Manifest, make_pages
from phalanx.protocol.image import ImageFormatError
from phalanx.protocol.messages import BlobChunks, Layer

CHUNK = 4


class Told:
    """What was told, as layers and their chunks from the first to the last of a page."""

    def __init__(self) -> None:
        self.pages: list[tuple[int, range]] = []
        self.manifests: dict[int, Manifest] = {}
        self._news = asyncio.Event()

    def __call__(self, place: int, manifest: Manifest, page: BlobChunks) -> None:
        self.pages.append((place, range(page.first, page.first + len(page.digests))))
        self.manifests[place] = manifest
        self._news.set()

    async def until(self, count: int) -> None:
        """Until so many pages were told."""
        async with asyncio.timeout(10):
            while len(self.pages) < count:
                self._news.clear()
                await self._news.wait()


class Reading:
    """A layer of chunks of four bytes, one a page, of which no more are read than ``allow`` has allowed."""

    def __init__(self, chunks: int, *, damaged: bool = False, allowed: int = 0) -> None:
        self.data = bytes(range(chunks * CHUNK))
        self.blob = bytes(32) if damaged else hashlib.sha256(self.data).digest()
        self.read = 0
        self.over = threading.Event()
        self._allowed = threading.Semaphore(allowed)

    def allow(self, chunks: int) -> None:
        self._allowed.release(chunks)

    def pages(self) -> AsyncIterator[BlobChunks]:
        return made_here(make_pages(self.blob, len(self.data), self._chunks(), CHUNK))

    def _chunks(self) -> Iterator[bytes]:
        try:
            for start in range(0, len(self.data), CHUNK):
                assert self._allowed.acquire(timeout=10)
                self.read += 1
                yield self.data[start : start + CHUNK]
        finally:
            self.over.set()


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob, "PAGE_BYTES", CHUNK)
    monkeypatch.setattr(digests, "HASHERS", 2)


async def test_the_first_page_is_told_before_the_second_is_read() -> None:
    layer, told = Reading(3), Told()
    telling = asyncio.create_task(tell_digests({0: layer.pages()}, told))
    layer.allow(1)
    await told.until(1)
    assert (told.pages, layer.read) == ([(0, range(1))], 1)
    layer.allow(2)
    await telling
    assert told.pages == [(0, range(1)), (0, range(1, 2)), (0, range(2, 3))]
    assert told.manifests[0].whole


async def test_a_layer_is_told_after_all_of_those_before_it_and_then_in_few_pages() -> None:
    first, second, told = Reading(2), Reading(3, allowed=3), Told()
    telling = asyncio.create_task(tell_digests({4: first.pages(), 1: second.pages()}, told))
    first.allow(1)
    await told.until(1)
    assert await asyncio.to_thread(second.over.wait, 10)  # it is read beside the first
    assert told.pages == [(4, range(1))]
    first.allow(1)
    await telling
    assert told.pages[:2] == [(4, range(1)), (4, range(1, 2))]
    assert [index for place, page in told.pages if place == 1 for index in page] == [0, 1, 2]
    assert len(told.pages) < 5


async def test_where_telling_takes_long_there_is_rest_between(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, told, clock, rests = Reading(3, allowed=1), Told(), itertools.count(step=2.5), list[float]()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        layer.allow(2)
        assert await asyncio.to_thread(layer.over.wait, 10)

    monkeypatch.setattr(digests, "monotonic", lambda: next(clock))
    monkeypatch.setattr(digests, "sleep", sleep)
    await tell_digests({0: layer.pages()}, told)
    assert set(rests) == {2.5 * digests.REST}
    assert [index for _, page in told.pages for index in page] == [0, 1, 2]


async def test_the_last_page_of_a_damaged_layer_is_not_told() -> None:
    told, other = Told(), Reading(3)
    with pytest.raises(ExceptionGroup) as failed:
        await tell_digests({0: Reading(3, damaged=True, allowed=3).pages(), 1: other.pages()}, told)
    assert isinstance(failed.value.exceptions[0], blob.BlobMismatch)
    assert {index for _, page in told.pages for index in page} <= {0, 1}
    assert other.read == 0
    other.allow(1)


async def test_an_empty_layer_is_told_only_when_its_digest_is_that_of_nothing() -> None:
    told = Told()
    await tell_digests({0: Reading(0).pages()}, told)
    assert told.pages == [(0, range(0))]
    with pytest.raises(ExceptionGroup):
        await tell_digests({1: Reading(0, damaged=True).pages()}, told)
    assert len(told.pages) == 1


async def test_an_empty_layer_that_is_known_before_its_turn_is_told_too() -> None:
    told, layer = Told(), digests._Layer(1, Reading(0).pages())
    await layer.make(asyncio.Semaphore(1))
    async with asyncio.timeout(10):
        await layer.tell(told)
    assert told.pages == [(1, range(0))]


async def test_called_off_it_reads_no_further_than_the_page_at_which_it_is() -> None:
    layer, told = Reading(5, allowed=1), Told()
    telling = asyncio.create_task(tell_digests({0: layer.pages()}, told))
    await told.until(1)
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    layer.allow(5)
    await asyncio.get_running_loop().shutdown_default_executor()  # waits for its threads
    assert layer.read <= 2
    assert len(told.pages) == 1


def test_a_file_that_is_cut_short_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(bytes(10))
    layer = Layer(hashlib.sha256(bytes(12)).digest(), 12)
    pages = span_pages(Span(path, 0, 12), layer, CHUNK)
    assert [len(next(pages).digests) for _ in range(2)] == [1, 1]
    with pytest.raises(ImageFormatError, match="is damaged: it does not match its digest"):
        next(pages)
