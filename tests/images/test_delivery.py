"""The delivery's answers to what agents say on the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from phalanx.controller.fleet import instructions as ins
from phalanx.controller.fleet.hub import Hub
from phalanx.controller.fleet.pulling import Pulling
from phalanx.controller.fleet.shipping import Shipping
from phalanx.controller.images import delivery
from phalanx.controller.images.delivery import Delivery
from phalanx.controller.images.relays import Relays
from phalanx.controller.images.sources import Found, Sources
from phalanx.protocol import messages as m
from phalanx.protocol.blob import Manifest
from phalanx.protocol.image import ImageContent

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


async def test_digests_are_told_in_the_order_of_the_layers_each_once_to_all_who_lack_one_of_its_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, made = Heard(), list[int]()
    twice, once = bytes(32), bytes([1]) * 32
    layers = (m.Layer(twice, 1), m.Layer(once, 1), m.Layer(twice, 1))

    async def manifest(self: Delivery, found: Found, index: int) -> Manifest:
        made.append(index)
        return Manifest(layers[index].diff_id, 1, (BLOB,), 1)

    monkeypatch.setattr(Delivery, "_manifest", manifest)
    one = Delivery(
        cast(Hub, heard), cast(Shipping, heard), cast(Sources, None), cast(Relays, None), [].append, print
    )
    found = Found(NAME, "x", ImageContent.__new__(ImageContent))
    object.__setattr__(found.content, "layers", layers)
    await one._tell_manifests(found, {"n1": 0, "n2": 2})
    told = [(node, page.blob) for node, page in heard.told if isinstance(page, m.BlobChunks)]
    assert told == [("n1", twice), ("n2", twice), ("n1", once)]
    assert sorted(made) == [1, 2]
