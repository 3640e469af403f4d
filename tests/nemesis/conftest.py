"""How many rounds, from which seed, and where they are played."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import missing_parts
from tests.nemesis.scenes import OnCluster, OnThisMachine
from tests.stories.cluster import Cluster
from tests.stories.conftest import _environment
from tests.stories.program import Phalanx


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nemesis-rounds", type=int, help="rounds of random kills instead of the quick few")
    parser.addoption("--nemesis-seed", type=int, help="seed of the first round; each further one counts on")


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """Of the first round."""
    given = pytestconfig.getoption("nemesis_seed", default=None)
    return random.SystemRandom().randrange(1 << 32) if given is None else int(given)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name: a socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="nemesis-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cluster() -> Iterator[OnCluster]:
    """Two nodes with engines."""
    lacking = missing_parts(docker=True)
    if lacking:
        pytest.skip(f"the lab needs {', '.join(lacking)}")
    made = Cluster.up("soak", nodes=2)
    yield OnCluster(made)
    made.lab.down()


@pytest.fixture
def on_cluster(place: Path, cluster: OnCluster) -> Iterator[Phalanx]:
    """The program on the login side of the cluster."""
    program = Phalanx(place, {**_environment(place), **cluster.cluster.lab.env()})
    yield program
    program.end_all()


@pytest.fixture
def machine(place: Path) -> OnThisMachine:
    """Two agents of this machine."""
    spool = place / "tmp"
    spool.mkdir()
    return OnThisMachine(spool, ["local1", "local2"])


@pytest.fixture
def on_machine(place: Path, machine: OnThisMachine) -> Iterator[Phalanx]:
    """The program on this machine."""
    program = Phalanx(place, {**_environment(place), "TMPDIR": str(machine.spool)})
    yield program
    program.end_all()
