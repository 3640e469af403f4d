"""The delivery's answers to what agents say on the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from phalanx.controller.fleet import instructions as ins
from phalanx.controller.fleet.hub import Hub
from phalanx.controller.fleet.pulling import Pulling
from phalanx.controller.fleet.shipping import Shipping
from phalanx.controller.images import delivery
from phalanx.controller.images.archive import Span
from phalanx.controller.images.delivery import Delivery
from phalanx.controller.images.relays import Relays
from phalanx.controller.images.sources import Found, Sources
from phalanx.protocol import blob
from phalanx.protocol import messages as m
from phalanx.protocol.blob import Manifest
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
    manifest = Manifest(BLOB, 1, (BLOB,), 1)
    one._found = Found(
        NAME, "n1", ImageContent(CONFIG, (m.Layer(BLOB, 1),)), manifests=(manifest,), node="n1"
    )
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


async def test_digests_are_told_in_the_order_of_layers_each_once_to_all_who_lack_one_of_its_places() -> None:
    heard = Heard()
    twice, once = bytes(32), bytes([1]) * 32
    layers = (m.Layer(twice, 1), m.Layer(once, 1), m.Layer(twice, 1))
    manifests = tuple(Manifest(layer.diff_id, 1, (BLOB,), 1) for layer in layers)
    found = Found(NAME, "x", ImageContent.__new__(ImageContent), manifests=manifests)
    object.__setattr__(found.content, "layers", layers)
    await delivering(heard, found, [])._tell_digests(found, {"n1": 0, "n2": 2})
    told = [(node, page.blob) for node, page in heard.told if isinstance(page, m.BlobChunks)]
    assert told == [("n1", twice), ("n2", twice), ("n1", once)]


async def test_a_damaged_layer_fails_the_image_and_no_node_can_have_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob, "PAGE_BYTES", 256 << 10)
    layer = os.urandom(1 << 20)
    damaged = layer[:-1] + bytes([layer[-1] ^ 4])
    path = tmp_path / "layer"
    path.write_bytes(damaged)
    described = m.Layer(hashlib.sha256(layer).digest(), len(layer))
    content = ImageContent.__new__(ImageContent)
    object.__setattr__(content, "layers", (described,))
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
