"""Blobs to nodes over a real hub: every chunk once, after a broken connection the rest."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from phalanx.agent.relay.events import Patience
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.session import Session
from phalanx.controller.fleet.shipping import LONGEST_WAIT_S, MOST_ASKED, Held, Shipping, manifest_of
from phalanx.protocol import messages as m
from phalanx.protocol import zstd
from phalanx.protocol.blob import Download, Manifest, make_manifest, with_page
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.messages import CHUNK_BYTES, CHUNK_BYTES_MIN, Channel
from phalanx.protocol.packing import Packing, Sent
from phalanx.protocol.rate import BURST_S

from .peers import Fleet, Peer, fleet, say_hello


class Dock:
    """Shipping on a fleet's hub, with tasks of its own."""

    def __init__(self, one: Fleet) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.shipping = Shipping(one.hub, one._record, lambda *told: None)
        one.hub.take([m.BlobHave], self.shipping.on_have)
        one.hub.take([m.ChunkGet], lambda node, get: self.shipping.on_chunk_get(node, get, self.spawn))

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        self.tasks.append(asyncio.create_task(work, name=name))


async def join(one: Fleet, rank: int) -> tuple[Peer, Peer]:
    """Both connections of a node."""
    hello = say_hello(f"n{rank}", rank)
    control = await Peer(one, hello).shake()
    return control, await bulk_of(one, control)


async def bulk_of(one: Fleet, control: Peer) -> Peer:
    """Another bulk connection of a node."""
    hello = say_hello(control.hello.node, control.hello.node_rank, channel=Channel.BULK, resume=True)
    return await Peer(one, hello, control.resume_key).shake()


async def next_of(bulk: Peer) -> m.Message:
    """The next message on a connection."""
    await bulk.until(lambda: bulk.got)
    return bulk.got.pop(0)


async def fetch(one: Fleet, control: Peer, bulk: Peer, *, break_after: int = -1) -> bytes:
    """What an agent does with a fetch; the bulk connection may break once."""
    await control.until(lambda: any(isinstance(message, m.BlobFetch) for message in control.got))
    manifest: Manifest | None = None
    for message in control.got:
        if isinstance(message, m.BlobChunks):
            manifest = with_page(manifest, message)
    assert manifest is not None
    download, content = Download(manifest), bytearray(manifest.size)
    living = asyncio.create_task(control.closed())
    while not download.complete:
        for index in download.to_ask():
            bulk.send(m.ChunkGet(manifest.blob, index))
        chunk = await next_of(bulk)
        assert isinstance(chunk, m.Chunk)
        start = download.on_chunk(chunk.index, chunk.payload)
        content[start : start + len(chunk.payload)] = chunk.payload
        if download.have == break_after:
            break_after = -1
            bulk.drop()
            bulk = await bulk_of(one, control)
            download.restart()
    fetched = next(message for message in control.got if isinstance(message, m.BlobFetch))
    control.send(m.BlobHave(fetched.request, manifest.blob, ""))
    living.cancel()
    return bytes(content)


async def test_two_nodes_get_a_blob_each_though_one_loses_its_connection(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(os.urandom(5 * CHUNK_BYTES + 7))
    async with fleet() as one:
        dock = Dock(one)
        (first, first_bulk), (second, second_bulk) = await join(one, 0), await join(one, 1)
        await dock.shipping.ship("image", path, ("n0", "n1"))
        got = await asyncio.gather(
            fetch(one, first, first_bulk), fetch(one, second, second_bulk, break_after=2)
        )
        assert got == [path.read_bytes()] * 2
        await one.until(lambda: len(one.of(ev.BlobFetched)) == 2)
        assert {event.size for event in one.of(ev.BlobFetched)} == {path.stat().st_size}  # type: ignore[attr-defined]
        await asyncio.wait(dock.tasks)


async def test_a_file_that_cannot_be_read_is_said_for_every_node(tmp_path: Path) -> None:
    async with fleet() as one:
        dock = Dock(one)
        await dock.shipping.ship("workspace", tmp_path / "gone", ("n0", "n1"))
        assert [event.error.split(": ")[-1] for event in one.of(ev.BlobFetched)] == [  # type: ignore[attr-defined]
            "No such file or directory"
        ] * 2


async def test_a_chunk_that_is_not_held_is_refused_and_the_task_of_the_node_ends(tmp_path: Path) -> None:
    async with fleet() as one:
        dock = Dock(one)
        _, bulk = await join(one, 0)
        bulk.send(m.ChunkGet(bytes(32), 0))
        await bulk.until(lambda: bulk.got)
        assert bulk.got == [m.ChunkRefused(bytes(32), 0, "not held here")]
        await asyncio.wait(dock.tasks)


async def test_a_node_cannot_pile_up_requests() -> None:
    async with fleet() as one:
        dock = Dock(one)
        with pytest.raises(RemoteError):
            for index in range(MOST_ASKED + 2):
                dock.shipping.on_chunk_get("n0", m.ChunkGet(bytes(32), index), dock.spawn)
        await asyncio.wait(dock.tasks)


async def test_nodes_together_get_layers_at_the_rate_and_all_else_at_once(tmp_path: Path) -> None:
    async with fleet() as one:
        dock = Dock(one)
        chunks, step = 16, CHUNK_BYTES_MIN
        rate = 64 * step
        dock.shipping = Shipping(one.hub, one._record, lambda *told: None, rate)
        bulks = [(await join(one, rank))[1] for rank in (0, 1)]
        layer = held(dock, tmp_path / "layer", os.urandom(chunks * step))
        dock.shipping.hold(Held(layer, tmp_path / "layer", paced=True))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(answers(bulk, layer) for bulk in bulks))
        # All but the burst, and the last chunk of each, after which nobody waits.
        assert (2 * chunks - 2) * step / rate - BURST_S <= loop.time() - began
        workspace = held(dock, tmp_path / "workspace", os.urandom(step))
        (answer,) = await answers(bulks[0], workspace)
        assert dock.shipping._wait_after(answer) == 0.0
        await asyncio.wait(dock.tasks)


async def test_no_reader_waits_so_long_for_the_rate_that_it_takes_the_login_node_for_dead(
    tmp_path: Path,
) -> None:
    async with fleet() as one:
        dock = Dock(one)
        dock.shipping = Shipping(one.hub, one._record, lambda *told: None, 1000)
        path = tmp_path / "layer"
        layer = held(dock, path, os.urandom(CHUNK_BYTES_MIN))
        dock.shipping.hold(Held(layer, path, paced=True))
        answer = dock.shipping._answer(m.ChunkGet(layer.blob, 0), Packing())
        assert dock.shipping._wait_after(answer) == LONGEST_WAIT_S < Patience().controller_silent_s


async def test_a_chunk_whose_digest_is_still_being_made_is_not_given_out(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(os.urandom(2 * CHUNK_BYTES))
    whole = manifest_of(path)
    manifest = Manifest(whole.blob, whole.size, whole.digests[:1])
    async with fleet() as one:
        dock = Dock(one)
        _, bulk = await join(one, 0)
        dock.shipping.hold(Held(manifest, path))

        async def given(index: int) -> m.Message:
            bulk.send(m.ChunkGet(whole.blob, index))
            return await next_of(bulk)

        assert isinstance(await given(0), m.Chunk)
        assert await given(1) == m.ChunkRefused(whole.blob, 1, "not held here")
        manifest.add(m.BlobChunks(whole.blob, whole.size, 1, whole.digests[1:]))
        assert isinstance(await given(1), m.Chunk)
        await asyncio.wait(dock.tasks)


# --- over slow links


@pytest.fixture
def slow_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says that a byte took a microsecond on every link."""
    counted = itertools.count(1)

    def sent(session: Session) -> Sent:
        number = next(counted)
        return Sent(number * 1_000_000, number * 1.0, 0.0)

    monkeypatch.setattr(Session, "sent", sent)


def held(dock: Dock, path: Path, content: bytes) -> Manifest:
    """The controller holds this, in small chunks."""
    path.write_bytes(content)
    step = CHUNK_BYTES_MIN
    manifest = make_manifest((content[at : at + step] for at in range(0, len(content), step)), step)
    dock.shipping.hold(Held(manifest, path))
    return manifest


@asynccontextmanager
async def docked() -> AsyncIterator[tuple[Dock, Peer]]:
    """A controller that gives chunks, and the bulk connection of a node."""
    async with fleet() as one:
        dock = Dock(one)
        _, bulk = await join(one, 0)
        yield dock, bulk


async def answers(bulk: Peer, manifest: Manifest, *, unpacks: bool = True) -> list[m.Chunk]:
    """Every chunk of a blob, asked for at once."""
    for index in range(len(manifest.digests)):
        bulk.send(m.ChunkGet(manifest.blob, index, unpacks))
    got = [await next_of(bulk) for _ in manifest.digests]
    chunks = [message for message in got if isinstance(message, m.Chunk)]
    assert [chunk.index for chunk in chunks] == list(range(len(manifest.digests)))
    return chunks


TEXT = b"a line of a file that is in many layers\n" * 40_000


@pytest.mark.skipif(zstd.library() is None, reason="this machine has no libzstd")
async def test_over_a_slow_link_chunks_go_packed_in_the_order_in_which_they_were_asked_for(
    tmp_path: Path, slow_links: None
) -> None:
    async with docked() as (dock, bulk):
        manifest = held(dock, tmp_path / "layer", TEXT)
        chunks = await answers(bulk, manifest)
        assert [chunk.packed for chunk in chunks] == [False] + [True] * (len(chunks) - 1)
        library, into = zstd.library(), memoryview(bytearray(CHUNK_BYTES))
        assert library is not None
        content = chunks[0].payload
        for chunk in chunks[1:]:
            content += into[: library.decompress(chunk.payload, into)]
        assert content == TEXT
        assert dock.shipping.sent == sum(len(chunk.payload) for chunk in chunks) < len(TEXT) // 4
        await asyncio.wait(dock.tasks)


async def test_over_a_slow_link_noise_goes_as_it_is_and_so_does_all_for_who_cannot_unpack(
    tmp_path: Path, slow_links: None
) -> None:
    noise = os.urandom(20 * CHUNK_BYTES_MIN)
    async with docked() as (dock, bulk):
        manifest = held(dock, tmp_path / "noise", noise)
        chunks = await answers(bulk, manifest)
        assert b"".join(chunk.payload for chunk in chunks) == noise
        manifest = held(dock, tmp_path / "layer", TEXT)
        chunks = await answers(bulk, manifest, unpacks=False)
        assert b"".join(chunk.payload for chunk in chunks) == TEXT
        await asyncio.wait(dock.tasks)


async def test_a_node_that_leaves_while_its_next_chunk_is_packed_leaves_no_task(
    tmp_path: Path, slow_links: None
) -> None:
    async with docked() as (dock, bulk):
        manifest = held(dock, tmp_path / "layer", TEXT)
        for index in range(len(manifest.digests)):
            bulk.send(m.ChunkGet(manifest.blob, index, unpacks=True))
        await bulk.until(lambda: len(bulk.got) > 2)
        bulk.drop()
        await asyncio.wait(dock.tasks, timeout=5)
        assert all(task.done() and task.exception() is None for task in dock.tasks)


async def test_what_the_kernel_counts_of_a_bulk_connection_grows(tmp_path: Path) -> None:
    async with docked() as (dock, bulk):
        session = dock.shipping.hub.bulk_of("n0")
        assert session is not None
        before = session.sent()
        await answers(bulk, held(dock, tmp_path / "layer", TEXT))
        after = session.sent()
        assert before is not None
        assert after is not None
        assert after.acked - before.acked > len(TEXT) // 2
