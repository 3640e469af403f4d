"""Files from nodes: names that lead out, lies about sizes, bad chunks, and that every good byte arrives."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.pulling import AT_ONCE, FILE_BYTES, MOST_FILES, BadOffer, Pulling, kept_path
from phalanx.protocol import messages as m
from phalanx.protocol.blob import WINDOW, Manifest, make_manifest
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.messages import CHUNK_BYTES


def manifest_of(content: bytes) -> Manifest:
    return make_manifest(
        content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)
    )


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class Node:
    """The hub as ``Pulling`` sees it: one node that holds blobs and answers for chunks, well or badly."""

    def __init__(self, folder: Path, *, single_case: bool = True) -> None:
        self.events: list[ev.Event] = []
        self.held: dict[bytes, bytes] = {}
        self.asked: list[int] = []
        self.spoil = lambda chunk: chunk
        self.answers = True
        self.tasks: list[asyncio.Task[None]] = []
        self.pulling = Pulling(self, folder, single_case, self.events.append)  # type: ignore[arg-type]

    def tell_bulk(self, node: str, message: m.Message) -> bool:
        assert isinstance(message, m.ChunkGet)
        self.asked.append(message.index)
        content = self.held[message.blob]
        payload = content[message.index * CHUNK_BYTES : (message.index + 1) * CHUNK_BYTES]
        if self.answers:
            chunk = self.spoil(m.Chunk(message.blob, message.index, payload=payload))
            asyncio.get_running_loop().call_soon(self.pulling.on_chunk, node, chunk)
        return True

    def spawn(self, work: object, *, name: str) -> None:
        self.tasks.append(asyncio.create_task(work, name=name))  # type: ignore[arg-type]

    def offer(self, path: str, content: bytes, *, size: int | None = None, case: str = "case") -> None:
        manifest = manifest_of(content)
        self.held[manifest.blob] = content
        for page in manifest.pages():
            self.pulling.on_chunks("n0", page)
        length = manifest.size if size is None else size
        self.pulling.on_offer("n0", m.FileOffer(1, case, path, length, manifest.blob), self.spawn)

    async def all_in(self) -> list[ev.FileCollected]:
        over = asyncio.Event()
        self.pulling.after_offers("n0", over.set, self.spawn)
        async with asyncio.timeout(20):
            await over.wait()
        return [event for event in self.events if isinstance(event, ev.FileCollected)]


EVIL = [
    "",
    "/etc/passwd",
    "../up",
    "a/../../up",
    "a/..",
    "x\0y",
    "line\nbreak",
    "\x1b[31mred",
    "\u202egnp.exe",
    "/".join("d" * 40),
    "n" * 256,
    "é" * 128,
]


@pytest.mark.parametrize("name", EVIL)
async def test_a_name_that_is_no_plain_relative_path_is_refused(name: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    node = Node(run_dir)
    node.offer(name, b"evil")
    (collected,) = await node.all_in()
    assert collected.kept == ""
    assert collected.error
    assert files_below(tmp_path) == []


def test_folders_of_results_are_named_as_those_of_logs() -> None:
    assert str(kept_path("n0", "a/b c", "x/perf.csv", single_case=False)) == "results/n0/a_b_c/x/perf.csv"
    assert str(kept_path("n0", "..", "perf.csv", single_case=False)) == "results/n0/_./perf.csv"
    with pytest.raises(BadOffer):
        kept_path("n0", "case", "..", single_case=True)


async def test_the_same_content_under_two_names_arrives_twice(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.offer("a.csv", b"same")
    node.offer("b/c.csv", b"same")
    first, second = await node.all_in()
    assert (first.error, second.error) == ("", "")
    assert (tmp_path / first.kept).read_bytes() == (tmp_path / second.kept).read_bytes() == b"same"


async def test_a_name_that_looks_like_a_part_of_another_survives_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.offer("x.part", b"mine")
    node.offer("x", b"other")
    node.offer("x.part.part", b"third")
    assert [one.error for one in await node.all_in()] == ["", "", ""]
    assert (tmp_path / "results/n0/x.part").read_bytes() == b"mine"


async def test_a_second_file_of_one_name_never_replaces_the_first(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.offer("x", b"first")
    node.offer("x", b"first")
    node.offer("x", b"second")
    errors = [one.error for one in await node.all_in()]
    assert errors == ["", "", "another file was kept as results/n0/x already"]
    assert (tmp_path / "results/n0/x").read_bytes() == b"first"


async def test_a_corrupt_chunk_leaves_no_file(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.spoil = lambda chunk: m.Chunk(chunk.blob, chunk.index, payload=b"?" * len(chunk.payload))
    node.offer("x", b"content")
    (collected,) = await node.all_in()
    assert "does not match its digest" in collected.error
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1, FILE_BYTES + 1])
async def test_a_size_that_is_a_lie_is_refused_before_a_byte_moves(size: int, tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.offer("x", b"content", size=size)
    (collected,) = await node.all_in()
    assert collected.error
    assert node.asked == []


async def test_a_file_of_several_chunks_goes_on_after_a_new_bulk_connection(tmp_path: Path) -> None:
    node = Node(tmp_path)
    content = os.urandom(6 * CHUNK_BYTES + 5)
    node.answers = False
    node.offer("big", content)
    while len(node.asked) < 4:
        await asyncio.sleep(0)
    node.answers = True
    node.pulling.bulk_is_up("n0")
    (collected,) = await node.all_in()
    assert collected.error == ""
    assert (tmp_path / collected.kept).read_bytes() == content


async def test_a_chunk_that_comes_twice_changes_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)

    def twice(chunk: m.Chunk) -> m.Chunk:
        asyncio.get_running_loop().call_soon(node.pulling.on_chunk, "n0", chunk)
        return chunk

    node.spoil = twice
    content = os.urandom(2 * CHUNK_BYTES + 1)
    node.offer("x", content)
    (collected,) = await node.all_in()
    assert collected.error == ""
    assert (tmp_path / collected.kept).read_bytes() == content


async def test_a_flood_of_chunks_costs_the_sender_its_connection(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.answers = False
    node.offer("x", b"content")
    while not node.asked:
        await asyncio.sleep(0)
    chunk = m.Chunk(manifest_of(b"content").blob, 0, payload=b"content")
    with pytest.raises(RemoteError):
        for _ in range(100):
            node.pulling.on_chunk("n0", chunk)


async def test_a_manifest_of_more_than_memory_can_hold_is_refused(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with pytest.raises(RemoteError):
        node.pulling.on_chunks("n0", m.BlobChunks(bytes(32), 2**62, 0, (bytes(32),)))


async def test_files_beyond_the_limit_are_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx.controller.fleet.pulling.MOST_FILES", 2)
    node = Node(tmp_path)
    for number in range(4):
        node.offer(f"f{number}", b"%d" % number)
    assert [bool(one.error) for one in await node.all_in()] == [False, False, True, True]
    assert MOST_FILES == 2000


@pytest.mark.lab
async def test_a_full_disk_is_said_in_words_and_leaves_nothing_half_written(small_disk: Path) -> None:
    node = Node(small_disk)
    node.offer("x", os.urandom(2 * 1024 * 1024))
    (collected,) = await node.all_in()
    assert collected.error == "cannot write it on the login node: No space left on device"
    assert files_below(small_disk) == []
    node.offer("y", b"small")
    assert (await node.all_in())[-1].error == ""


async def test_refusals_of_one_file_are_none_of_the_next(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.answers = False
    node.offer("trace.bin", bytes(4 * CHUNK_BYTES))
    node.offer("perf.csv", b"a,b")
    first, second = node.held
    async with asyncio.timeout(10):
        while len(node.asked) < WINDOW:
            await asyncio.sleep(0)
    node.answers = True
    for index in range(WINDOW):
        node.pulling.on_refused("n0", m.ChunkRefused(first, index, "the file changed after it was offered"))
    trace, table = await node.all_in()
    assert trace.error == "the file changed after it was offered"
    assert (table.error, table.digest) == ("", second.hex())
    for index in range(WINDOW):  # for nothing that is being read
        node.pulling.on_refused("n0", m.ChunkRefused(first, index, "again"))


async def test_files_of_a_bounded_number_of_nodes_are_read_at_a_time(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.answers = False
    content = bytes(3 * CHUNK_BYTES)
    manifest = manifest_of(content)
    node.held[manifest.blob] = content
    for name in (f"n{number}" for number in range(3 * AT_ONCE)):
        for page in manifest.pages():
            node.pulling.on_chunks(name, page)
        offer = m.FileOffer(1, "case", "trace.bin", manifest.size, manifest.blob)
        node.pulling.on_offer(name, offer, node.spawn)
    for _ in range(20):
        await asyncio.sleep(0.02)
    assert len(node.asked) == 3 * AT_ONCE
    assert len(files_below(tmp_path)) == AT_ONCE
    for task in node.tasks:
        task.cancel()
    await asyncio.gather(*node.tasks, return_exceptions=True)
