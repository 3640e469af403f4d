"""Who is slow: found soon wherever it sits, and nobody who only waits for it.

The nodes are simulated in small steps: each takes from its parent what that has, at the speed of both links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.images.pace import Pace
from phalanx.controller.images.planner import CONTROLLER, Candidate, Links, make_plan

MIB = 1 << 20
RATE = 25e6
TOTAL = 256 * MIB
STEP_S = 0.01
REPORT_S = 0.5
#: Bytes of a chunk: a node has what is whole.
CHUNK = MIB

NAMES = [f"n{index}" for index in range(8)]


def chain(names: list[str]) -> dict[str, str]:
    return dict(zip(names, [CONTROLLER, *names], strict=False))


@dataclass
class Transfer:
    """Nodes of given rates. ``late``: seconds by which the reports of a node come later than due."""

    parents: dict[str, str]
    rates: Mapping[str, float]
    late: Mapping[str, float] = field(default_factory=dict)
    source_rate: float = RATE
    totals: dict[str, int] = field(default_factory=dict)
    expected: float = 0.0

    def __post_init__(self) -> None:
        self.now = 0.0
        self.totals = self.totals or dict.fromkeys(self.parents, TOTAL)
        self.have = {name: TOTAL - total for name, total in self.totals.items()}
        self.pace = Pace(self.totals, CHUNK, expected=self.expected)
        self.reports = 0

    def until(self, end: float) -> frozenset[str]:
        """Play until ``end``; who is slow by then."""
        found: frozenset[str] = frozenset()
        while self.now < end - 1e-9:
            self._step()
            for name, had in self.have.items():
                if self._due(self.now - self.late.get(name, 0.0)):
                    self.pace.observe(name, self.now, had // CHUNK * CHUNK - TOTAL + self.totals[name])
            found = self.pace.slow(self.parents, self.now)
        return found

    def _due(self, time: float) -> bool:
        return time > 0 and round(time / STEP_S) % round(REPORT_S / STEP_S) == 0

    def _step(self) -> None:
        self.now = round(self.now + STEP_S, 6)
        whole = {name: had // CHUNK * CHUNK for name, had in self.have.items()}
        for name, parent in self.parents.items():
            given = TOTAL if parent == CONTROLLER else whole[parent]
            readers = sum(other == parent for other in self.parents.values())
            sends = self.source_rate if parent == CONTROLLER else self.rates[parent]
            rate = min(self.rates[name], sends / readers)
            self.have[name] = max(self.have[name], min(given, self.have[name] + int(rate * STEP_S)))


def one_slow(names: list[str], slow: str) -> dict[str, float]:
    return {name: RATE / 10 if name == slow else RATE for name in names}


@pytest.mark.parametrize("slow", NAMES[1:])
def test_a_node_with_a_tenth_of_the_rate_is_found_within_a_second_and_a_half(slow: str) -> None:
    transfer = Transfer(chain(NAMES), one_slow(NAMES, slow))
    assert transfer.until(1.6) == {slow}
    assert transfer.until(6.0) == {slow}, "and nobody behind it, later either"


@pytest.mark.parametrize("slow", NAMES[1:])
def test_nobody_is_blamed_when_those_behind_a_slow_node_get_another_parent(slow: str) -> None:
    transfer = Transfer(chain(NAMES), one_slow(NAMES, slow))
    transfer.until(1.6)
    others = [name for name in NAMES if name != slow]
    transfer.parents = {**chain(others), slow: others[-1]}
    assert transfer.until(11.0) == {slow}
    done = [name for name in others if transfer.have[name] == TOTAL]
    assert len(done) < 7, "they caught up from where they were"
    assert transfer.until(14.0) == {slow}
    assert all(transfer.have[name] == TOTAL for name in others)


@pytest.mark.parametrize("share", [1.0, 0.1, 0.01])
def test_nobody_is_slow_when_all_are_equally_slow(share: float) -> None:
    transfer = Transfer(chain(NAMES), dict.fromkeys(NAMES, RATE * share))
    for second in range(1, 10):
        assert not transfer.until(second)


def test_nobody_is_slow_when_the_source_is() -> None:
    transfer = Transfer(chain(NAMES), dict.fromkeys(NAMES, RATE), source_rate=RATE / 10)
    assert not transfer.until(6.0)


@given(late=st.lists(st.integers(0, 20), min_size=8, max_size=8), slow=st.integers(1, 7))
def test_reports_that_come_late_blame_nobody(late: list[int], slow: int) -> None:
    late_by = {name: steps * STEP_S for name, steps in zip(NAMES, late, strict=True)}
    equal = Transfer(chain(NAMES), dict.fromkeys(NAMES, RATE), late_by)
    assert not equal.until(3.0)
    one = Transfer(chain(NAMES), one_slow(NAMES, NAMES[slow]), late_by)
    assert one.until(2.2) == {NAMES[slow]}


def test_a_node_that_falls_silent_is_found_too() -> None:
    transfer = Transfer(chain(NAMES), dict.fromkeys(NAMES, RATE))
    transfer.until(2.0)
    transfer.rates = {**transfer.rates, "n3": 0.0}
    transfer.late = {"n3": 1e9}
    assert transfer.until(4.6) == {"n3"}


def test_a_node_that_lacks_only_the_last_layers_is_not_slow_while_it_waits_for_them() -> None:
    totals = {name: TOTAL if index < 4 else TOTAL // 8 for index, name in enumerate(NAMES)}
    transfer = Transfer(chain(NAMES), dict.fromkeys(NAMES, RATE), totals=totals)
    assert not transfer.until(9.0)


def test_a_slow_node_is_found_although_its_parent_is_done() -> None:
    transfer = Transfer(chain(NAMES[:3]), dict.fromkeys(NAMES[:3], RATE))
    transfer.until(10.0)
    transfer.rates = {**transfer.rates, "n2": RATE / 10}
    assert transfer.until(13.0) == {"n2"}
    assert transfer.have["n1"] == TOTAL


def test_two_who_share_one_parent_are_not_slow_for_it() -> None:
    parents = {"n0": CONTROLLER, "n1": "n0", "n2": "n0", "n3": "n1"}
    transfer = Transfer(parents, dict.fromkeys(parents, RATE))
    assert not transfer.until(6.0)


def test_never_more_than_half_are_slow() -> None:
    transfer = Transfer(
        {"n0": CONTROLLER, "n1": "n0", "n2": "n0", "n3": "n0"},
        {"n0": RATE} | dict.fromkeys(NAMES[1:4], RATE / 20),
    )
    assert len(transfer.until(6.0)) == 2


def replanned(transfer: Transfer, names: list[str], slow: str) -> None:
    nodes = [Candidate(name, 0, slow=name == slow) for name in names]
    plan = make_plan([TOTAL], nodes, CONTROLLER, Links(RATE, RATE))
    transfer.parents = {name: route.parents[0][0] for name, route in plan.routes.items()}


def test_a_slow_first_node_is_found_by_letting_another_take_its_place() -> None:
    transfer = Transfer(chain(NAMES), one_slow(NAMES, "n0"), expected=RATE)
    assert transfer.until(2.6) == {"n0"}
    replanned(transfer, NAMES, "n0")
    assert transfer.until(5.0) == {"n0"}
    assert transfer.until(13.5) == {"n0"}
    assert all(transfer.have[name] == TOTAL for name in NAMES[1:])


@pytest.mark.parametrize("begins", [1.0, 1.3, 2.0, 2.7])
def test_a_first_node_that_gets_nothing_for_a_second_is_not_tried(begins: float) -> None:
    transfer = Transfer(chain(NAMES), dict.fromkeys(NAMES, RATE), expected=RATE)
    assert not transfer.until(begins)
    transfer.source_rate = 0.0
    assert not transfer.until(begins + 1.0)
    transfer.source_rate = RATE
    assert not transfer.until(begins + 4.0)
    transfer.source_rate = 0.0
    assert transfer.until(begins + 7.0) == {"n0"}, "three seconds are another matter"


def test_a_slow_source_is_told_by_one_trial_and_nobody_is_blamed_for_it() -> None:
    transfer = Transfer(chain(NAMES), dict.fromkeys(NAMES, RATE), source_rate=RATE / 5, expected=RATE)
    blamed = []
    now = 0.0
    while now < 20.0:
        now += REPORT_S
        slow = sorted(transfer.until(now))
        blamed += [name for name in slow if not blamed or blamed[-1] != name]
        replanned(transfer, NAMES, slow[0] if slow else "")
    assert not transfer.pace.slow(transfer.parents, now)
    assert blamed == ["n0"]


def test_a_trial_waits_for_who_takes_the_place_and_no_other_first_node_ends_it() -> None:
    pace = Pace(dict.fromkeys("abc", 1000 * MIB), MIB, fanout=2, expected=RATE)
    before = {"a": (CONTROLLER, "b"), "b": ("a", CONTROLLER), "c": ("a", "b")}
    after = {"a": ("c", "c"), "b": ("c", CONTROLLER), "c": (CONTROLLER, "b")}

    def report(half: int, parents: dict[str, tuple[str, ...]]) -> frozenset[str]:
        for name in "abc":
            fast = max(0, half - 7) if name == "c" else 0
            pace.observe(name, half * REPORT_S, (half + fast * 20) * MIB)
        return pace.slow(parents, half * REPORT_S)

    assert [report(half, before) for half in range(1, 7)][-1] == {"a"}
    assert report(7, before) == {"a"}, "b has the same pace, and was there before"
    assert [report(half, after) for half in range(8, 12)][-1] == {"a"}, "c is faster in its place"


def test_who_takes_the_place_and_gets_far_less_is_the_slow_one() -> None:
    pace = Pace(dict.fromkeys("abc", 1000 * MIB), MIB, expected=RATE)
    for tick in range(8):
        pace.observe("a", tick / 2, int(tick / 2 * RATE * 0.4))
        found = pace.slow({"a": "", "b": "a", "c": "b"}, tick / 2)
    assert found == {"a"}
    for tick in range(8, 18):
        pace.observe("b", tick / 2, int((tick - 8) / 2 * RATE * 0.1))
        found = pace.slow({"b": "", "c": "b", "a": "c"}, tick / 2)
    assert found == {"b"}


def test_without_an_expectation_a_slow_first_node_is_nobodys_fault() -> None:
    transfer = Transfer(chain(NAMES), one_slow(NAMES, "n0"))
    assert not transfer.until(6.0)


def test_who_reads_two_stripes_is_slow_only_when_behind_both_parents() -> None:
    pace = Pace(dict.fromkeys("abc", 1000 * MIB), MIB, fanout=2)
    for half in range(1, 8):
        now = half * REPORT_S
        pace.observe("a", now, half * 50 * MIB)
        pace.observe("b", now, half * 4 * MIB)
        pace.observe("c", now, half * 4 * MIB)
    assert pace.slow({"a": CONTROLLER, "c": ("a", "b")}, 3.5) == frozenset()
    assert pace.slow({"a": CONTROLLER, "b": ("a", CONTROLLER), "c": ("a", "b")}, 3.5) == {"b"}
