"""Blobs fetched and offered: chunks that are wrong, connections that break, disks that are full."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from phalanx.agent import blobs as blobs_module
from phalanx.agent.blobs import BlobError, BlobStore
from phalanx.agent.syncing import Syncing
from phalanx.protocol import messages as m
from phalanx.protocol.blob import WINDOW, Manifest, make_manifest
from phalanx.protocol.errors import RemoteError

from .agent import Agent
from .controller import Controller

CONTENT = os.urandom(6 * m.CHUNK_BYTES + 4711)


def chunks_of(content: bytes) -> list[bytes]:
    return [content[i : i + m.CHUNK_BYTES] for i in range(0, len(content), m.CHUNK_BYTES)]


class Store:
    """A store and the script of what the other side sends. ``up``: whether the bulk link stands."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[int] = []
        self.sent: list[m.Message] = []
        self.up = True
        self.store = BlobStore(folder, self.sent.append, self._send_bulk, self._need_bulk)

    def _send_bulk(self, message: m.Message) -> bool:
        if self.up:
            self.asked += [message.index] if isinstance(message, m.ChunkGet) else []
            self.sent.append(message)
        return self.up

    async def _need_bulk(self) -> None:
        return

    def expect(self, content: bytes) -> tuple[Manifest, asyncio.Task[Path]]:
        manifest = make_manifest(chunks_of(content))
        for page in manifest.pages():
            self.store.on_chunks(page)
        return manifest, asyncio.create_task(self.store.fetch(m.BlobFetch(1, manifest.blob, manifest.size)))

    async def answer(self, manifest: Manifest, task: asyncio.Task[Path], content: bytes) -> None:
        """Give every chunk that is asked for, the latest first, until the fetch is over."""
        while not task.done():
            while self.asked:
                index = self.asked.pop()
                self.store.on_chunk(m.Chunk(manifest.blob, index, payload=chunks_of(content)[index]))
            await asyncio.sleep(0.001)


@pytest.fixture
def other(tmp_path: Path) -> Store:
    (tmp_path / "blobs").mkdir()
    return Store(tmp_path / "blobs")


def nothing_left(other: Store) -> bool:
    return not list(other.store.directory.iterdir()) and not other.store._fetches


async def test_a_blob_is_fetched_whole_whatever_the_order_of_its_chunks(other: Store) -> None:
    manifest, task = other.expect(CONTENT)
    await other.answer(manifest, task, CONTENT)
    assert (await task).read_bytes() == CONTENT


async def test_an_empty_blob_needs_no_chunk(other: Store) -> None:
    _, task = other.expect(b"")
    assert (await task).read_bytes() == b""
    assert not other.asked


async def test_two_who_want_the_same_blob_get_it_from_one_fetch(other: Store) -> None:
    manifest, first = other.expect(CONTENT)
    second = asyncio.create_task(other.store.fetch(m.BlobFetch(2, manifest.blob, manifest.size)))
    await other.answer(manifest, first, CONTENT)
    assert await first == await second
    assert len([one for one in other.sent if isinstance(one, m.ChunkGet)]) == len(manifest.digests)


async def test_no_more_than_a_window_is_asked_for_at_a_time(other: Store) -> None:
    _, task = other.expect(CONTENT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert other.asked == list(range(WINDOW))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert nothing_left(other)


async def test_a_chunk_with_other_bytes_ends_the_fetch_by_its_number(other: Store) -> None:
    manifest, task = other.expect(CONTENT)
    spoilt = bytearray(CONTENT)
    spoilt[2 * m.CHUNK_BYTES + 5] ^= 1
    await other.answer(manifest, task, bytes(spoilt))
    with pytest.raises(BlobError, match="chunk 2"):
        task.result()
    assert nothing_left(other)


async def test_a_refused_chunk_ends_the_fetch_with_the_reason(other: Store) -> None:
    manifest, task = other.expect(CONTENT)
    await asyncio.sleep(0)
    other.store.on_chunk(m.ChunkRefused(manifest.blob, 0, "read error"))
    with pytest.raises(BlobError, match="read error"):
        await task
    assert nothing_left(other)


async def test_a_fetch_goes_on_after_a_break_and_asks_for_nothing_it_has(other: Store) -> None:
    manifest, task = other.expect(CONTENT)
    while len(other.asked) < WINDOW:
        await asyncio.sleep(0.001)
    for index in (0, 1):
        other.store.on_chunk(m.Chunk(manifest.blob, index, payload=chunks_of(CONTENT)[index]))
    # the new link stands before the chunks of the old one are written
    other.asked.clear()
    other.store.bulk_is_up()
    while not other.asked:
        await asyncio.sleep(0.001)
    assert min(other.asked) == 2
    assert len(other.asked) == len(set(other.asked))
    await other.answer(manifest, task, CONTENT)
    assert (await task).read_bytes() == CONTENT


async def test_a_fetch_waits_while_there_is_no_link(other: Store) -> None:
    other.up = False
    manifest, task = other.expect(CONTENT)
    await asyncio.sleep(0.01)
    assert not other.asked and not task.done()
    other.up = True
    other.store.bulk_is_up()
    await other.answer(manifest, task, CONTENT)
    assert (await task).read_bytes() == CONTENT


async def test_a_flood_of_chunks_costs_the_link(other: Store) -> None:
    manifest, task = other.expect(CONTENT)
    await asyncio.sleep(0)
    with pytest.raises(RemoteError, match="more chunks"):
        for _ in range(100):
            other.store.on_chunk(m.Chunk(manifest.blob, 0, payload=b""))
    with pytest.raises(BlobError):
        await task


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond three chunks: the kernel refuses the write, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * m.CHUNK_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_takes_no_more_ends_the_fetch_and_leaves_nothing(
    other: Store, small_files: None
) -> None:
    manifest, task = other.expect(CONTENT)
    await other.answer(manifest, task, CONTENT)
    with pytest.raises(BlobError, match=r"cannot write .*: File too large"):
        task.result()
    assert nothing_left(other)


async def test_a_disk_without_room_is_seen_before_anything_is_asked(
    other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "RESERVE_BYTES", 1 << 60)
    _, task = other.expect(CONTENT)
    with pytest.raises(BlobError, match=r"not enough room .* are needed, .* are free"):
        await task
    assert not other.asked


async def test_a_blob_without_its_manifest_is_refused(other: Store) -> None:
    with pytest.raises(BlobError, match="manifest"):
        await other.store.fetch(m.BlobFetch(1, b"x" * 32, 10))


async def test_what_is_offered_is_served_and_a_changed_or_linked_file_is_not(
    other: Store, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "perf.csv").write_bytes(b"a,b\n")
    manifest = await other.store.offer(results, "perf.csv")

    async def served(index: int = 0) -> m.Message:
        await other.store.serve(m.ChunkGet(manifest.blob, index))
        return other.sent[-1]

    assert await served() == m.Chunk(manifest.blob, 0, payload=b"a,b\n")
    assert isinstance(await served(1), m.ChunkRefused)
    (results / "perf.csv").write_bytes(b"a,c\n")
    assert isinstance(await served(), m.ChunkRefused)
    (results / "perf.csv").unlink()
    (tmp_path / "elsewhere").write_bytes(b"a,b\n")
    (results / "perf.csv").symlink_to(tmp_path / "elsewhere")
    assert isinstance(await served(), m.ChunkRefused)
    other.store.forget(results)
    assert not other.store._manifests


@pytest.mark.local
async def test_a_blob_comes_over_the_wire_although_its_link_is_cut(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        blob = controller.ship(CONTENT * 3)
        await controller.heard(m.FetchProgress)
        controller.cut()
        assert (await controller.heard(m.BlobHave)) == m.BlobHave(1, blob, "")
        assert agent.session.blobs.held[blob].stat().st_size == 3 * len(CONTENT)


@pytest.mark.local
async def test_a_spoilt_chunk_on_the_wire_is_told_by_its_number(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        controller.spoil[1] = b"\0" * m.CHUNK_BYTES
        controller.ship(CONTENT)
        assert "chunk 1 does not match its digest" in (await controller.heard(m.BlobHave)).error
        again = controller.ship(CONTENT, request=2)
        assert (await controller.heard(m.BlobHave)) == m.BlobHave(2, again, "")


async def test_bytes_that_two_cases_share_are_there_until_the_last_lets_go(other: Store) -> None:
    manifest, first = other.expect(CONTENT)
    await other.answer(manifest, first, CONTENT)
    _, second = other.expect(CONTENT)
    path = await second
    other.store.drop(manifest.blob)
    assert path.exists()
    other.store.drop(manifest.blob)
    assert not path.exists()
    _, third = other.expect(CONTENT)
    await other.answer(manifest, third, CONTENT)
    assert (await third).read_bytes() == CONTENT


async def test_who_sent_the_manifest_before_the_last_let_go_still_gets_the_blob(other: Store) -> None:
    manifest, first = other.expect(CONTENT)
    await other.answer(manifest, first, CONTENT)
    for page in manifest.pages():
        other.store.on_chunks(page)
    other.store.drop(manifest.blob)
    fetch = other.store.fetch(m.BlobFetch(2, manifest.blob, manifest.size))
    second = asyncio.create_task(fetch)
    await other.answer(manifest, second, CONTENT)
    assert (await second).read_bytes() == CONTENT


async def test_a_file_that_two_cases_offer_is_offered_until_both_are_gone(
    other: Store, tmp_path: Path
) -> None:
    for case in ("a", "b"):
        (tmp_path / case).mkdir()
        (tmp_path / case / "perf.csv").write_bytes(b"1")
        manifest = await other.store.offer(tmp_path / case, "perf.csv")
    other.store.forget(tmp_path / "b")
    await other.store.serve(m.ChunkGet(manifest.blob, 0))
    assert other.sent[-1] == m.Chunk(manifest.blob, 0, payload=b"1")
    other.store.forget(tmp_path / "a")
    await other.store.serve(m.ChunkGet(manifest.blob, 0))
    assert isinstance(other.sent[-1], m.ChunkRefused)


def page(whole: Manifest, first: int, until: int) -> m.BlobChunks:
    return m.BlobChunks(whole.blob, whole.size, first, whole.digests[first:until])


async def test_a_manifest_is_had_with_its_first_page_and_grows_with_the_others(tmp_path: Path) -> None:
    store, whole = Store(tmp_path).store, make_manifest(chunks_of(CONTENT))
    waiting = asyncio.create_task(store.manifest(whole.blob))
    store.on_chunks(page(whole, 0, 2))
    manifest = await waiting
    assert (manifest.whole, len(manifest.digests)) == (False, 2)
    more = asyncio.create_task(store.more())
    await asyncio.sleep(0)
    store.on_chunks(page(whole, 2, 7))
    await more
    assert manifest == whole
    assert await store.manifest(whole.blob) is manifest


async def test_a_blob_is_not_fetched_by_half_a_manifest(tmp_path: Path) -> None:
    store, whole = Store(tmp_path).store, make_manifest(chunks_of(CONTENT))
    store.on_chunks(page(whole, 0, 2))
    with pytest.raises(BlobError, match="its manifest did not come before it"):
        await store.fetch(m.BlobFetch(1, whole.blob, whole.size))


async def test_manifests_that_are_to_come_anew_are_waited_for_though_one_was_begun(tmp_path: Path) -> None:
    store, whole = Store(tmp_path).store, make_manifest(chunks_of(CONTENT))
    store.on_chunks(page(whole, 0, 2))
    before = await store.manifest(whole.blob)
    store.expect_anew([whole.blob])
    waiting = asyncio.create_task(store.manifest(whole.blob))
    await asyncio.sleep(0)
    assert not waiting.done()
    with pytest.raises(RemoteError, match="does not fit"):
        store.on_chunks(page(whole, 2, 7))  # of the one before
    store.on_chunks(page(whole, 0, 3))
    assert await waiting is not before


async def test_digests_reach_the_fetch_of_a_layer_as_they_come_and_the_next_one_waits(tmp_path: Path) -> None:
    store = Store(tmp_path).store
    first, second = (make_manifest(chunks_of(CONTENT[start:])) for start in (0, m.CHUNK_BYTES))
    heard: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()
    loop, added = asyncio.get_running_loop(), list[Manifest]()

    def say() -> None:
        heard.put_nowait((added[-1].blob, len(added[-1].digests)))

    pull = SimpleNamespace(
        add=lambda manifest: (added.append(manifest), loop.call_soon_threadsafe(say)), more_known=say
    )
    content: Any = SimpleNamespace(layers=())
    session: Any = SimpleNamespace(blobs=store)
    message: Any = SimpleNamespace(stripes=())
    syncing = Syncing(session, cast(Any, None), message, content, lambda spool: None, _pull=cast(Any, pull))
    adding = asyncio.create_task(syncing._add([first.blob, second.blob]))

    async def until(blob: bytes, known: int) -> None:
        async with asyncio.timeout(10):
            while await heard.get() != (blob, known):
                pass

    store.on_chunks(page(first, 0, 2))
    await until(first.blob, 2)
    store.on_chunks(page(second, 0, 6))
    store.on_chunks(page(first, 2, 5))
    await until(first.blob, 5)
    assert [one.blob for one in added] == [first.blob]
    store.on_chunks(page(first, 5, 7))
    await until(second.blob, 6)
    await adding
    assert added == [first, second]
