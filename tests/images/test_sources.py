"""Where an image may come from: engines that are none, and images that hold the same layer twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from phalanx.controller.fleet.hub import Hub
from phalanx.controller.fleet.instructions import FindImage
from phalanx.controller.fleet.pulling import Pulling
from phalanx.controller.images import sources
from phalanx.controller.images.login import login_engine
from phalanx.controller.images.sources import Sources
from phalanx.controller.images.staging import Stage
from phalanx.protocol.blob import Manifest
from phalanx.protocol.messages import ImageSeeded, Layer

BLOB = hashlib.sha256(b"x").digest()
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{BLOB.hex()}"] * 2}}).encode()


@pytest.mark.parametrize(
    "url", ["ssh://user@host", "nonsense", "unix:///nowhere/docker.sock", "tcp://127.0.0.1:1", "http://["]
)
async def test_an_engine_that_cannot_be_used_counts_as_none(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", url)
    async with login_engine() as engine:
        assert engine is None


async def test_a_search_that_is_called_off_waits_for_the_end_of_its_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = threading.Event(), threading.Event()

    def unpack(path: Path, reference: str, stage: Stage) -> None:
        began.set()
        if stage.called_off.wait(10):
            ended.set()
        raise OSError("called off")

    monkeypatch.setattr(sources, "open_content", unpack)
    nobody = cast(Any, None)
    finding = asyncio.create_task(
        Sources(nobody, nobody, tmp_path, {}).find(FindImage("a:1", "a.tar", "", ("n1",)))
    )
    await asyncio.to_thread(began.wait, 10)
    finding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finding
    assert ended.is_set()


class Told:
    """A node that told a manifest once; it is given out once."""

    def __init__(self) -> None:
        self.manifests: dict[bytes, Any] = {BLOB: Manifest(BLOB, 1, (BLOB,), 1)}

    def manifest(self, node: str, blob: bytes) -> Any:
        return self.manifests.pop(blob, None)

    def tell(self, nodes: list[str], message: object) -> None:
        pass


async def test_an_image_with_the_same_layer_twice_can_be_seeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    told = Told()
    found_by = Sources(cast(Hub, told), cast(Pulling, told), tmp_path / "images", {})
    finding = asyncio.create_task(found_by.find(FindImage("a:1", "", "n1", ("n1", "n2"))))
    seeded = ImageSeeded(1, "a:1", CONFIG, (Layer(BLOB, 1), Layer(BLOB, 1)), "")
    async with asyncio.timeout(5):
        while not finding.done():
            found_by.on_seeded("n1", seeded)
            await asyncio.sleep(0)
    found = finding.result()
    assert found.node == "n1"
    assert [manifest.blob for manifest in found.manifests] == [BLOB, BLOB]
