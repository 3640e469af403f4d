"""What engines that are not here answer (docker 28's containerd store, podman), and what is made of it.

A stand-in speaks the few calls of the API, for endings that a real engine cannot be made to have on request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiodocker
import pytest
from aiohttp import web
from phalanx.agent.runtimes import layers, parts, pins, store, verify
from phalanx.agent.runtimes.base import ImageError
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.protocol.image import ImageContent, digest_text
from phalanx.protocol.image_archive import manifest_digest

from tests.images import layered

GRAPH = {"DriverStatus": [["Backing Filesystem", "extfs"]]}
CONTAINERD = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
PODMAN = {"Components": [{"Name": "Podman Engine"}]}
NAME = "phx-test/x:1"


@pytest.mark.parametrize(
    ("version", "info", "deltas"),
    [
        ({"Version": "20.10.24+dfsg1"}, GRAPH, True),
        ({"Version": "28.5.2"}, GRAPH, True),
        ({"Version": "19.03.15"}, GRAPH, False),
        ({"Version": "24.0.7"}, GRAPH, True),
        ({"Version": "24.0.7"}, CONTAINERD, False),
        ({"Version": "25.0.0"}, CONTAINERD, True),
        ({"Version": "29.1.0-rc.1"}, CONTAINERD, True),
        ({"Version": "dev"}, GRAPH, False),
        ({}, {}, False),
        ({"Version": "4.9.4", **PODMAN}, GRAPH, False),
        ({"Version": "99.0", **PODMAN}, {}, False),
    ],
)
def test_whether_an_engine_takes_deltas_is_read_from_what_it_is(
    version: dict[str, Any], info: dict[str, Any], deltas: bool
) -> None:
    assert store.read_store(version, info).deltas is deltas


def manifests(available: bool, unpacked: int) -> list[dict[str, Any]]:
    image = {"Available": available, "ImageData": {"Size": {"Unpacked": unpacked}}}
    return [image, {"Available": True, "Kind": "attestation"}]


@dataclass
class StandIn:
    """An engine that has what it is told. ``answer``: to a load; one without its end of line breaks off."""

    version: dict[str, Any] = field(default_factory=lambda: {"Version": "28.5.2", "ApiVersion": "1.51"})
    info: dict[str, Any] = field(default_factory=lambda: {"DockerRootDir": "/nowhere", **CONTAINERD})
    listed: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    answer: bytes = b""
    on_load: Callable[[], None] = lambda: None
    broken: bool = False
    cannot_run: bool = False
    removed: list[str] = field(default_factory=list)

    def json(self, value: str) -> Callable[[web.Request], Any]:
        async def handler(_: web.Request) -> web.Response:
            return web.json_response(getattr(self, value))

        return handler

    async def inspect(self, request: web.Request) -> web.Response:
        found = self.images.get(request.match_info["name"])
        if self.broken and found:
            return web.json_response({"message": "overloaded"}, status=500)
        return web.json_response(found or {"message": "No such image"}, status=200 if found else 404)

    async def create(self, _: web.Request) -> web.Response:
        if self.cannot_run:
            return web.json_response({"message": "content digest not found"}, status=404)
        return web.json_response({"Id": "a-pin"}, status=201)

    async def delete(self, request: web.Request) -> web.Response:
        self.removed.append(request.match_info["name"])
        return web.json_response([])

    async def load(self, request: web.Request) -> web.StreamResponse:
        async for _ in request.content.iter_any():
            pass
        self.on_load()
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(self.answer)
        if not self.answer.endswith(b"\n") and request.transport is not None:
            request.transport.abort()
        return response

    @asynccontextmanager
    async def at(self, socket: Path) -> AsyncIterator[EngineClient]:
        app = web.Application()
        app.router.add_get("/version", self.json("version"))
        api = r"/{version:v[\d.]+}"
        app.router.add_get(f"{api}/version", self.json("version"))
        app.router.add_get(f"{api}/info", self.json("info"))
        app.router.add_get(f"{api}/images/json", self.json("listed"))
        app.router.add_get(f"{api}/images/{{name:.+}}/json", self.inspect)
        app.router.add_post(f"{api}/images/load", self.load)
        app.router.add_post(f"{api}/containers/create", self.create)
        app.router.add_delete(f"{api}/containers/{{name}}", self.delete)
        app.router.add_delete(f"{api}/images/{{name:.+}}", self.delete)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        client = EngineClient(aiodocker, f"unix://{socket}")
        try:
            yield client
        finally:
            await client.close()
            await runner.cleanup()


MADE = layered.image(layered.tar({"a": b"1"}), layered.tar({"b": b"2"}), Env=["A=1"])


def shown(content: ImageContent, image_id: str, **more: Any) -> dict[str, Any]:
    layers_shown = [digest_text(diff_id) for diff_id in content.diff_ids]
    return {"Id": image_id, "RootFS": {"Type": "layers", "Layers": layers_shown}, **more}


async def test_images_that_the_containerd_store_only_lists_count_for_nothing(tmp_path: Path) -> None:
    engine = StandIn()
    for number, (available, unpacked) in enumerate([(True, 0), (False, 0), (False, 4096)]):
        content = layered.image(*MADE.layers[: number + 1], layered.tar({"c": bytes([number])})).content
        engine.listed.append({"Id": f"sha256:{number}", "Manifests": manifests(available, unpacked)})
        engine.images[f"sha256:{number}"] = shown(content, f"sha256:{number}")
    async with engine.at(tmp_path / "s") as client:
        held = await store.held(client, NAME, MADE.content.digest, MADE.content.diff_ids)
        assert held == store.Held(False, 2, True, store.UNKNOWN_BYTES)
        engine.listed = engine.listed[:2]
        assert (await store.held(client, NAME, MADE.content.digest, MADE.content.diff_ids)).in_engine == 0


async def test_parts_of_an_image_are_no_proof_where_broken_ones_look_like_any_other(tmp_path: Path) -> None:
    part = MADE.content.partial_tag(1)
    engine = StandIn(version={"Version": "26.1.5", "ApiVersion": "1.45"})
    engine.listed = [{"Id": "sha256:1", "RepoTags": [part]}, {"Id": "sha256:2", "RepoTags": ["theirs:1"]}]
    engine.images = {"sha256:1": shown(MADE.content, "sha256:1")}
    engine.images["sha256:2"] = shown(MADE.content.prefix(1), "sha256:2")
    async with engine.at(tmp_path / "s") as client:
        held = await store.held(client, NAME, MADE.content.digest, MADE.content.diff_ids)
        assert held.in_engine == 1


@pytest.mark.parametrize("unpacked", [4096, 0])
async def test_what_the_containerd_store_lists_and_could_not_run_is_nothing(
    unpacked: int, tmp_path: Path
) -> None:
    told = {"Config": {"Env": ["A=1"], "Cmd": ["/bin/true"], "Labels": None}, "Architecture": "amd64"}
    there = shown(MADE.content, MANIFEST, Os="linux", **told)
    engine = StandIn(images={NAME: there})
    engine.listed = [{"Id": MANIFEST, "Manifests": manifests(True, unpacked)}]
    async with engine.at(tmp_path / "s") as client:
        whole = store.Named(MANIFEST, MADE.content.likeness, by_manifest=True)
        assert await store.under(client, NAME) == (whole if unpacked else store.Named())
        assert await store.under(client, "other:1") == store.Named()
        engine.images["docker.io/x@sha256:1"] = there
        assert await store.under(client, "docker.io/x@sha256:1") == (whole if unpacked else store.Named())
        engine.info = GRAPH
        assert await store.under(client, NAME) == store.Named(MANIFEST, MADE.content.likeness)


async def test_podman_gets_whole_images_and_its_bare_ids_are_understood(tmp_path: Path) -> None:
    engine = StandIn(
        version={"Version": "4.3.1", "ApiVersion": "1.41", **PODMAN}, info={"DockerRootDir": "/nowhere"}
    )
    engine.listed = [{"Id": "x"}]
    engine.images = {"x": shown(MADE.content, "x")}
    async with engine.at(tmp_path / "s") as client:
        held = await store.held(client, NAME, MADE.content.digest, MADE.content.diff_ids)
        assert (held.present, held.in_engine, held.deltas) == (False, 0, False)
        engine.images[NAME] = shown(MADE.content, MADE.content.digest.hex())
        held = await store.held(client, NAME, MADE.content.digest, MADE.content.diff_ids)
        assert (held.present, held.in_engine, held.deltas) == (True, 2, False)
        assert await verify.present(client, MADE.content, NAME)


async def test_an_engine_that_fails_while_it_is_asked_is_told_as_one_error(tmp_path: Path) -> None:
    engine = StandIn(listed=[{"Id": str(number), "Manifests": manifests(True, 1)} for number in range(20)])
    engine.images = {str(number): {"RootFS": {"Layers": ["rubbish"]}} for number in range(20)}
    async with engine.at(tmp_path / "s") as client:
        wanted = (client, NAME, MADE.content.digest, MADE.content.diff_ids)
        assert (await store.held(*wanted)).in_engine == 0
        engine.broken = True
        with pytest.raises(EngineError, match=r"cannot look at image \d+: .*overloaded"):
            await store.held(*wanted)


MANIFEST = digest_text(manifest_digest(MADE.content))
TOLD = {"Architecture": "amd64", "Os": "linux", "Created": "2026-01-01T00:00:00Z"}
CONFIG = {"Env": ["A=1"], "Cmd": ["/bin/true"], "Labels": None, "Entrypoint": []}


@pytest.mark.parametrize(
    ("found", "is_it"),
    [
        (shown(MADE.content, digest_text(MADE.content.digest)), True),
        (shown(MADE.content, MANIFEST, Descriptor={}), True),
        (shown(MADE.content, "sha256:other"), False),
        (shown(MADE.content, "sha256:other", Descriptor={}, Config=CONFIG, **TOLD), True),
        (shown(MADE.content, "sha256:other", Config=CONFIG, **TOLD), False),
        (shown(MADE.content, "sha256:other", Descriptor={}, Config=CONFIG | {"User": "1"}, **TOLD), False),
        (shown(MADE.content, "sha256:other", Descriptor={}, Config=CONFIG, Os="linux"), False),
        (shown(MADE.content.prefix(1), digest_text(MADE.content.digest)), False),
        ({"Id": digest_text(MADE.content.digest)}, False),
    ],
)
async def test_an_image_is_known_by_its_id_and_layers_or_by_what_containers_are_told(
    found: dict[str, Any], is_it: bool, tmp_path: Path
) -> None:
    async with StandIn(images={NAME: found}).at(tmp_path / "s") as client:
        assert bool(await verify.present(client, MADE.content, NAME)) is is_it


ENDINGS = {
    "a body that only ends": b'{"stream":"Loading layer"}\n',
    "no body": b"\n",
    "a connection that is closed": b'{"stream":"Loading layer"}\n{"stream"',
    "an error in the body": b'{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}\n',
    "an image that could not be unpacked": b'{"stream":"Error unpacking image x: no space"}\n',
    "a promise that is not kept": b'{"stream":"Loaded image: phx-test/x:1\\n"}\n',
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_load_is_a_failure_unless_the_engine_then_shows_the_image(
    ending: str, tmp_path: Path
) -> None:
    engine = StandIn(answer=ENDINGS[ending])
    file = MADE.files(tmp_path / "layers")[1]
    async with engine.at(tmp_path / "s") as client:
        with pytest.raises(ImageError, match=rf"cannot load image {NAME}: layer 2 "):
            await layered.put_in(client, MADE.content, NAME, 1, file)


async def test_what_an_engine_shows_after_it_closed_the_connection_is_believed(tmp_path: Path) -> None:
    engine = StandIn(answer=ENDINGS["a body that only ends"])
    tag = MADE.content.partial_tag(2)
    engine.on_load = lambda: engine.images.update({tag: shown(MADE.content, MANIFEST)})
    file = MADE.files(tmp_path / "layers")[1]
    async with engine.at(tmp_path / "s") as client:
        await layered.put_in(client, MADE.content, NAME, 1, file)


async def test_an_image_that_is_there_is_not_loaded_again(tmp_path: Path) -> None:
    engine = StandIn(images={NAME: shown(MADE.content, MANIFEST)})
    engine.on_load = lambda: pytest.fail("loaded again")
    async with engine.at(tmp_path / "s") as client:
        await layers.load_config(client, MADE.content, NAME)


async def test_an_image_is_done_when_the_engine_shows_it_and_its_own_parts_are_gone(tmp_path: Path) -> None:
    part = MADE.content.partial_tag(1)
    other = part.replace(MADE.content.partial_mark, "0" * 12)
    engine = StandIn(images={NAME: shown(MADE.content, MANIFEST)})
    engine.listed = [{"Id": "sha256:1", "RepoTags": [part, other]}, {"Id": "sha256:2", "RepoTags": None}]
    async with engine.at(tmp_path / "s") as client:
        assert await verify.finish(client, MADE.content, NAME) == MANIFEST
        assert engine.removed == [part]


async def test_the_parts_of_an_image_that_another_run_loads_too_are_left_to_it(tmp_path: Path) -> None:
    tag = MADE.content.partial_tag(1)
    engine = StandIn(listed=[{"Id": "sha256:1", "RepoTags": [tag]}])
    ours, theirs = [await parts.share(tmp_path, MADE.content.digest) for _ in range(2)]
    async with engine.at(tmp_path / "s") as client:
        await ours.clean(client, MADE.content)
        assert engine.removed == []
        ours.release()
        await theirs.clean(client, MADE.content)
        assert tag in engine.removed
    late = asyncio.create_task(parts.share(tmp_path, MADE.content.digest))
    await asyncio.sleep(2 * parts.LOOK_S)
    assert not late.done()  # a layer that it put in now might be removed
    theirs.release()
    (await late).release()
    assert not theirs.path.exists()


async def test_what_the_containerd_store_can_make_no_container_of_has_not_come(tmp_path: Path) -> None:
    engine = StandIn()
    async with engine.at(tmp_path / "s") as client:
        assert await pins.pin_brought(client, MANIFEST, {}) == ("a-pin", "")
        engine.cannot_run = True
        with pytest.raises(ImageError, match="content digest not found"):
            await pins.pin_brought(client, MANIFEST, {})


async def test_a_graph_driver_store_that_makes_no_container_may_do_so_later(tmp_path: Path) -> None:
    engine = StandIn(info={"DockerRootDir": "/nowhere"}, cannot_run=True)
    async with engine.at(tmp_path / "s") as client:
        name, why = await pins.pin_brought(client, MANIFEST, {})
    assert name == ""
    assert "content digest not found" in why
