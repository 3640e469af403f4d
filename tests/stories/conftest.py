"""One cluster for all stories, healed and looked over after each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.lab import missing_parts
from tests.stories.cluster import SETTLE_S, Cluster, nothing_left, until
from tests.stories.program import Phalanx

_PARTS = pytest.StashKey[dict[str, pytest.TestReport]]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash.setdefault(_PARTS, {})[call.when] = report
    return report


def _failed(request: pytest.FixtureRequest) -> bool:
    report = request.node.stash.get(_PARTS, {}).get("call")
    return report is None or bool(report.failed)


@pytest.fixture(scope="session")
def a_cluster() -> Iterator[Cluster]:
    lacking = missing_parts(docker=True)
    if lacking:
        pytest.skip(f"the lab needs {', '.join(lacking)}")
    cluster = Cluster.up("stories")
    yield cluster
    cluster.lab.down()


@pytest.fixture
def cluster(a_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster, whole and empty. After a story that passed nothing may be left in it."""
    yield a_cluster
    try:
        if not _failed(request):
            nothing_left(a_cluster)
    finally:
        a_cluster.heal()


@pytest.fixture
def mad_mini(place: Path) -> Path:
    """A copy of the example project, without what `make demo` has left in it: results are written there."""
    left = shutil.ignore_patterns("perf.csv", "phalanx-runs")
    return Path(shutil.copytree(Path("examples/mad-mini"), place / "mad-mini", ignore=left))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name: a socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="story-"))
    yield folder
    shutil.rmtree(folder)


def _environment(place: Path) -> dict[str, str]:
    """That of a user's shell, without what other tests or an outer job have set."""
    drop = ("PHALANX_", "SLURM", "MAD_", "CI", "PYTEST_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    (place / "xdg").mkdir()
    return {
        **environ,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PHALANX_RUNS_DIR": str(place / "runs"),
        "XDG_RUNTIME_DIR": str(place / "xdg"),
        "XDG_STATE_HOME": str(place / "state"),
        "LANG": "C.UTF-8",
    }


def _watched(program: Phalanx, request: pytest.FixtureRequest) -> Iterator[Phalanx]:
    try:
        yield program
        if not _failed(request):
            until(lambda: not program.leftovers(), SETTLE_S, f"gone: {program.leftovers()}")
    finally:
        program.end_all()


@pytest.fixture
def phalanx(place: Path, cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Phalanx]:
    """The program on the login side of the cluster."""
    yield from _watched(Phalanx(place, {**_environment(place), **cluster.lab.env()}), request)


@pytest.fixture
def local(place: Path, request: pytest.FixtureRequest) -> Iterator[Phalanx]:
    """The program on this machine, without any cluster."""
    spool = place / "tmp"
    spool.mkdir()
    yield from _watched(Phalanx(place, {**_environment(place), "TMPDIR": str(spool)}), request)


@pytest.fixture
def tee_srun(place: Path, phalanx: Phalanx) -> Path:
    """Where the line goes that srun brings to the agents. The real srun runs all the same."""
    kept, real = place / "bootstrap", shutil.which("srun")
    bin_folder = place / "bin"
    bin_folder.mkdir()
    wrapper = bin_folder / "srun"
    wrapper.write_text(f'#!/bin/bash\nexec {real} "$@" < <(exec tee -a {kept})\n')
    wrapper.chmod(0o755)
    phalanx.environ = {**phalanx.environ, "PATH": f"{bin_folder}:{phalanx.environ['PATH']}"}
    return kept
