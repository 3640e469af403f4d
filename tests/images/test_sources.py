"""Where an image may come from: engines that are none, and images that hold the same layer twice."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from phalanx.controller.fleet.hub import Hub
from phalanx.controller.fleet.instructions import FindImage
from phalanx.controller.fleet.pulling import Pulling
from phalanx.controller.images import sources
from phalanx.controller.images.login import ImageSourceError, LoginImage, login_engine
from phalanx.controller.images.seeded import SeededLayers, SeedError
from phalanx.controller.images.sources import Found, Sources
from phalanx.controller.images.staging import Stage
from phalanx.protocol.blob import layer_chunk_bytes
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.image import digest_text
from phalanx.protocol.messages import CHUNK_BYTES, BlobChunks, ImageSeed, ImageSeeded, Layer, Message

from tests.images.layered import hybrid, image, of

NAME = "phx/made:1"
MADE = of("shared", 1000, 2000)
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


@pytest.fixture
def on_login(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """A login node whose engine has an image; the archives that it saved."""
    saves: list[Path] = []

    async def known(reference: str) -> LoginImage:
        return LoginImage(digest_text(MADE.content.digest), MADE.content.likeness, False)

    async def save(reference: str, archive: Path) -> None:
        saves.append(hybrid(archive, MADE, NAME))

    monkeypatch.setattr(sources, "on_login", known)
    monkeypatch.setattr(sources, "save_from_login", save)
    yield saves


async def found_in(tmp_path: Path, builds: Path | None, image_id: str = "") -> Found:
    environ = {} if builds is None else {sources.BUILDS: str(builds)}
    nobody = cast(Any, None)
    wanted = FindImage(NAME, "", "", ("n1",), image_id=image_id)
    return await Sources(nobody, nobody, tmp_path / "stage", environ).find(wanted)


async def test_an_engine_and_an_archive_with_another_image_under_the_name_are_passed_over(
    on_login: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = digest_text(MADE.content.digest)
    assert (await found_in(tmp_path, None, made)).where == "engine of the login node"

    async def pulled(self: Sources, wanted: FindImage, passed_over: str = "") -> str:
        return "pulled"

    monkeypatch.setattr(Sources, "_pull", pulled)
    builds = tmp_path / "builds"
    builds.mkdir()
    other = "sha256:" + "b" * 64
    assert await found_in(tmp_path, builds, other) == "pulled"
    await found_in(tmp_path, builds)  # leaves the archive in the shared folder
    assert await found_in(tmp_path, builds, other) == "pulled"


async def test_what_the_login_nodes_engine_gives_is_left_in_the_shared_folder(
    on_login: list[Path], tmp_path: Path
) -> None:
    builds = tmp_path / "builds"
    builds.mkdir()
    shared = builds / "phx_made_1.tar"
    first = await found_in(tmp_path, builds)
    assert first.where == f"engine of the login node, kept as {shared}"
    assert {span.path for span in first.spans} == {shared}
    assert [path.name for path in builds.iterdir()] == ["phx_made_1.tar"]
    assert shared.stat().st_mode & 0o777 == 0o644
    second = await found_in(tmp_path, builds)
    assert second.where == f"archive {shared}, the image of the login node's engine"
    assert len(on_login) == 1


async def test_a_name_that_comes_to_mean_another_image_while_it_is_saved_is_no_source(
    on_login: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def save(reference: str, archive: Path) -> None:
        hybrid(archive, of("another", 1000), NAME)

    monkeypatch.setattr(sources, "save_from_login", save)
    with pytest.raises(ImageSourceError, match="come to mean another image meanwhile"):
        await found_in(tmp_path, None)


async def test_an_older_image_in_the_shared_folder_is_replaced(on_login: list[Path], tmp_path: Path) -> None:
    older = of("older", 1000)
    shared = hybrid(tmp_path / "phx_made_1.tar", older, NAME)
    found = await found_in(tmp_path, tmp_path)
    assert found.content.digest == MADE.content.digest
    assert (await found_in(tmp_path, tmp_path)).where.startswith(f"archive {shared}")
    assert len(on_login) == 1


@pytest.mark.parametrize("builds", [None, "nowhere"])
async def test_without_a_shared_folder_it_is_kept_for_the_run_only(
    on_login: list[Path], tmp_path: Path, builds: str | None
) -> None:
    found = await found_in(tmp_path, tmp_path / builds if builds else None)
    assert {span.path for span in found.spans} == {tmp_path / "stage" / "saved.tar"}
    assert (": No such file" in found.where) == (builds is not None)


async def test_a_shared_folder_on_another_disk_gets_a_copy(
    on_login: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hardlink_to(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", hardlink_to)
    found = await found_in(tmp_path, tmp_path)
    assert {span.path for span in found.spans} == {tmp_path / "phx_made_1.tar"}


async def test_what_cannot_take_its_place_in_the_shared_folder_is_not_lost(
    on_login: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "phx_made_1.tar" / "in-the-way").mkdir(parents=True)
    found = await found_in(tmp_path, tmp_path)
    assert "it cannot be kept as" in found.where
    (archive,) = {span.path for span in found.spans}
    assert archive == tmp_path / "stage" / "saved.tar"
    assert archive.is_file()


def shared_builds(tmp_path: Path, cut: int = 0) -> Path:
    """A shared folder with ``rocm/vllm:6.2``, whose file is that of ``rocm_vllm:6.2``; its end is cut off."""
    builds = tmp_path / "builds"
    builds.mkdir()
    shared = hybrid(builds / "rocm_vllm_6.2.tar", MADE, "rocm/vllm:6.2")
    os.truncate(shared, shared.stat().st_size - cut)
    return builds


async def looked_for(tmp_path: Path, builds: Path, reference: str, answer: ImageSeeded) -> Found:
    """The search for an image that only the shared folder has; ``answer``: of the node that is to pull it."""
    told = Told()
    environ = {sources.BUILDS: str(builds), "HOME": str(tmp_path)}
    found_by = Sources(cast(Hub, told), cast(Pulling, told), tmp_path / "stage", environ)
    finding = asyncio.create_task(found_by.find(FindImage(reference, "", "", ("n1",))))
    async with asyncio.timeout(5):
        while not told.told and not finding.done():
            await asyncio.sleep(0.01)
    found_by.on_seeded("n1", answer)
    return await finding


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize(
    ("reference", "cut", "words"),
    [
        ("rocm_vllm:6.2", 0, "{shared} holds docker.io/rocm/vllm:6.2, not rocm_vllm:6.2"),
        ("rocm/vllm:6.2", 4000, "cannot read the image archive {shared}: "),
    ],
)
async def test_a_shared_archive_of_another_name_or_half_written_is_passed_over_for_a_pull(
    tmp_path: Path, reference: str, cut: int, words: str
) -> None:
    builds = shared_builds(tmp_path, cut)
    words = words.format(shared=builds / "rocm_vllm_6.2.tar")
    found = await looked_for(tmp_path, builds, reference, TWICE)
    assert found.where.startswith(f"a registry, pulled by node n1 ({words}")
    with pytest.raises(ImageSourceError, match=r"pulling it failed \(n1: no such") as caught:
        await looked_for(tmp_path, builds, reference, replace(TWICE, error="no such image"))
    assert f"no archive was named, {words}" in str(caught.value)


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("named", [True, False])
async def test_a_shared_archive_counts_by_the_name_in_it_or_by_its_own_when_it_has_none(
    tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = shared_builds(tmp_path)
    reference = "rocm/vllm:6.2" if named else "rocm_vllm:6.2"
    if not named:
        real = sources.open_content

        def nameless(*given: Any) -> Any:
            return replace(real(*given), tags=())

        monkeypatch.setattr(sources, "open_content", nameless)
    found = await looked_for(tmp_path, builds, reference, TWICE)
    assert found.where == f"archive {builds / 'rocm_vllm_6.2.tar'}"
    assert found.content.digest == MADE.content.digest


class Told:
    """What nodes were told, and the digests that are of no image."""

    def __init__(self) -> None:
        self.told: list[tuple[list[str], object]] = []
        self.others: list[object] = []

    def tell(self, nodes: list[str], message: object) -> None:
        self.told.append((nodes, message))

    def on_chunks(self, node: str, message: object) -> None:
        self.others.append(message)


async def seeding(told: Told, folder: Path, *answers: Message) -> tuple[Sources, asyncio.Task[Found]]:
    """The search for an image that n1 has, after n1 has answered."""
    found_by = Sources(cast(Hub, told), cast(Pulling, told), folder / "images", {})
    finding = asyncio.create_task(found_by.find(FindImage("a:1", "", "n1", ("n1", "n2"))))
    async with asyncio.timeout(5):
        while not told.told:
            await asyncio.sleep(0.01)
    for answer in answers:
        (found_by.on_chunks if isinstance(answer, BlobChunks) else found_by.on_seeded)("n1", answer)
    await asyncio.sleep(0)
    return found_by, finding


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


TWICE = ImageSeeded(1, "a:1", CONFIG, (Layer(BLOB, 1), Layer(BLOB, 1)), "")
PAGE = BlobChunks(BLOB, 1, 0, (BLOB,), layer_chunk_bytes(2))


@pytest.mark.usefixtures("no_engine")
async def test_digests_of_a_seed_are_kept_from_the_moment_it_says_what_the_image_is(tmp_path: Path) -> None:
    told = Told()
    found_by, finding = await seeding(told, tmp_path, TWICE, PAGE)
    found = await finding
    assert found.node == "n1"
    assert found.seeded is not None
    assert [page async for page in found.seeded.pages(BLOB)] == [PAGE]
    found_by.on_chunks("n1", PAGE)  # whole by now: this one is of a file with the same content
    found_by.on_chunks("n2", PAGE)
    assert told.others == [PAGE, PAGE]


@pytest.mark.usefixtures("no_engine")
async def test_a_page_that_does_not_fit_breaks_the_rules(tmp_path: Path) -> None:
    found_by, finding = await seeding(Told(), tmp_path, TWICE)
    await finding
    for wrong in (replace(PAGE, first=1), replace(PAGE, size=2), replace(PAGE, chunk_bytes=CHUNK_BYTES)):
        with pytest.raises(RemoteError):
            found_by.on_chunks("n1", wrong)


@pytest.mark.usefixtures("no_engine")
async def test_a_seed_that_fails_while_it_is_read_is_told_to_who_waits_for_its_digests(
    tmp_path: Path,
) -> None:
    found_by, finding = await seeding(Told(), tmp_path, TWICE)
    found = await finding
    assert found.seeded is not None
    found_by.on_seeded("n2", replace(TWICE, error="of somebody else"))
    found_by.on_seeded("n1", replace(TWICE, error="the disk is full"))
    with pytest.raises(SeedError, match=r"^the disk is full$"):
        async for _ in found.seeded.pages(BLOB):
            pytest.fail("a page that nobody told")


def pages_of(layer: Layer, total: int) -> list[BlobChunks]:
    """The digests of a layer in pages of one."""
    step = layer_chunk_bytes(total)
    count = -(-layer.size // step)
    every = [BlobChunks(layer.diff_id, layer.size, at, (bytes([at]) * 32,), step) for at in range(count)]
    return every or [BlobChunks(layer.diff_id, 0, 0, (), step)]


async def told_of(layers: SeededLayers, layer: Layer) -> list[BlobChunks]:
    async with asyncio.timeout(5):
        return [page async for page in layers.pages(layer.diff_id)]


@pytest.mark.parametrize("before", range(8))
async def test_digests_go_on_where_a_lost_seed_has_ended_and_none_is_told_twice(before: int) -> None:
    content = image(b"a" * 700_000, b"", b"b" * 800_000).content
    pages = [pages_of(layer, content.size) for layer in content.layers]
    every = [page for of_one in pages for page in of_one]
    assert len(every) == 8
    layers = SeededLayers("n1", content)
    readers = [asyncio.create_task(told_of(layers, layer)) for layer in content.layers]
    for page in every[:before]:
        assert layers.takes("n1", page)
    if before % 2:  # who reads may be behind or not
        await asyncio.sleep(0)
    layers.go_on("n2")
    assert not layers.takes("n1", every[0])
    for page in every:
        assert layers.takes("n2", page)
    assert await asyncio.gather(*readers) == pages


@pytest.mark.usefixtures("no_engine")
async def test_another_node_seeds_on_the_same_layers_and_no_others(tmp_path: Path) -> None:
    told = Told()
    found_by, finding = await seeding(told, tmp_path, TWICE)
    found = await finding

    async def asked_again(answer: ImageSeeded) -> Found:
        going = asyncio.create_task(found_by.seed_on(found, "n2"))
        await asyncio.sleep(0)
        assert told.told[-1] == (["n2"], ImageSeed(1, "a:1"))
        found_by.on_seeded("n2", answer)
        return await going

    lost = asyncio.create_task(found_by.seed_on(found, "n2"))
    await asyncio.sleep(0)
    again = await asked_again(replace(TWICE, image_id="sha256:other"))
    assert (again.where, again.node, again.engine_id) == ("engine of node n2", "n2", "sha256:other")
    assert again.seeded is found.seeded
    found_by.on_chunks("n2", PAGE)
    assert again.seeded is not None
    assert [page async for page in again.seeded.pages(BLOB)] == [PAGE]
    await asyncio.wait([lost])
    assert lost.cancelled(), "nobody waits for an answer of who was asked before"
    with pytest.raises(ImageSourceError, match=r"^n2: its engine gives other layers than those"):
        await asked_again(replace(TWICE, layers=(Layer(BLOB, 2),) * 2))
    with pytest.raises(ImageSourceError, match=r"^n2: no room$"):
        await asked_again(replace(TWICE, error="no room"))


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (replace(TWICE, error="no room"), "n1: no room"),
        (replace(TWICE, layers=(Layer(BLOB, 1),)), "n1: the layers are not those that the image's"),
        (
            replace(TWICE, layers=(Layer(BLOB, 2**62),) * 2),
            f"n1: its layer {BLOB.hex()[:12]} has {2**62} bytes",
        ),
    ],
)
async def test_what_cannot_be_seeded_is_said_with_its_node(
    tmp_path: Path, answer: ImageSeeded, words: str
) -> None:
    _, finding = await seeding(Told(), tmp_path, answer)
    with pytest.raises(ImageSourceError, match=words):
        await finding
