"""Images are pulled and exported; what goes wrong is said, and nothing of it stays on the node."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from phalanx.agent.runtimes import images
from phalanx.agent.runtimes.base import ImageError, LibraryMissing, RuntimeUnavailable
from phalanx.agent.runtimes.docker import DockerRuntime
from phalanx.agent.runtimes.engine import EngineClient, address

from tests.runtimes import dockerd
from tests.runtimes.cases import IMAGE, Bench

pytestmark = pytest.mark.docker


def _names(directory: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


def client(bench: Bench) -> EngineClient:
    assert isinstance(bench.runtime, DockerRuntime)
    return bench.runtime.client


async def test_an_image_is_exported_whole_or_not_at_all(docker: Bench, tmp_path: Path) -> None:
    wanted = await docker.runtime.image_id(IMAGE)
    assert await images.export(client(docker), IMAGE, tmp_path / "b.tar") == wanted
    assert _names(tmp_path, "b.tar*") == ["b.tar"]


async def test_an_absent_image_cannot_be_exported(docker: Bench, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not have it"):
        await images.export(client(docker), "no/such:1", tmp_path / "x.tar")
    assert _names(tmp_path, "x.tar*") == []


async def test_an_image_that_is_listed_but_not_whole_is_an_error(
    own_engine: dockerd.Dockerd, docker_bench_of_own: Bench, tmp_path: Path
) -> None:
    own_engine.forget_layers()
    with pytest.raises(ImageError, match="cannot export image"):
        await images.export(client(docker_bench_of_own), IMAGE, tmp_path / "x.tar")
    assert _names(tmp_path, "x.tar*") == []


async def test_a_registry_that_cannot_be_reached_is_told_in_the_engines_words(docker: Bench) -> None:
    with pytest.raises(ImageError, match=r"cannot pull image 127\.0\.0\.1:9/no/such:1: "):
        await images.pull(client(docker), "127.0.0.1:9/no/such:1")


async def test_a_socket_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(RuntimeUnavailable, match=r"none\.sock.*set DOCKER_HOST"):
        await DockerRuntime(tmp_path).open(None)


async def test_the_engine_says_what_it_is(docker_host: str, tmp_path: Path) -> None:
    runtime = DockerRuntime(tmp_path)
    engine = await runtime.open(None)
    await runtime.close()
    assert engine.kind == "docker"
    assert engine.version
    assert engine.storage
    assert address() == docker_host


async def test_a_node_without_the_client_asks_for_it_and_takes_it_from_an_archive(
    docker_host: str, tmp_path: Path
) -> None:
    import aiodocker

    library = tmp_path / "library.zip"
    await asyncio.to_thread(_pack_pure, Path(aiodocker.__file__).parents[1], library)
    program = (
        "import sys, asyncio; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from phalanx.agent.runtimes.base import LibraryMissing\n"
        "from phalanx.agent.runtimes.docker import DockerRuntime\n"
        "async def main():\n"
        "    runtime = DockerRuntime(Path('/tmp'))\n"
        "    try:\n"
        "        await runtime.open(None)\n"
        "    except LibraryMissing:\n"
        "        print('missing')\n"
        "    print((await runtime.open(Path(sys.argv[1]))).kind)\n"
        "    await runtime.close()\n"
        "asyncio.run(main())\n"
    )
    import phalanx.agent
    import phalanx.protocol

    roots = [str(Path(module.__file__ or "").parents[2]) for module in (phalanx.agent, phalanx.protocol)]
    command = ["python3", "-I", "-S", "-c", program, str(library), *roots]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.split() == ["missing", "docker"]
    assert issubclass(LibraryMissing, RuntimeUnavailable)


def _pack_pure(site: Path, library: Path) -> None:
    import zipfile

    names = "aiodocker aiohttp aiosignal aiohappyeyeballs attr attrs frozenlist idna multidict propcache yarl"
    with zipfile.ZipFile(library, "w") as packed:
        for name in (*names.split(), "typing_extensions.py"):
            top = site / name
            for path in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
                packed.write(path, path.relative_to(site))
