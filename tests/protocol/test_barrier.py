"""Barriers against a model made of sets: whatever the order of arrivals, repeats and departures."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from phalanx.protocol import barrier as module
from phalanx.protocol.barrier import BarrierBook, Failed, Outcome, Released, from_ranges, to_ranges

NAMES = st.sampled_from(["start", "end"])
GENERATIONS = st.integers(0, 2)
MEMBERS = st.integers(0, 5)


@dataclass
class Generation:
    """What the model knows of one (name, generation)."""

    expected: int
    arrived: set[int] = field(default_factory=set)
    outcome: Outcome | None = None


class Barriers(RuleBasedStateMachine):
    """Every answer is compared with what sets of identities say it must be."""

    @initialize(size=st.integers(1, 5))
    def open_the_book(self, size: int) -> None:
        self.members = set(range(size))
        self.book = BarrierBook(range(size))
        self.gone: set[int] = set()
        self.known: dict[tuple[str, int], Generation] = {}

    @rule(name=NAMES, generation=GENERATIONS, member=MEMBERS, partial=st.integers(0, 6))
    def a_member_arrives(self, name: str, generation: int, member: int, partial: int) -> None:
        key = (name, generation)
        outcome = self.book.enter(name, generation, member, partial)
        if member not in self.members:
            assert outcome is not None
            assert isinstance(outcome, Failed)
            assert outcome.waiting == (member,)
            return
        known = self.known.setdefault(key, Generation(partial or len(self.members)))
        if known.outcome is not None:
            self.same_answer_again(known.outcome, outcome, member)
            return
        known.arrived.add(member)
        if outcome is not None:
            self.decided(key, known, outcome)

    def same_answer_again(self, before: Outcome, now: Outcome | None, member: int) -> None:
        if isinstance(before, Released) and member in before.members:
            assert now == before
            return
        assert isinstance(now, Failed)
        assert now.waiting == (member,)
        if isinstance(before, Failed):
            assert now.reason == before.reason

    def decided(self, key: tuple[str, int], known: Generation, outcome: Outcome) -> None:
        assert (outcome.name, outcome.generation) == key
        known.outcome = outcome
        if isinstance(outcome, Released):
            assert set(outcome.members) == known.arrived
            assert len(outcome.members) == known.expected
            assert not self.gone & known.arrived, "released with a member that had left"
            assert list(outcome.members) == sorted(outcome.members)
        else:
            assert set(outcome.waiting) == known.arrived, "everyone that waits must be told"
            assert outcome.reason

    @rule(member=MEMBERS, reason=st.sampled_from(["node lost", "exit 7"]))
    def a_member_leaves(self, member: int, reason: str) -> None:
        first = member in self.members and member not in self.gone
        failures = self.book.leave(member, reason)
        if not first:
            assert failures == []
            return
        self.gone.add(member)
        for failed in failures:
            known = self.known[failed.name, failed.generation]
            assert known.outcome is None
            assert any(f"rank {gone} left" in failed.reason for gone in self.gone)
            self.decided((failed.name, failed.generation), known, failed)

    @invariant()
    def nobody_waits_for_what_can_never_be(self) -> None:
        for key, known in getattr(self, "known", {}).items():
            if known.outcome is None:
                able = known.arrived | (self.members - self.gone)
                assert len(known.arrived) < known.expected <= len(able), f"{key} would wait for ever"
                assert not known.arrived & self.gone, f"{key} waits with a member that left"

    @invariant()
    def the_book_shows_who_is_missing(self) -> None:
        known = getattr(self, "known", {})
        waiting = {key for key, one in known.items() if one.outcome is None}
        if known:
            assert set(self.book.waiting()) == waiting
        for key in waiting:
            assert set(self.book.missing(*key)) == self.members - known[key].arrived


TestBarriers = Barriers.TestCase


def test_the_same_member_twice_counts_once() -> None:
    book = BarrierBook(range(2))
    assert book.enter("b", 0, 1) is None
    assert book.enter("b", 0, 1) is None
    assert book.enter("b", 0, 0) == Released("b", 0, (0, 1))


def test_generations_do_not_touch_each_other() -> None:
    book = BarrierBook(range(2))
    assert book.enter("b", 0, 0) is None
    assert book.enter("b", 1, 1) is None
    assert book.enter("b", 1, 0) == Released("b", 1, (0, 1))
    assert book.waiting() == [("b", 0)]


def test_a_member_that_left_is_named_to_all_who_wait_and_to_all_who_come_later() -> None:
    book = BarrierBook(range(3))
    book.enter("b", 0, 0)
    (failed,) = book.leave(2, "node n3 lost")
    assert failed.waiting == (0,)
    assert "rank 2 left: node n3 lost" in failed.reason
    later = book.enter("b", 0, 1)
    assert isinstance(later, Failed)
    assert later.reason == failed.reason
    assert isinstance(book.enter("other", 0, 1), Failed)


def test_members_that_disagree_on_how_many_they_are_all_fail_with_both_numbers() -> None:
    book = BarrierBook(range(4))
    book.enter("b", 0, 0, 2)
    failed = book.enter("b", 0, 1, 3)
    assert isinstance(failed, Failed)
    assert failed.waiting == (0, 1)
    assert "3" in failed.reason
    assert "2" in failed.reason


def test_a_barrier_of_more_members_than_there_are_fails_at_once() -> None:
    failed = BarrierBook(range(2)).enter("b", 0, 0, 3)
    assert isinstance(failed, Failed)
    assert "3" in failed.reason


def test_names_made_up_by_a_workload_cannot_fill_the_memory() -> None:
    book = BarrierBook(range(2))
    for number in range(module.MOST_OPEN):
        assert book.enter(f"name-{number}", 0, 0) is None
    assert isinstance(book.enter("one more", 0, 0), Failed)
    assert len(book.waiting()) == module.MOST_OPEN


def test_outcomes_of_long_loops_are_forgotten_from_the_oldest_on() -> None:
    book = BarrierBook([0])
    for generation in range(module.REMEMBERED + 10):
        assert book.enter("step", generation, 0) == Released("step", generation, (0,))
    assert len(book._over) == module.REMEMBERED


@given(st.sets(st.integers(0, 2000)))
def test_ranges_hold_the_same_members(members: set[int]) -> None:
    ranges = to_ranges(sorted(members))
    assert from_ranges(ranges) == sorted(members)
    assert all(low <= high for low, high in ranges)


def test_a_thousand_members_are_one_range() -> None:
    assert to_ranges(range(1000)) == ((0, 999),)
