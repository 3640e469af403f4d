"""Plans played chunk by chunk: they take what they say they take, and a bad node costs the others little."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from phalanx.controller.images.planner import Links

from benchmarks.image_plan import REPLAN_S, Case, Setting, dying, healthy, row, slow
from benchmarks.image_simulation import Fleet

ROOT = Path(__file__).parent.parent.parent
#: A lab's image and link, and a cluster's.
LAB = Setting(256 << 20, Links(25e6, 750e6))
EVEN = Setting(3_000_000_000, Links(3.125e9, 3.125e9), notice_s=0.2, detect_s=0.3)
FAST_UPLINK = Setting(3_000_000_000, Links(3.125e9, 0.9e9))
SETTINGS = {"lab": LAB, "even": EVEN, "fast uplink": FAST_UPLINK}

settings = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
sizes = pytest.mark.parametrize("nodes", [1, 2, 4, 8, 9, 33, 300])


@settings
@sizes
def test_a_plan_takes_the_time_it_predicts(setting: Setting, nodes: int) -> None:
    case = Case(setting, nodes)
    assert healthy(case) == pytest.approx(case.first.predicted_s, rel=0.03)


@settings
@sizes
def test_each_node_is_fed_and_has_its_last_byte_when_the_plan_says(setting: Setting, nodes: int) -> None:
    case = Case(setting, nodes)
    fleet = case.fleet(case.first)
    fleet.run()
    for name, finished in zip(case.names, fleet.finished(case.names), strict=True):
        assert finished < inf
        assert finished == pytest.approx(case.first.routes[name].finish_s, rel=0.03)


@settings
def test_the_time_hardly_depends_on_the_number_of_nodes(setting: Setting) -> None:
    floor = setting.size / setting.links.rate
    assert healthy(Case(setting, 8)) < 1.05 * floor
    assert healthy(Case(setting, 10_000)) < 1.2 * floor


@settings
@pytest.mark.parametrize("nodes", [2, 8, 20])
def test_a_node_that_dies_anywhere_delays_the_others_by_little_more_than_its_detection(
    setting: Setting, nodes: int
) -> None:
    case = Case(setting, nodes)
    well = healthy(case)
    chunk_s = case.first.chunk_bytes / setting.links.rate
    for victim in case.names:
        found = dying(case, victim)
        # A chunk that was under way is lost, and a place in the tree may be some hops deeper than it was.
        assert found["replanned_s"] < well + setting.detect_s + REPLAN_S + 12 * (
            chunk_s + setting.links.hop_s
        )
        assert found["lists_s"] < 1.6 * well + setting.detect_s


def test_a_chain_goes_on_at_the_last_verified_chunk() -> None:
    case = Case(LAB, 8)
    for victim in case.names:
        found = dying(case, victim)
        delay = found["lists_s"] - healthy(case)
        behind = victim != case.names[-1]
        chunk_s = case.first.chunk_bytes / LAB.links.rate
        assert delay < (LAB.detect_s + chunk_s if behind else 0.001)


@settings
@pytest.mark.parametrize("nodes", [2, 8, 20])
def test_a_slow_node_that_is_known_delays_nobody_and_one_that_is_noticed_little(
    setting: Setting, nodes: int
) -> None:
    case = Case(setting, nodes)
    well = healthy(case)
    for victim in case.names:
        found = slow(case, victim)
        assert found["known_s"] < 1.12 * well
        assert found["noticed_s"] < 1.12 * well + setting.notice_s
        assert found["itself_s"] < inf
    assert max(slow(case, victim)["unnoticed_s"] for victim in case.names) > 5 * well or nodes == 2


def test_a_node_that_dies_never_finishes_and_the_rest_do() -> None:
    case = Case(EVEN, 30)
    fleet = case.fleet(case.first)
    fleet.run(0.5)
    fleet.die("n00007")
    fleet.run(0.8)
    fleet.move_on()
    fleet.run()
    times = dict(zip(case.names, fleet.finished(case.names), strict=True))
    assert [name for name, finished in times.items() if finished == inf] == ["n00007"]


def test_a_cut_in_time_changes_nothing() -> None:
    case = Case(LAB, 9)
    whole, cut = case.fleet(case.first), case.fleet(case.first)
    whole.run()
    for time in (0.01, 1.0, 1.1, 5.55, 9.0):
        cut.run(time)
    cut.run()
    assert cut.finished(case.names) == pytest.approx(whole.finished(case.names))


def test_readers_of_one_parent_share_its_uplink() -> None:
    """A chain whose second node reads from the source too: both get half."""
    case = Case(replace(LAB, links=Links(25e6, 25e6)), 2)
    first = case.first
    both = {name: replace(route, parents=(("",),)) for name, route in first.routes.items()}
    fleet = Fleet(LAB.size, LAB.links, replace(first, routes=both))
    fleet.run()
    assert fleet.finished(case.names) == pytest.approx([2 * LAB.size / 25e6] * 2, rel=0.01)


def test_a_row_says_what_a_registry_would_take() -> None:
    found = row(Case(EVEN, 16))
    assert found["shape"] == "two-tree"
    assert found["registry_s"] == pytest.approx(16 * found["floor_s"], rel=0.01)
    assert found["source_bytes"] == EVEN.size
    assert found["most_readers"] <= 2


@pytest.mark.local
def test_the_program_prints_the_same_document_each_time() -> None:
    command = [sys.executable, "benchmarks/image_plan.py", "--nodes", "8", "40", "--size", "1", "--json"]
    printed = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120.0, check=True).stdout
        for _ in range(2)
    ]
    assert printed[0] == printed[1]
    tables = json.loads(printed[0])["tables"]
    assert [one["nodes"] for table in tables for one in table["rows"]] == [8, 40, 8, 40]
