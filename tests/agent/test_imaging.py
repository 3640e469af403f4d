"""One image after another in one agent: what is called off ends, and never holds up what comes after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from phalanx.agent import imaging
from phalanx.agent.blobs import BlobError
from phalanx.agent.imaging import Imaging
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.spool import Spool
from phalanx.agent.runtimes import parts, store
from phalanx.protocol import messages as m
from phalanx.protocol.blob import make_manifest

from tests.images.layered import of
from tests.relay.nodes import fill

MADE = of("agent", 1000)
REFERENCE = "a:1"


class HangingSync:
    """Stands for a sync whose layers never come; ``begun``: the requests of all that were begun."""

    begun: list[int]

    def __init__(self, session: Any, cache: Any, message: m.ImageSync, content: Any, serve: Any) -> None:
        self.message = message

    async def run(self, engine: Any, busy: asyncio.Lock) -> str:
        self.begun.append(self.message.request)
        await asyncio.Event().wait()
        return ""

    def change_parents(self, stripes: Any) -> None:
        pass

    def close(self) -> None:
        pass

    cancel = close


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Imaging:
    """The images of an agent without links and engine."""
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(HangingSync, "begun", [], raising=False)
    monkeypatch.setattr(imaging, "Syncing", HangingSync)
    monkeypatch.setattr(imaging, "CLEAN_AGAIN_S", 0.05)
    told: list[m.Message] = []
    session = SimpleNamespace(
        blobs=SimpleNamespace(expect_anew=lambda blobs: None), send=told.append, told=told, base=tmp_path
    )
    runtime = SimpleNamespace(client=None)
    return Imaging(cast(Any, session), lambda: cast(Any, runtime), asyncio.Lock())


@pytest.fixture
def cleaned(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The digests of images whose parts were removed."""
    digests: list[bytes] = []

    async def clean(engine: Any, content: Any) -> None:
        digests.append(content.digest)

    monkeypatch.setattr(parts.verify, "clean", clean)
    return digests


def sync(request: int) -> m.ImageSync:
    return m.ImageSync(request, REFERENCE, MADE.content.config, MADE.content.layers, 0, ())


def start(one: Imaging, request: int) -> asyncio.Task[None]:
    return asyncio.create_task(one.sync(sync(request)))


def stop(one: Imaging, request: int) -> asyncio.Task[None]:
    return asyncio.create_task(one.stop(m.SyncStop(request)))


async def begun(request: int) -> None:
    async with asyncio.timeout(5):
        while request not in HangingSync.begun:
            await asyncio.sleep(0.01)


async def over(*tasks: asyncio.Task[None]) -> None:
    async with asyncio.timeout(5):
        await asyncio.wait(tasks)


async def test_what_is_called_off_ends_is_cleaned_up_and_makes_way(
    one: Imaging, cleaned: list[bytes]
) -> None:
    first = start(one, 2)
    await begun(2)
    calling_off = stop(one, 2)
    second = start(one, 3)
    await over(first, calling_off)
    assert cleaned
    assert set(cleaned) == {MADE.content.digest}
    await begun(3)
    await over(second, stop(one, 3))
    assert HangingSync.begun == [2, 3]


async def test_a_sync_and_its_end_that_come_at_once_leave_nothing_behind(
    one: Imaging, cleaned: list[bytes]
) -> None:
    both = start(one, 2), stop(one, 2)
    third = start(one, 3)
    await over(*both)
    await begun(3)
    await over(third, stop(one, 3))
    assert 2 not in HangingSync.begun[1:]


async def test_a_sync_that_comes_after_its_end_is_not_begun(one: Imaging, cleaned: list[bytes]) -> None:
    await over(stop(one, 2))
    await over(start(one, 2))
    assert HangingSync.begun == []
    assert cleaned == []
    last = start(one, 3)
    await begun(3)
    await over(last, stop(one, 3))


@pytest.mark.parametrize("first", [0, 1])
async def test_room_is_told_without_what_is_to_be_loaded_and_with_the_disk_that_both_share(
    one: Imaging, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: int
) -> None:
    stay: list[bytes] = []

    async def held(*given: Any) -> store.Held:
        return store.Held(False, first, True, 1 << 40, str(tmp_path))

    def free_bytes(self: BlobCache, but: Iterable[bytes] = ()) -> int:
        stay.extend(but)
        return 4711

    monkeypatch.setattr(imaging.store, "held", held)
    monkeypatch.setattr(BlobCache, "free_bytes", free_bytes)
    cache = await one._open_cache()
    layer = MADE.content.layers[0]
    (cache.folder / layer.diff_id.hex()).write_bytes(bytes(layer.size))
    await one.query(m.LayersQuery(1, REFERENCE, MADE.content.digest, MADE.content.layers))
    (answer,) = cast(Any, one.session).told
    assert (answer.in_cache, answer.free_bytes, answer.one_disk) == ((0,), 4711, True)
    assert stay == ([] if first else [layer.diff_id]), "what the engine has may go"
    await one.close()


async def test_what_is_here_is_told_once_what_an_earlier_one_left_is_removed(
    one: Imaging, cleaned: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held(*given: Any) -> store.Held:
        return store.Held(False, 0, True, 1 << 40)

    monkeypatch.setattr(imaging.store, "held", held)
    going = start(one, 2)
    await begun(2)
    calling_off = stop(one, 2)
    await asyncio.sleep(0)
    query = m.LayersQuery(3, REFERENCE, MADE.content.digest, MADE.content.layers)
    async with asyncio.timeout(5):
        await one.query(query)
    assert len(cleaned) == imaging.CLEAN_TIMES
    await over(going, calling_off)
    (answer,) = cast(Any, one.session).told
    assert isinstance(answer, m.LayersStatus)
    await one.close()


def cached(tmp_path: Path) -> BlobCache:
    """The node's cache as another agent has it, with the first layer of the image in it."""
    cache = BlobCache(tmp_path / "cache", 1 << 40, reserve_bytes=0)
    data = MADE.layers[0]
    spool = cache.open(make_manifest([data], max(len(data), 1)))
    assert cache.claim(spool)
    fill(spool, data)
    cache.close(spool)
    return cache


async def query(
    one: Imaging, request: int, monkeypatch: pytest.MonkeyPatch, *, present: bool = False
) -> None:
    async def held(*given: Any) -> store.Held:
        return store.Held(present, 0, True, 1 << 40)

    monkeypatch.setattr(imaging.store, "held", held)
    await one.query(m.LayersQuery(request, REFERENCE, MADE.content.digest, MADE.content.layers))


@pytest.mark.parametrize("end", ["sync", "stop", "query", "close"])
async def test_a_layer_that_was_told_of_stays_until_it_is_used_or_nobody_wants_it(
    one: Imaging, cleaned: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    cache = cached(tmp_path)
    await query(one, 3, monkeypatch)
    (answer,) = cast(Any, one.session).told
    assert answer.in_cache == (0,)
    await over(stop(one, 2))  # an image before it
    assert cache.prune() == 0
    if end == "sync":
        going = start(one, 3)
        await begun(3)
        assert cache.prune() == 0  # it may not be open yet
        await over(stop(one, 3), going)
    elif end == "query":
        await query(one, 4, monkeypatch, present=True)
    else:
        await (one.close() if end == "close" else one.stop(m.SyncStop(3)))
    assert cache.prune() > 0
    await one.close()


async def test_a_seed_that_fails_is_given_to_nobody_any_more(
    one: Imaging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "blob", make_manifest([b"layer"]))

    async def seed(*given: Any) -> None:
        one.serve(spool)
        raise BlobError("the disk is full")

    withdrawn: list[bytes] = []
    relay = SimpleNamespace(serve=lambda spool: None, withdraw=withdrawn.append, stop=lambda: None)
    one._relay = cast(Any, relay)
    one._seeding = cast(Any, SimpleNamespace(seed=seed, end=one._seeding.end))
    with pytest.raises(BlobError):
        await one.seed(m.ImageSeed(3, REFERENCE))
    assert withdrawn == [spool.manifest.blob]
    await one.close()


async def test_a_prune_takes_away_parts_of_images_that_killed_agents_have_left(
    one: Imaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    async def remove_leftovers(engine: Any, folder: Path, *, at_once: bool) -> list[str]:
        asked.append((folder.name, at_once))
        return []

    async def images_of(engine: Any, reference: str) -> list[m.EngineImage]:
        return []

    monkeypatch.setattr(imaging.leftovers, "remove_leftovers", remove_leftovers)
    monkeypatch.setattr(imaging.inventory, "images_of", images_of)
    await one.inventory(m.ImagesQuery(1))
    assert asked == []
    await one.inventory(m.ImagesQuery(2, prune=True))
    assert asked == [("blobs", True)]
