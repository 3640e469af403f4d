"""Runtimes to test: plain processes always, and a real engine where one can be had."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from phalanx.agent.runtimes.engine import address
from phalanx.agent.runtimes.selection import runtime
from phalanx.protocol import messages

from tests.runtimes import archives, dockerd
from tests.runtimes.cases import IMAGE, Bench

SHELLS = ("busybox", "dash", "bash")


@pytest.fixture(scope="session")
def engine() -> Iterator[dockerd.Dockerd]:
    """A dockerd of the tests' own, with an image for each kind of shell and one without."""
    reason = dockerd.missing()
    if reason:
        pytest.skip(f"no engine: {reason}")
    directory = Path(tempfile.mkdtemp(prefix="phx-dockerd-"))
    daemon = dockerd.Dockerd(directory)
    try:
        daemon.start()
        for shell in (*SHELLS, ""):
            archive = directory / "image.tar"
            archives.write_image(archive, f"phx-test/{shell or 'nosh'}:1", shell=shell)
            daemon.load(archive)
            archive.unlink()
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def own_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[dockerd.Dockerd]:
    """An engine that may be killed."""
    if reason := dockerd.missing():
        pytest.skip(f"no engine: {reason}")
    directory = Path(tempfile.mkdtemp(prefix="phx-dockerd-"))
    daemon = dockerd.Dockerd(directory)
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    try:
        daemon.start()
        archives.write_image(directory / "image.tar", IMAGE)
        daemon.load(directory / "image.tar")
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def docker_host(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The engine under test: PHALANX_TEST_DOCKER_HOST, else the private one."""
    url = os.environ.get("PHALANX_TEST_DOCKER_HOST") or request.getfixturevalue("engine").url
    monkeypatch.setenv("DOCKER_HOST", url)
    return str(url)


@pytest.fixture
async def docker(docker_host: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """The docker runtime on a real engine."""
    async with _bench(messages.Runtime.DOCKER, tmp_path) as bench:
        yield bench


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Bench]:
    """The process runtime."""
    async with _bench(messages.Runtime.PROCESS, tmp_path) as bench:
        yield bench


@pytest.fixture(
    params=[
        pytest.param("process", marks=pytest.mark.local),
        pytest.param("docker", marks=pytest.mark.docker),
    ]
)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Each runtime in turn."""
    if request.param == "docker":
        request.getfixturevalue("docker_host")
    async with _bench(messages.Runtime(request.param), tmp_path) as bench:
        yield bench


@pytest.fixture
async def docker_bench_of_own(own_engine: dockerd.Dockerd, tmp_path: Path) -> AsyncIterator[Bench]:
    """The docker runtime on an engine that the test may kill."""
    async with _bench(messages.Runtime.DOCKER, tmp_path) as bench:
        yield bench


@contextlib.asynccontextmanager
async def _bench(kind: messages.Runtime, tmp_path: Path) -> AsyncIterator[Bench]:
    root = tmp_path / "phalanx-0-run-0"
    root.mkdir(mode=0o700)
    made = Bench(kind, runtime(kind, tmp_path), root)
    await made.runtime.open(None)
    if made.docker and not await made.runtime.image_id(IMAGE):
        archive = tmp_path / "image.tar"
        archives.write_image(archive, IMAGE)
        await asyncio.to_thread(dockerd.load, address(), archive)
    try:
        yield made
    finally:
        for place in made.opened:
            with contextlib.suppress(Exception):
                await place.close(0)
        await made.runtime.close()
