"""Layers that this node seeds: others read them while it does, and another run of the user may use them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from phalanx.agent import seeding
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.spool import Spool, SpoolError
from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.layers import Span
from phalanx.agent.runtimes.seed import Seed
from phalanx.agent.seeding import Seeding
from phalanx.protocol import blob
from phalanx.protocol import messages as m
from phalanx.protocol.blob import LAYER_CHUNK_MIN, Manifest
from phalanx.protocol.image import ImageFormatError
from phalanx.protocol.messages import BlobChunks

from tests.images.layered import Made, image, tar
from tests.relay.nodes import fill


def noise(chunks: int) -> bytes:
    """A layer that takes so many chunks."""
    return tar({"noise": os.urandom(chunks * LAYER_CHUNK_MIN - 16384)})


MADE = image(noise(3), noise(2))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob, "PAGE_BYTES", LAYER_CHUNK_MIN)


def cache_in(folder: Path) -> BlobCache:
    return BlobCache(folder / "cache", 1 << 30, reserve_bytes=0)


def export(folder: Path, made: Made = MADE) -> Seed:
    """An image as an export that holds its layers one behind the other."""
    archive, spans, at = folder / "export.tar", [], 100
    archive.write_bytes(bytes(at) + b"".join(made.layers))
    for layer in made.layers:
        spans.append(Span(archive, at, len(layer)))
        at += len(layer)
    return Seed(made.content, tuple(spans), "sha256:ab")


def seeded(cache: BlobCache, found: Seed, first: int = 0) -> tuple[dict[int, Spool], list[BlobChunks]]:
    """What is taken in of an export, and what is told of it."""
    spools, told = seeding.open_all(cache, found, first), list[BlobChunks]()
    seeding.take_in(cache, found, spools, told.append)
    return spools, told


def put_together(pages: list[BlobChunks]) -> dict[bytes, Manifest]:
    made: dict[bytes, Manifest] = {}
    for page in pages:
        made[page.blob] = blob.with_page(made.get(page.blob), page)
    return made


def test_a_chunk_can_be_read_when_it_is_told_and_the_next_one_is_not_there_yet(tmp_path: Path) -> None:
    cache, found = cache_in(tmp_path), export(tmp_path)
    spools = seeding.open_all(cache, found, 0)
    seen: list[tuple[int, list[bool]]] = []

    def tell(page: BlobChunks) -> None:
        (place,) = (place for place, spool in spools.items() if spool.manifest.blob == page.blob)
        spool, data = spools[place], MADE.layers[place]
        chunk = page.chunk_bytes
        assert spool.read(page.first) == data[page.first * chunk : (page.first + 1) * chunk]
        seen.append((place, [spool.has(index) for index in range(spool.manifest.count)]))

    seeding.take_in(cache, found, spools, tell)
    assert seen[0] == (0, [True, False, False])
    assert [place for place, _ in seen] == [0, 0, 0, 1, 1]
    assert all(spool.whole for spool in spools.values())


def test_the_digests_are_those_of_the_layers(tmp_path: Path) -> None:
    _, told = seeded(cache_in(tmp_path), export(tmp_path))
    made = put_together(told)
    assert [made[layer.diff_id].size for layer in MADE.content.layers] == [len(data) for data in MADE.layers]
    for layer, data in zip(MADE.content.layers, MADE.layers, strict=True):
        manifest = made[layer.diff_id]
        assert manifest.whole
        for index in range(manifest.count):
            at = manifest.offset(index)
            manifest.verify(index, data[at : at + manifest.length(index)])


def test_layers_that_nobody_lacks_are_not_read(tmp_path: Path) -> None:
    found = export(tmp_path)
    (tmp_path / "export.tar").write_bytes(bytes(100 + len(MADE.layers[0])) + MADE.layers[1])
    spools, told = seeded(cache_in(tmp_path), found, 1)
    assert list(spools) == [1]
    assert {page.blob for page in told} == {MADE.content.layers[1].diff_id}


def test_a_layer_that_is_there_twice_is_told_once(tmp_path: Path) -> None:
    made = image(MADE.layers[1], tar({"a": b"a"}), MADE.layers[1])
    spools, told = seeded(cache_in(tmp_path), export(tmp_path, made))
    assert list(spools) == [0, 1]
    assert len(told) == len({(page.blob, page.first) for page in told}) == 3
    assert list(seeding.open_all(cache_in(tmp_path), export(tmp_path, made), 1)) == [1, 2]


def test_of_a_damaged_layer_the_last_page_is_not_told(tmp_path: Path) -> None:
    found, cache = export(tmp_path), cache_in(tmp_path)
    with (tmp_path / "export.tar").open("r+b") as file:
        file.seek(100 + len(MADE.layers[0]) - 1)
        file.write(b"x")
    spools, told = seeding.open_all(cache, found, 0), list[BlobChunks]()
    with pytest.raises(
        ImageFormatError, match=r"its layer .* is not what its digest says; the engine lists it"
    ):
        seeding.take_in(cache, found, spools, told.append)
    assert [page.first for page in told] == [0, 1]
    assert not spools[0].whole


def test_a_layer_that_an_earlier_run_has_left_whole_is_told_and_not_written_again(tmp_path: Path) -> None:
    seeding.settle(list(seeded(cache_in(tmp_path), export(tmp_path))[0].values()))
    before = {path: path.stat().st_ino for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    spools, told = seeded(cache_in(tmp_path), export(tmp_path))
    assert all(spool.whole and not spool.writing for spool in spools.values())
    assert len(told) == 5
    assert {path: path.stat().st_ino for path in before} == before


def test_a_layer_that_another_run_has_not_settled_is_waited_for_and_never_served_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "OTHERS_S", 0.3)
    found = export(tmp_path)
    _, told = seeded(BlobCache(tmp_path / "elsewhere", 1 << 30, reserve_bytes=0), found)
    manifest = put_together(told)[MADE.content.layers[0].diff_id]
    other = cache_in(tmp_path)
    theirs = other.open(manifest)
    assert other.claim(theirs)
    fill(theirs, MADE.layers[0], range(manifest.count))
    assert theirs.finish()  # it has its name, and is not on the disk for sure
    ours, pages = cache_in(tmp_path), list[BlobChunks]()
    spools = seeding.open_all(ours, found, 0)
    with pytest.raises(SpoolError, match="another run of yours"):
        seeding.fill(ours, spools[0], found, 0, pages.append)
    assert pages == []
    theirs.settle()
    seeding.fill(ours, spools[0], found, 0, pages.append)
    assert spools[0].whole
    assert len(pages) == 3


def test_what_is_taken_in_is_settled(tmp_path: Path) -> None:
    spools, _ = seeded(cache_in(tmp_path), export(tmp_path))
    seeding.settle(list(spools.values()))
    for spool in spools.values():
        assert not spool.bitmap.exists()
        assert cache_in(tmp_path).open(spool.manifest).adopt()


def test_called_off_it_leaves_what_it_has_to_whoever_goes_on(tmp_path: Path) -> None:
    cache, found, told = cache_in(tmp_path), export(tmp_path), list[BlobChunks]()
    spools = seeding.open_all(cache, found, 0)
    with pytest.raises(SpoolError, match="called off"):
        seeding.take_in(cache, found, spools, told.append, lambda: len(told) == 2)
    assert not spools[0].writing
    assert spools[0].part.stat().st_size == 2 * LAYER_CHUNK_MIN


class Agent:
    """The session of a seed: what it has told, and what it serves."""

    def __init__(self, folder: Path) -> None:
        self.told: list[m.Message] = []
        self.served: list[Spool] = []
        self.session = SimpleNamespace(base=folder, send=self.told.append)
        self.seeding = Seeding(cast(Any, self.session), asyncio.Lock(), self.served.append)
        self.cache = cache_in(folder)

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.seeding.seed(cast(Any, None), self.cache, m.ImageSeed(7, "a:1")))

    async def until(self, enough: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not enough():
                await asyncio.sleep(0.01)

    def call_off_after(self, pages: int) -> Callable[[m.Message], None]:
        """What hears of so many pages before nobody waits for it any more."""

        def tell(message: m.Message) -> None:
            self.told.append(message)
            if len(self.pages) == pages:
                self.seeding.stop(7)

        return tell

    @property
    def pages(self) -> list[BlobChunks]:
        return [message for message in self.told if isinstance(message, BlobChunks)]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    async def exported(engine: object, reference: str, archive: Path) -> Seed:
        await asyncio.to_thread(archive.touch)
        return await asyncio.to_thread(export, tmp_path)

    monkeypatch.setattr(seeding.exported, "seed", exported)
    return Agent(tmp_path)


def exports(folder: Path) -> list[Path]:
    return list(folder.glob("seed-*/*"))


async def test_it_says_what_the_image_is_and_reads_once_it_knows_what_others_lack(
    agent: Agent, tmp_path: Path
) -> None:
    going = agent.start()
    await agent.until(lambda: agent.told)
    content = MADE.content
    assert agent.told == [m.ImageSeeded(7, "a:1", content.config, content.layers, "", "sha256:ab")]
    agent.seeding.begin(m.SeedLayers(6, 0))  # of an image before it
    await asyncio.sleep(0.05)
    assert agent.pages == []
    assert len(exports(tmp_path)) == 1
    agent.seeding.begin(m.SeedLayers(7, 1))
    await asyncio.wait_for(going, 10)
    assert [spool.manifest.blob for spool in agent.served] == [content.layers[1].diff_id]
    await agent.until(lambda: len(agent.pages) == 2)
    assert exports(tmp_path) == []
    assert agent.served[0].whole
    await agent.seeding.end()
    assert not agent.served[0].whole  # it may be evicted now


@pytest.mark.parametrize("how", ["stop", "end"])
async def test_when_nobody_lacks_anything_the_export_goes(agent: Agent, tmp_path: Path, how: str) -> None:
    going = agent.start()
    await agent.until(lambda: agent.told)
    if how == "stop":
        agent.seeding.stop(6)
        assert not going.cancelling()
        agent.seeding.stop(7)
    else:
        await agent.seeding.end()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert exports(tmp_path) == []
    assert agent.served == []


async def test_a_layer_that_is_damaged_ends_it_with_words(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = agent.start()
    await agent.until(lambda: agent.told)
    (tmp_path / "export.tar").write_bytes(bytes(100 + sum(map(len, MADE.layers))))
    agent.seeding.begin(m.SeedLayers(7, 0))
    with pytest.raises(ImageError, match=r"^cannot export image a:1: its layer .* pull or build it again"):
        await going
    assert exports(tmp_path) == []
    assert not any(spool.whole for spool in agent.served)


@pytest.mark.parametrize("how", ["damaged", "called off"])
async def test_what_fails_leaves_its_layers_to_other_processes(
    agent: Agent, tmp_path: Path, how: str
) -> None:
    going = agent.start()
    await agent.until(lambda: agent.told)
    with (tmp_path / "export.tar").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    if how == "called off":
        agent.session.send = agent.call_off_after(4)
    agent.seeding.begin(m.SeedLayers(7, 0))
    with pytest.raises((ImageError, asyncio.CancelledError)):
        await going
    assert len(agent.served) == 2
    other = cache_in(tmp_path)
    for spool in agent.served:
        theirs = other.open(spool.manifest)
        assert other.claim(theirs) or theirs.whole
        assert theirs.verified > 0


def test_a_layer_that_another_run_has_replaced_and_that_cannot_be_had_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, found = cache_in(tmp_path), export(tmp_path)
    monkeypatch.setattr(Spool, "finish", lambda spool, stopped, trusted: False)
    with pytest.raises(SpoolError, match="another run of yours has replaced"):
        seeded(cache, found)
