"""A cluster for trainings: torch on one node's engine, from where the runs bring it to the others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, missing_parts
from tests.stories.cluster import Cluster
from tests.stories.program import Phalanx
from tests.stories.training.torch_image import torch_image
from tests.stories.training.trainer import Trainer, figures

#: An engine holds the image twice while it is loaded (0.7 GB), and the agent beside it what it relays.
DISK = "4G"
LOAD_S = 600.0
PROJECT = Path("tests/projects/torch_tiny")


@pytest.fixture(scope="session")
def a_cluster() -> Iterator[Cluster]:
    """Four nodes; the first has the base image, none has the model's."""
    lacking = missing_parts(docker=True)
    assert not lacking, f"the tier torch needs a lab, and here is {', '.join(lacking)}"
    archive = torch_image()
    cluster = Cluster(Lab.up(name="torch", nodes=4, docker=True, disk=DISK, fresh=True))
    began = time.monotonic()
    cluster.lab.load_image("n1", archive, timeout=LOAD_S)
    size = archive.stat().st_size / 1e6
    figures.append(f"base image {size:.0f} MB, loaded on the first node in {time.monotonic() - began:.0f} s")
    yield cluster
    cluster.lab.down()


@pytest.fixture(scope="session")
def built(a_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, built: what the manifest names lies on the first node's engine alone."""
    return Path(shutil.copytree(PROJECT, tmp_path_factory.mktemp("built") / "torch_tiny"))


@pytest.fixture
def trainer(cluster: Cluster, phalanx: Phalanx, built: Path, place: Path) -> Trainer:
    """Runs the project's model on the cluster; builds it first when no story has."""
    return Trainer(cluster, phalanx, built, place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures:
        terminalreporter.section("figures of the training")
        for line in figures:
            terminalreporter.line(line)
