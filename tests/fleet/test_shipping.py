"""Blobs to nodes over a real hub: every chunk once, after a broken connection the rest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.shipping import MOST_ASKED, Held, Shipping, manifest_of
from phalanx.protocol import messages as m
from phalanx.protocol.blob import Download, Manifest, with_page
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.messages import CHUNK_BYTES, Channel

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
