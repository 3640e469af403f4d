"""Images go into a real engine layer by layer, and come out of it; what fails leaves the engine as it was."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiodocker
import pytest
from phalanx.agent.runtimes import images, layers, pins, seed, store, verify
from phalanx.agent.runtimes.base import ImageError, Owner
from phalanx.agent.runtimes.docker import DockerRuntime
from phalanx.agent.runtimes.engine import EngineClient
from phalanx.agent.runtimes.layers import Span
from phalanx.protocol.image import PARTIAL, ImageContent, digest_text

from tests.images import layered
from tests.images.layered import Made, put_in
from tests.runtimes import dockerd
from tests.runtimes.archives import write_image

pytestmark = pytest.mark.docker

OTHER_ENGINE = os.environ.get("PHALANX_TEST_DOCKER_HOST", "")


@pytest.fixture(params=["of the tests", *(["PHALANX_TEST_DOCKER_HOST"] if OTHER_ENGINE else [])])
async def sink(request: pytest.FixtureRequest) -> AsyncIterator[EngineClient]:
    """Each engine in turn; what a test adds to it is removed after."""
    own = request.param == "of the tests"
    async with client(request.getfixturevalue("engine").url if own else OTHER_ENGINE) as opened:
        before = await everything(opened)
        yield opened
        for name in await everything(opened) - before:
            with contextlib.suppress(aiodocker.DockerError):  # it went with another
                await opened.api.images.delete(name, force=True)


@asynccontextmanager
async def client(url: str) -> AsyncIterator[EngineClient]:
    opened = EngineClient(aiodocker, url)
    try:
        yield opened
    finally:
        await opened.close()


async def everything(engine: EngineClient) -> set[str]:
    """Tags of all images, and ids of those without."""
    listed = await engine.api.images.list()
    names = {name for entry in listed for name in entry.get("RepoTags") or [] if name != "<none>:<none>"}
    return (
        names | {entry["Id"] for entry in listed if not entry.get("RepoTags")} | await images.dangling(engine)
    )


def left(folder: Path, pattern: str) -> list[str]:
    """Names of what is still there."""
    return sorted(path.name for path in folder.glob(pattern))


def name_of(seed_text: str) -> str:
    return f"phx-test/{seed_text}:1"


async def put(engine: EngineClient, made: Made, reference: str, files: list[Path], first: int = 0) -> str:
    """Layer by layer from ``first`` on; the id."""
    for index in range(first, len(files)):
        await put_in(engine, made.content, reference, index, files[index])
    return await verify.finish(engine, made.content, reference)


async def believed(engine: EngineClient, made: Made, reference: str) -> None:
    """As an agent makes sure that it is there. Raises ImageError."""
    image_id = await verify.finish(engine, made.content, reference)
    name, _ = await pins.pin_brought(engine, image_id, {})
    await pins.unpin(engine, name)


async def in_engine(engine: EngineClient, content: ImageContent, reference: str) -> int:
    return (await store.held(engine, reference, content.digest, content.diff_ids)).in_engine


async def output(engine: EngineClient, image: str, script: str) -> str:
    """What a container of the image writes."""
    config = {"Image": image, "Entrypoint": ["/bin/sh", "-c", script], "Cmd": [], "NetworkDisabled": True}
    container = await engine.api.containers.create(config)
    try:
        await container.start()
        await container.wait()
        return "".join(await container.log(stdout=True, stderr=True))
    finally:
        await container.delete(force=True)


@pytest.mark.deltas
async def test_an_image_put_in_layer_by_layer_is_the_image_and_runs(
    sink: EngineClient, tmp_path: Path
) -> None:
    made = layered.of("whole", 1 << 20, 3, 2 << 20, 0, 500_000)
    reference = name_of("whole")
    files = made.files(tmp_path / "layers")
    before = await everything(sink)
    counts_parts = not (await store.store_of(sink)).lists_broken
    for index, file in enumerate(files):
        assert await in_engine(sink, made.content, reference) == (index if counts_parts else 0)
        await put_in(sink, made.content, reference, index, file)
    image_id = await verify.finish(sink, made.content, reference)
    containerd = (await store.store_of(sink)).containerd
    assert containerd or image_id == digest_text(made.content.digest)
    assert await store.under(sink, reference) == store.Named(image_id, made.content.likeness, containerd)
    held = await store.held(sink, reference, made.content.digest, made.content.diff_ids)
    assert held.in_engine == len(files)
    assert held.deltas
    assert await everything(sink) - before == {reference}
    wanted = hashlib.md5(layered.noise("whole/3", 2 << 20), usedforsecurity=False).hexdigest()
    assert (await output(sink, reference, "md5sum /data/3")).split()[0] == wanted
    assert await verify.finish(sink, made.content, reference) == image_id
    assert await verify.present(sink, made.content, reference) == image_id


@pytest.mark.deltas
async def test_only_what_is_above_a_base_is_put_in(sink: EngineClient, tmp_path: Path) -> None:
    whole = layered.of("delta", 1 << 20, 2 << 20, 5000)
    below = layered.image(*whole.layers[:2], Labels={"theirs": "1"})
    files = whole.files(tmp_path / "layers")
    await put(sink, below, name_of("delta-base"), files[:2])
    assert await in_engine(sink, whole.content, name_of("delta")) == 2
    await put(sink, whole, name_of("delta"), files, 2)
    assert "5000" in await output(sink, name_of("delta"), "cat /data/3 | /bin/busybox wc -c")
    assert await verify.present(sink, below.content, name_of("delta-base"))


@pytest.mark.deltas
async def test_a_layer_that_is_held_on_top_of_another_is_put_in_again(
    sink: EngineClient, tmp_path: Path
) -> None:
    one, other = layered.of("parent-one", 700_000), layered.of("parent-other")
    moved = layered.image(other.layers[0], one.layers[1])
    await put(sink, one, name_of("parent-one"), one.files(tmp_path / "one"))
    await put(sink, other, name_of("parent-other"), other.files(tmp_path / "other"))
    assert await in_engine(sink, moved.content, name_of("moved")) == 1
    if not (await store.store_of(sink)).containerd:  # which finds a layer wherever it lies
        with pytest.raises(ImageError):
            await layers.load_config(sink, moved.content, name_of("moved"))
    await put(sink, moved, name_of("moved"), moved.files(tmp_path / "moved"), 1)
    assert (await output(sink, name_of("moved"), "cat /etc/seed")) == "parent-other"


@pytest.mark.deltas
async def test_another_configuration_of_the_same_layers_is_another_image(
    sink: EngineClient, tmp_path: Path
) -> None:
    one = layered.of("config", 1000)
    other = layered.image(*one.layers, Env=["PATH=/bin", "OTHER=yes"])
    reference = name_of("config")
    await put(sink, one, reference, one.files(tmp_path / "one"))
    held = await store.held(sink, reference, other.content.digest, other.content.diff_ids)
    assert (held.present, held.in_engine) == (False, 2)
    assert not await verify.present(sink, other.content, reference)
    await layers.load_config(sink, other.content, reference)
    await verify.finish(sink, other.content, reference)
    assert (await output(sink, reference, "echo $OTHER")).strip() == "yes"
    # and back by the id alone: the first image has lost its name, its layers are held
    await layers.load_config(sink, one.content, reference)
    await verify.finish(sink, one.content, reference)
    assert (await output(sink, reference, "echo $OTHER")).strip() == ""


async def test_the_same_layer_twice_in_an_image_is_put_in_where_it_belongs(
    sink: EngineClient, tmp_path: Path
) -> None:
    empty = layered.tar({})
    one = layered.of("twice", 3000)
    made = layered.image(one.layers[0], empty, one.layers[1], empty)
    await put(sink, made, name_of("twice"), made.files(tmp_path / "layers"))


async def test_a_whole_image_goes_in_at_once_where_deltas_are_not_taken(
    sink: EngineClient, tmp_path: Path
) -> None:
    made = layered.of("full", 1 << 20, 10)
    joined = tmp_path / "joined"
    joined.write_bytes(b"before" + b"".join(made.layers))
    offset, spans = 6, []
    for layer in made.layers:
        spans.append(Span(joined, offset, len(layer)))
        offset += len(layer)
    await layers.load_all(sink, made.content, name_of("full"), spans)
    await verify.finish(sink, made.content, name_of("full"))


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("how", ["corrupt", "short", "gone"])
async def test_a_layer_that_is_not_right_fails_and_leaves_the_engine_clean(
    sink: EngineClient, tmp_path: Path, index: int, how: str
) -> None:
    made = layered.of(f"bad-{how}-{index}", 900_000, 800_000)
    reference = name_of(f"bad-{how}-{index}")
    files = made.files(tmp_path / "layers")
    before = await everything(sink)
    data = bytearray(files[index].read_bytes())
    data[len(data) // 2] ^= 1
    if how == "gone":
        files[index].unlink()
    else:
        files[index].write_bytes(data if how == "corrupt" else data[:-1])
    with pytest.raises(ImageError, match=rf"cannot load image {reference}: layer {index + 1} "):
        await put(sink, made, reference, files)
    with pytest.raises(ImageError, match=r"send it again|cannot pin"):
        await believed(sink, made, reference)
    await verify.clean(sink, made.content)
    assert await everything(sink) == before


async def test_a_name_means_what_it_meant_when_the_load_of_another_image_fails(
    sink: EngineClient, tmp_path: Path
) -> None:
    old, new = layered.of("name-old", 1000), layered.of("name-new", 400_000)
    reference = name_of("name")
    image_id = await put(sink, old, reference, old.files(tmp_path / "old"))
    before = await everything(sink)
    files = new.files(tmp_path / "new")
    files[1].write_bytes(files[1].read_bytes().replace(b"data/1", b"data/7"))
    with pytest.raises(ImageError, match=f"cannot load image {reference}: layer 2 "):
        await put(sink, new, reference, files)
    await verify.clean(sink, new.content)
    assert await images.image_id(sink, reference) == image_id
    assert await output(sink, reference, "cat /etc/seed") == "name-old"
    assert await everything(sink) == before


@pytest.mark.deltas
async def test_parts_of_other_images_are_not_touched(sink: EngineClient, tmp_path: Path) -> None:
    one, other = layered.of("mine", 1000), layered.of("other", 1000)
    await put_in(sink, one.content, name_of("mine"), 0, one.files(tmp_path / "1")[0])
    await put_in(sink, other.content, name_of("other"), 0, other.files(tmp_path / "2")[0])
    await verify.clean(sink, one.content)
    left = await everything(sink)
    assert other.content.partial_tag(1) in left
    assert one.content.partial_tag(1) not in left
    await verify.clean(sink, other.content)
    assert other.content.partial_tag(1) not in await everything(sink)


async def test_parts_without_a_tag_are_removed_too(sink: EngineClient, tmp_path: Path) -> None:
    made = layered.of("untagged", 1000)
    before = await everything(sink)
    await put_in(sink, made.content, name_of("untagged"), 0, made.files(tmp_path / "1")[0])
    clash, tag = layered.image(layered.base("clash")), made.content.partial_tag(1)
    await put(sink, clash, name_of("clash"), clash.files(tmp_path / "2"))
    await sink.api.images.tag(name_of("clash"), PARTIAL, tag=tag.partition(":")[2])
    for name in (tag, name_of("clash")):
        await sink.api.images.delete(name, force=True)
    assert len(await everything(sink) - before) == 1
    await verify.clean(sink, made.content)
    assert await everything(sink) == before


async def test_no_image_is_given_a_digest_as_its_name(sink: EngineClient, tmp_path: Path) -> None:
    made = layered.of("digest")
    with pytest.raises(ImageError, match="name it by repository and tag"):
        await put_in(sink, made.content, "x@sha256:" + "ab" * 32, 0, made.files(tmp_path / "1")[0])


async def test_what_comes_out_of_an_engine_goes_into_another(sink: EngineClient, tmp_path: Path) -> None:
    made = layered.of("seed", 1 << 20, 0, 300_000)
    made = layered.image(*made.layers, layered.tar({}), made.layers[1], layered.tar({}))
    reference = name_of("seed")
    await put(sink, made, reference, made.files(tmp_path / "layers"))
    out = await seed.seed(sink, reference, tmp_path / "out.tar")
    assert out.content == made.content
    for place, (span, layer) in enumerate(zip(out.spans, made.layers, strict=True)):
        data = span.path.read_bytes()[span.offset : span.offset + span.size]
        assert data == layer
        *_, last = seed.pages(out, place)
        assert last.blob == hashlib.sha256(layer).digest()
    await sink.api.images.delete(reference, force=True)
    assert await in_engine(sink, made.content, reference) == 0
    for index, span in enumerate(out.spans):
        await put_in(sink, out.content, reference, index, span.path, span.offset)
    await verify.finish(sink, out.content, reference)
    seed.remove(tmp_path / "out.tar")
    assert left(tmp_path, "out.tar*") == []


async def test_an_absent_image_is_no_seed(sink: EngineClient, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not have it"):
        await seed.seed(sink, "no/such:1", tmp_path / "out.tar")
    assert left(tmp_path, "*") == []


@pytest.mark.parametrize("what", ["empty", "a layer missing", "another image"])
async def test_an_export_that_is_not_whole_is_no_seed(
    sink: EngineClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made = layered.of("broken", 1000, 2000)
    reference = name_of("broken")
    await put(sink, made, reference, made.files(tmp_path / "layers"))

    async def broken(_: EngineClient, __: str, archive: Path) -> str:
        await asyncio.to_thread(archive.write_bytes, exported(made, what))
        return "sha256:x"

    monkeypatch.setattr(images, "export", broken)
    with pytest.raises(ImageError, match=rf"cannot export image {reference}: .*pull or build it again"):
        await seed.seed(sink, reference, tmp_path / "out.tar")
    assert left(tmp_path, "out.tar*") == []


def exported(made: Made, what: str) -> bytes:
    """What an engine exports that does not hold all of an image."""
    config, data = made.content.config, list(made.layers)
    if what == "another image":
        config, data = layered.of("something else").content.config, data[:1]
    names = [f"{number}/layer.tar" for number in range(len(data))]
    entry = {"Config": "config.json", "RepoTags": None, "Layers": names}
    files = dict(zip(names, data, strict=True)) | {"config.json": config}
    if what == "a layer missing":
        del files[names[1]]
    entries: list[dict[str, Any]] = [] if what == "empty" else [entry]
    return layered.tar(files | {"manifest.json": json.dumps(entries).encode()})


async def test_compressed_layers_of_an_export_are_unpacked_beside_it(tmp_path: Path) -> None:
    import gzip

    made = layered.of("packed", 1000)
    names = ["0.tar.gz", "1.tar"]
    files = {"0.tar.gz": gzip.compress(made.layers[0]), "1.tar": made.layers[1], "c": made.content.config}
    entry = {"Config": "c", "RepoTags": None, "Layers": names}
    (tmp_path / "out.tar").write_bytes(layered.tar(files | {"manifest.json": json.dumps([entry]).encode()}))
    out = await asyncio.to_thread(seed.index, tmp_path / "out.tar", "x:1", made.content.diff_ids)
    assert out.content == made.content
    assert out.spans[0].path.read_bytes() == made.layers[0]
    seed.remove(tmp_path / "out.tar")
    assert left(tmp_path, "*") == []


async def prune_all(engine: EngineClient) -> None:
    await engine.api._query_json("images/prune", "POST", params={"filters": '{"dangling":["false"]}'})


async def test_a_pinned_image_survives_a_prune_until_it_is_let_go(
    own_engine: dockerd.Dockerd, tmp_path: Path
) -> None:
    made = layered.image(layered.base("pin"), Cmd=None)
    reference = name_of("pin")
    async with client(own_engine.url) as engine:
        image_id = await put(engine, made, reference, made.files(tmp_path / "layers"))
        owner = Owner("20260101-run-abcd", "n1", 0, "cafe01", os.getuid(), 60.0)
        runtime = DockerRuntime(tmp_path)
        await runtime.open(None)
        held = pins.pin_labels(owner, "", 4e9)
        name = await pins.pin(engine, image_id, held)
        await prune_all(engine)
        assert await runtime.sweep() == []
        assert await verify.present(engine, made.content, reference) == image_id
        await pins.unpin(engine, name)
        await pins.unpin(engine, name)
        assert own_engine.containers() == []
        await pins.pin(engine, image_id, pins.pin_labels(owner, "", 0.0))
        assert len(await runtime.sweep()) == 1
        assert own_engine.containers() == []
        await runtime.close()
        await prune_all(engine)
        assert not await verify.present(engine, made.content, reference)
        with pytest.raises(ImageError, match="cannot pin image"):
            await pins.pin(engine, image_id, held)


@pytest.fixture
async def small() -> AsyncIterator[tuple[dockerd.Dockerd, EngineClient]]:
    """An engine whose disk has 48 MiB."""
    if reason := dockerd.missing():
        pytest.skip(f"no engine: {reason}")
    directory = Path(tempfile.mkdtemp(prefix="phx-dockerd-"))
    daemon = dockerd.Dockerd(directory)
    daemon.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(daemon.data)]
    await asyncio.to_thread(subprocess.run, mount, check=True)
    try:
        await asyncio.to_thread(daemon.start)
        async with client(daemon.url) as opened:
            yield daemon, opened
    finally:
        await asyncio.to_thread(daemon.stop)
        shutil.rmtree(directory, ignore_errors=True)


async def test_a_disk_that_fills_up_is_said_before_or_leaves_the_engine_clean(
    small: tuple[dockerd.Dockerd, EngineClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, engine = small
    made, reference = layered.of("big", 1 << 20, 30 << 20), name_of("big")
    files = made.files(tmp_path / "layers")
    with pytest.raises(ImageError, match=r"it needs 6\d.* MiB under .*of which .* are free"):
        await put(engine, made, reference, files)
    monkeypatch.setattr(images, "DISK_FACTOR", 0.0)
    with pytest.raises(ImageError, match="no space left on device"):
        await put_in(engine, made.content, reference, 2, files[2])
    assert await in_engine(engine, made.content, reference) == 2
    await verify.clean(engine, made.content)
    assert await everything(engine) == set()
    assert left(daemon.data / "tmp", "docker-import-*") == []
    assert left(daemon.data / "image" / "overlay2" / "layerdb", "sha256/*") == []
    less = layered.of("less", 1 << 20, 8 << 20)
    await put(engine, less, name_of("less"), less.files(tmp_path / "less"))


async def test_an_engine_killed_in_the_middle_of_a_load_goes_on_where_it_was(
    own_engine: dockerd.Dockerd, tmp_path: Path
) -> None:
    made, reference = layered.of("killed", 2 << 20, 60 << 20), name_of("killed")
    files = made.files(tmp_path / "layers")
    async with client(own_engine.url) as engine:
        for index in (0, 1):
            await put_in(engine, made.content, reference, index, files[index])
        loading = asyncio.create_task(put_in(engine, made.content, reference, 2, files[2]))
        await asyncio.to_thread(dockerd.until, own_engine.incoming, 30, "the layer is on its way")
        await asyncio.to_thread(own_engine.crash)
        with pytest.raises(ImageError, match=f"cannot load image {reference}: layer 3"):
            await loading
        await asyncio.to_thread(own_engine.start)
        counts_parts = not (await store.store_of(engine)).lists_broken
        assert await in_engine(engine, made.content, reference) == (2 if counts_parts else 0)
        await put(engine, made, reference, files, 2)


async def test_a_load_that_is_called_off_leaves_nothing(own_engine: dockerd.Dockerd, tmp_path: Path) -> None:
    made, reference = layered.of("called-off", 60 << 20), name_of("called-off")
    files = made.files(tmp_path / "layers")
    async with client(own_engine.url) as engine:
        before = await everything(engine)
        await put_in(engine, made.content, reference, 0, files[0])
        loading = asyncio.create_task(put_in(engine, made.content, reference, 1, files[1]))
        await asyncio.to_thread(dockerd.until, own_engine.incoming, 30, "the layer is on its way")
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        if not (await store.store_of(engine)).containerd:  # which keeps what has come, to go on with it
            await asyncio.to_thread(
                dockerd.until, lambda: own_engine.incoming() == [], 30, "the engine has given it up"
            )
        assert not await verify.present(engine, made.content, reference)
        await verify.clean(engine, made.content)
        assert await everything(engine) == before
        await put(engine, made, reference, files)


async def test_images_that_others_remove_meanwhile_count_for_nothing(
    own_engine: dockerd.Dockerd, tmp_path: Path
) -> None:
    made = layered.of("vanish", 1000)
    async with client(own_engine.url) as engine:
        await put(engine, made, name_of("vanish"), made.files(tmp_path / "layers"))
        real = engine.api.images.list

        async def listed(**asked: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await real(**asked)
            return [*found, {"Id": "sha256:" + "ab" * 32}]

        engine.api.images.list = listed
        assert await in_engine(engine, made.content, "other:1") == 2


async def test_an_image_saved_by_the_engine_tools_is_held(
    own_engine: dockerd.Dockerd, tmp_path: Path
) -> None:
    """What came by other ways counts, too."""
    write_image(tmp_path / "a.tar", name_of("tools"), filler_bytes=1000)
    await asyncio.to_thread(own_engine.load, tmp_path / "a.tar")
    async with client(own_engine.url) as engine:
        out = await seed.seed(engine, name_of("tools"), tmp_path / "out.tar")
        held = await store.held(engine, name_of("tools"), out.content.digest, out.content.diff_ids)
        by_config = not (await store.store_of(engine)).containerd
        assert (held.present, held.in_engine, held.deltas) == (by_config, 1, True)
        assert 0 < held.engine_free_bytes < store.UNKNOWN_BYTES
