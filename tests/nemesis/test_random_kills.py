"""Whatever is killed, and whenever: once the lease is over nothing of the run works anywhere.

``pytest tests/nemesis -s --nemesis-rounds 1000`` plays long; a failure names the seed of its round, which
``--nemesis-rounds 1 --nemesis-seed SEED`` plays again.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator

import pytest

from tests.nemesis import strikes
from tests.nemesis.rounds import SWEEP_S, Report, play
from tests.nemesis.scenes import LEASE_S, OnCluster, OnThisMachine, Scene
from tests.stories.cluster import nothing_left, until
from tests.stories.program import Phalanx

QUICK_ON_CLUSTER, QUICK_HERE = 12, 4
#: No further quick round is begun after this many seconds; long ones take what they take.
QUICK_S = 70.0


def _numbers(config: pytest.Config, quick: int) -> Iterator[int]:
    """The rounds to play: those asked for, else the quick few, for as long as they are quick."""
    asked = config.getoption("nemesis_rounds", default=None)
    until = math.inf if asked else time.monotonic() + QUICK_S
    yield from itertools.takewhile(lambda _: time.monotonic() < until, range(asked or quick))


def _early(config: pytest.Config, seed: int) -> bool:
    """Every fourth long round strikes while the run begins, and takes its time."""
    return config.getoption("nemesis_rounds", default=None) is not None and seed % 4 == 0


def _tell(report: Report) -> None:
    if report.outcomes:
        print(report.outcomes[-1].words(), flush=True)


def _last_run_leaves_nothing(scene: Scene, phalanx: Phalanx) -> None:
    """A run that nobody disturbs finds everything in order and clears up after the others."""
    scene.age()
    run = scene.start(phalanx, "true")
    run.ends(0)
    until(lambda: not scene.strange(run), SWEEP_S, f"swept by the janitors: {scene.strange(run)}")
    assert not scene.alive()


@pytest.mark.lab
@pytest.mark.timeout(0)
def test_nothing_works_on_after_a_lease_whatever_was_killed(
    cluster: OnCluster, on_cluster: Phalanx, seed: int, pytestconfig: pytest.Config
) -> None:
    report = Report()
    for number in _numbers(pytestconfig, QUICK_ON_CLUSTER):
        strike = strikes.on_a_cluster(
            seed + number, cluster.nodes, LEASE_S, _early(pytestconfig, seed + number)
        )
        report.outcomes.append(play(cluster, on_cluster, strike))
        _tell(report)
    _last_run_leaves_nothing(cluster, on_cluster)
    nothing_left(cluster.cluster)
    print(report.words())


@pytest.mark.local
@pytest.mark.timeout(0)
def test_nothing_works_on_after_a_lease_without_an_engine_too(
    machine: OnThisMachine, on_machine: Phalanx, seed: int, pytestconfig: pytest.Config
) -> None:
    report = Report()
    for number in _numbers(pytestconfig, QUICK_HERE):
        strike = strikes.on_this_machine(seed + number, machine.nodes)
        report.outcomes.append(play(machine, on_machine, strike))
        _tell(report)
    _last_run_leaves_nothing(machine, on_machine)
    print(report.words())
