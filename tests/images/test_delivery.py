"""The delivery's answers to what agents say on the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet import instructions as ins
from phalanx.controller.fleet.hub import Hub
from phalanx.controller.fleet.pulling import Pulling
from phalanx.controller.fleet.shipping import Shipping
from phalanx.controller.images import delivery
from phalanx.controller.images.archive import Span
from phalanx.controller.images.delivery import Delivery
from phalanx.controller.images.login import ImageSourceError
from phalanx.controller.images.relays import Relays
from phalanx.controller.images.seeded import SeededLayers
from phalanx.controller.images.sources import Found, Sources
from phalanx.protocol import blob
from phalanx.protocol import messages as m
from phalanx.protocol.blob import layer_chunk_bytes
from phalanx.protocol.image import ImageContent
from phalanx.protocol.packing import Packing

NAME = "a:1"
BLOB = hashlib.sha256(b"x").digest()
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{BLOB.hex()}"]}}).encode()


class Heard:
    """What nodes were told."""

    sent = 0

    def __init__(self) -> None:
        self.told: list[tuple[str, m.Message]] = []

    def tell(self, nodes: Iterable[str], message: m.Message) -> None:
        self.told += [(node, message) for node in nodes]


def seeded_by_n1() -> Found:
    """An image of one small layer that is whole by now."""
    content = ImageContent(CONFIG, (m.Layer(BLOB, 1),))
    layers = SeededLayers("n1", content)
    assert layers.takes("n1", m.BlobChunks(BLOB, 1, 0, (BLOB,), layer_chunk_bytes(1)))
    return Found(NAME, "engine of node n1", content, seeded=layers)


def serials(message: m.Message) -> set[int]:
    stripes = cast(Any, message).stripes
    return {ticket.serial for stripe in stripes for parent in stripe.parents for ticket in parent.tickets}


async def test_a_node_to_which_nobody_gives_anything_gets_new_tickets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FRESH_S", 0.0)
    heard, events = Heard(), []
    hub = cast(Hub, heard)
    relays = Relays("r", m.BulkSecurity.INTEGRITY, 0, lambda node: "127.0.0.1")
    relays.open("n1")
    relays.opened("n1", 4711)
    sources = Sources(hub, cast(Pulling, None), tmp_path, {})
    one = Delivery(hub, cast(Shipping, heard), sources, relays, events.append, lambda *given: None)
    one._found = seeded_by_n1()
    await one.sync(ins.SyncImage({"n2": 0}, {"n2": (("n1",),)}, 1))
    one.takers()[m.ParentFailed]("n2", m.ParentFailed(1, "", False, "nobody gives anything"))
    await asyncio.sleep(0.01)
    (first,) = (message for node, message in heard.told if isinstance(message, m.ImageSync) and node == "n2")
    (second,) = (
        message for node, message in heard.told if isinstance(message, m.SyncParents) and node == "n2"
    )
    assert serials(second)
    assert not serials(first) & serials(second)


def delivering(heard: Heard, found: Found, events: list[Any]) -> Delivery:
    hub, shipping = cast(Hub, heard), cast(Shipping, heard)
    one = Delivery(hub, shipping, cast(Sources, None), cast(Relays, None), events.append, lambda *given: None)
    one._found = found
    return one


def pages_of(heard: Heard, node: str) -> list[m.BlobChunks]:
    return [page for name, page in heard.told if isinstance(page, m.BlobChunks) and name == node]


def with_layers(*layers: m.Layer) -> ImageContent:
    """An image of these layers, whatever its configuration."""
    content = ImageContent.__new__(ImageContent)
    object.__setattr__(content, "layers", layers)
    return content


async def test_digests_are_told_in_the_order_of_layers_each_once_to_all_who_lack_one_of_its_places() -> None:
    heard = Heard()
    twice, once = bytes(32), bytes([1]) * 32
    content = with_layers(m.Layer(twice, 1), m.Layer(once, 1), m.Layer(twice, 1))
    seeded = SeededLayers("n3", content)
    for layer in (twice, once):
        assert seeded.takes("n3", m.BlobChunks(layer, 1, 0, (BLOB,), layer_chunk_bytes(3)))
    found = Found(NAME, "x", content, seeded=seeded)
    await delivering(heard, found, [])._tell_digests(found, {"n1": 0, "n2": 2})
    told = [(node, page.blob) for node, page in heard.told if isinstance(page, m.BlobChunks)]
    assert told == [("n1", twice), ("n2", twice), ("n1", once)]


@pytest.mark.parametrize("places", [(0, 1), (0, 1, 0)], ids=["once", "twice"])
async def test_a_node_is_through_when_it_has_each_layer_once_though_one_comes_again(
    monkeypatch: pytest.MonkeyPatch, places: tuple[int, ...]
) -> None:
    heard, shown = Heard(), list[Any]()
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(delivery, "time", clock)
    kinds = (m.Layer(bytes([1]) * 32, 1024), m.Layer(bytes([2]) * 32, 8 << 20))
    content = with_layers(*(kinds[place] for place in places))
    object.__setattr__(content, "config", CONFIG)
    one = delivering(heard, Found(NAME, "x", content, spans=()), [])
    one.sources = cast(Any, SimpleNamespace(on_seeded=None, on_chunks=None))
    one.relays = cast(Any, SimpleNamespace(stripes=lambda node, lists: (), rate_bytes_s=0))
    one.progress = lambda *given: shown.append(given)
    monkeypatch.setattr(Delivery, "_tell_digests", lambda *given: asyncio.sleep(0))
    await one.sync(ins.SyncImage(dict.fromkeys(("n1", "n2"), 0), {}, 1))
    each_once = sum(layer.size for layer in kinds)
    for node, seconds in (("n2", 2.0), ("n1", 5.0)):
        clock.now += seconds
        one.takers()[m.SyncProgress](node, m.SyncProgress(1, each_once, each_once, 0))
    assert shown[-1] == ("image", "n1", each_once, each_once)
    figures = one.summed_up(ev.ImageReady(NAME, "sha256:x", 2, 0.0))
    assert (figures.slowest, figures.transfer_s) == ("n1", 7.0)


@pytest.mark.parametrize("rate", [0, 2_000_000])
async def test_one_rate_holds_for_relays_for_readers_and_for_the_login_node(
    tmp_path: Path, rate: int
) -> None:
    heard, events = Heard(), list[Any]()
    layer = os.urandom(1000)
    path = tmp_path / "layer"
    path.write_bytes(layer)
    described = m.Layer(hashlib.sha256(layer).digest(), len(layer))
    content = with_layers(described)
    object.__setattr__(content, "config", CONFIG)
    found = Found(NAME, "the archive x.tar", content, spans=(Span(path, 0, len(layer)),))
    one = delivering(heard, found, events)
    one.relays = Relays("r", m.BulkSecurity.INTEGRITY, rate, lambda node: "127.0.0.1")
    shipping = one.shipping = Shipping(cast(Hub, heard), events.append, print, rate)
    await one.open_relays(ins.OpenRelays(("n1",)))
    await one.sync(ins.SyncImage({"n1": 0, "n2": 0}, {"n1": (("",),), "n2": (("n1", ""),)}, 1))
    told = [message for _, message in heard.told if isinstance(message, m.RelayOpen | m.ImageSync)]
    assert [message.rate_bytes_s for message in told] == [rate] * 3
    answer = shipping._answer(m.ChunkGet(described.diff_id, 0), Packing())
    waits = [shipping._wait_after(answer) for _ in range(1000)]
    assert waits[-1] == pytest.approx(1000 * len(layer) / rate if rate else 0.0, rel=0.1)


async def test_who_seeds_on_is_the_source_from_then_on_and_each_node_that_has_all_is_told_of() -> None:
    heard, events = Heard(), list[Any]()
    found = seeded_by_n1()
    one = delivering(heard, found, events)
    answers = iter([replace(found, where="engine of node n2"), ImageSourceError("n3: no room")])

    async def seed_on(found: Found, node: str) -> Found:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        assert answer.seeded is not None
        answer.seeded.go_on(node)
        return answer

    one.sources = cast(Any, SimpleNamespace(seed_on=seed_on, on_seeded=None, on_chunks=None))
    one._readers["n3"] = delivery._Reader(1, 0.0)
    one.takers()[m.SyncProgress]("n3", m.SyncProgress(1, 0, 0, 0))
    assert events == []
    for _ in range(2):
        one.takers()[m.SyncProgress]("n3", m.SyncProgress(1, 1, 1, 0))
    assert events == [ev.ImageArrived("n3")]
    await one.seed_on(ins.SeedOn("n2"))
    source = events[-1]
    assert (source.where, source.node, source.layers) == ("engine of node n2", "n2", (1,))
    await one.seed_on(ins.SeedOn("n3"))
    assert events[-1].error == "n3: no room"


async def test_a_damaged_layer_fails_the_image_and_no_node_can_have_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob, "PAGE_BYTES", 256 << 10)
    layer = os.urandom(1 << 20)
    damaged = layer[:-1] + bytes([layer[-1] ^ 4])
    path = tmp_path / "layer"
    path.write_bytes(damaged)
    described = m.Layer(hashlib.sha256(layer).digest(), len(layer))
    content = with_layers(described)
    heard, events = Heard(), list[Any]()
    found = Found(NAME, "the archive x.tar", content, spans=(Span(path, 0, len(layer)),))
    one = delivering(heard, found, events)
    shipping = one.shipping = Shipping(cast(Hub, heard), events.append, print)
    await one._tell_digests(found, {"n1": 0})
    (failed,) = events
    assert failed.error.startswith("cannot read a layer of the archive x.tar: its layer")
    assert failed.error.endswith("is damaged: it does not match its digest")
    told = sum(len(page.digests) for page in pages_of(heard, "n1"))
    assert 0 < told < 4
    asked = [m.ChunkGet(described.diff_id, index) for index in range(4)]
    gives = [isinstance(shipping._answer(get, Packing()), m.Chunk) for get in asked]
    assert gives[3] is False
    assert gives[:told] == [True] * told


async def test_a_seed_is_told_what_the_others_lack_and_its_digests_are_passed_on_as_they_come() -> None:
    heard, events = Heard(), list[Any]()
    one_mib, digest = 1 << 20, bytes(32)
    content = with_layers(m.Layer(bytes([1]) * 32, one_mib), m.Layer(bytes([2]) * 32, one_mib))
    object.__setattr__(content, "config", CONFIG)
    chunk = layer_chunk_bytes(content.size)
    seeded = SeededLayers("n1", content)
    one = delivering(heard, Found(NAME, "engine of node n1", content, seeded=seeded), events)
    one.relays = cast(Any, SimpleNamespace(stripes=lambda node, lists: (), rate_bytes_s=0))
    going = asyncio.create_task(one.sync(ins.SyncImage({"n2": 1, "n3": 1}, {}, 1)))
    await asyncio.sleep(0)
    assert ("n1", m.SeedLayers(1, 1)) in heard.told
    first = m.BlobChunks(bytes([2]) * 32, one_mib, 0, (digest,), chunk)
    assert seeded.takes("n1", first)
    async with asyncio.timeout(5):
        while not pages_of(heard, "n3"):
            await asyncio.sleep(0)
    assert pages_of(heard, "n2") == pages_of(heard, "n3") == [first]
    seeded.fail("its layer 0202 is not what its digest says")
    async with asyncio.timeout(5):
        await going
    (failed,) = events
    assert failed.error == (
        "cannot read a layer of engine of node n1: its layer 0202 is not what its digest says"
    )
    assert len(pages_of(heard, "n2")) == 1


async def test_a_node_that_lacks_what_its_cache_had_is_given_the_source_and_a_slow_one_waits_on() -> None:
    heard, events = Heard(), list[Any]()
    one = delivering(heard, seeded_by_n1(), events)
    one.relays = cast(Any, SimpleNamespace(stripes=lambda node, lists: lists, rate_bytes_s=0))
    await one.sync(ins.SyncImage({"n2": 0, "n3": 0}, {"n2": (), "n3": ()}, 1))
    one._slow = frozenset({"n3"})
    for node in ("n2", "n3"):
        one._on_parent_failed(node, m.ParentFailed(1, "", False, "nobody gives anything"))
    told = [(node, message) for node, message in heard.told if isinstance(message, m.SyncParents)]
    assert told == [("n2", m.SyncParents(1, cast(Any, (("n1",),))))]
    assert events == []
