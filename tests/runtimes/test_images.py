"""Images are loaded, verified, exported; what goes wrong is said, and nothing of it stays on the node."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from phalanx.agent.runtimes import images
from phalanx.agent.runtimes.base import ImageError, LibraryMissing, RuntimeUnavailable
from phalanx.agent.runtimes.docker import DockerRuntime
from phalanx.agent.runtimes.engine import address

from tests.runtimes import archives, dockerd
from tests.runtimes.cases import IMAGE, Bench

pytestmark = pytest.mark.docker


def _names(directory: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


async def test_an_image_is_loaded_exported_and_loaded_again(docker: Bench, tmp_path: Path) -> None:
    wanted = archives.write_image(tmp_path / "a.tar", "phx-test/round:1", filler_bytes=3 << 20)
    assert await docker.runtime.image_id("phx-test/round:1") == ""
    assert await docker.runtime.load(tmp_path / "a.tar", "phx-test/round:1", wanted) == wanted
    assert await docker.runtime.export("phx-test/round:1", tmp_path / "b.tar") == wanted
    assert _names(tmp_path, "b.tar*") == ["b.tar"]
    assert await docker.runtime.load(tmp_path / "b.tar", "phx-test/round:1", wanted) == wanted


async def test_a_reference_is_made_to_mean_the_wanted_image(docker: Bench, tmp_path: Path) -> None:
    wanted = archives.write_image(tmp_path / "a.tar", "phx-test/built:1", filler_bytes=100)
    assert await docker.runtime.load(tmp_path / "a.tar", "registry:5000/phx/other:2", wanted) == wanted
    assert await docker.runtime.image_id("registry:5000/phx/other:2") == wanted


async def test_an_archive_of_another_image_is_an_error(docker: Bench, tmp_path: Path) -> None:
    archives.write_image(tmp_path / "a.tar", "phx-test/one:1", filler_bytes=200)
    with pytest.raises(ImageError, match="another image"):
        await docker.runtime.load(tmp_path / "a.tar", "phx-test/one:1", "sha256:" + "ab" * 32)


async def test_a_truncated_archive_is_an_error_and_leaves_nothing(docker: Bench, tmp_path: Path) -> None:
    whole = tmp_path / "a.tar"
    wanted = archives.write_image(whole, "phx-test/cut:1", filler_bytes=4 << 20)
    content = await asyncio.to_thread(whole.read_bytes)
    for kept in (0, 600, 1 << 20, len(content) - 12000):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(content[:kept])
        with pytest.raises(ImageError, match="phx-test/cut:1"):
            await docker.runtime.load(cut, "phx-test/cut:1", wanted)
        assert await docker.runtime.image_id("phx-test/cut:1") == ""


async def test_an_absent_image_cannot_be_exported(docker: Bench, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not have it"):
        await docker.runtime.export("no/such:1", tmp_path / "x.tar")
    assert _names(tmp_path, "x.tar*") == []


async def test_an_image_that_is_listed_but_not_whole_is_an_error(
    own_engine: dockerd.Dockerd, docker_bench_of_own: Bench, tmp_path: Path
) -> None:
    for layer in (own_engine.data / "overlay2").glob("*/diff"):
        shutil.rmtree(layer)
    with pytest.raises(ImageError, match="cannot export image"):
        await docker_bench_of_own.runtime.export(IMAGE, tmp_path / "x.tar")
    assert _names(tmp_path, "x.tar*") == []


@pytest.fixture
async def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[DockerRuntime]:
    """An engine whose disk has 48 MiB."""
    if reason := dockerd.missing():
        pytest.skip(f"no engine: {reason}")
    directory = Path(tempfile.mkdtemp(prefix="phx-dockerd-"))
    data = directory / "data"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(data)]
    await asyncio.to_thread(subprocess.run, mount, check=True)
    daemon = dockerd.Dockerd(directory)
    try:
        await asyncio.to_thread(daemon.start)
        monkeypatch.setenv("DOCKER_HOST", daemon.url)
        runtime = DockerRuntime(tmp_path)
        await runtime.open(None)
        yield runtime
        await runtime.close()
    finally:
        await asyncio.to_thread(daemon.stop)
        shutil.rmtree(directory, ignore_errors=True)


async def test_a_disk_too_small_is_said_before_and_a_disk_that_fills_up_after(
    small: DockerRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.tar"
    wanted = archives.write_image(archive, "phx-test/big:1", filler_bytes=60 << 20)
    with pytest.raises(ImageError, match=r"it needs 6\d.* MiB under .*of which .* are free"):
        await small.load(archive, "phx-test/big:1", wanted)
    monkeypatch.setattr(images, "DISK_FACTOR", 0.0)
    with pytest.raises(ImageError, match="no space left on device"):
        await small.load(archive, "phx-test/big:1", wanted)
    assert await small.image_id("phx-test/big:1") == ""
    wanted = archives.write_image(archive, "phx-test/fits:1", filler_bytes=10 << 20)
    assert await small.load(archive, "phx-test/fits:1", wanted) == wanted


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
