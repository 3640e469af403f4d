"""Holding values against a baseline: edges, order, direction, and what is measured no more."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from phalanx.controller.results.baseline import (
    Baseline,
    Comparison,
    Identity,
    Measured,
    Verdict,
    compare,
    counted,
    exact,
    judged,
    measured,
    regressions,
)
from phalanx.controller.results.direction import Direction
from phalanx.controller.results.tolerance import in_words, tolerance, tolerances
from phalanx.controller.workflow.errors import InputError

IDENTITIES = st.builds(
    Identity,
    model=st.sampled_from(["a", "b", "c"]),
    metric=st.sampled_from(["tok/s", "ms", "loss"]),
    nnodes=st.sampled_from(["1", "2"]),
    training_precision=st.sampled_from(["", "fp8"]),
)
VALUES = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.lists(st.builds(Measured, IDENTITIES, st.one_of(st.none(), VALUES)), max_size=12)
ALLOWED = st.fractions(0, 2, max_denominator=1000)
HIGHER, LOWER = Direction.HIGHER, Direction.LOWER


def baseline(**values: float) -> Baseline:
    """A baseline of models in tok/s."""
    return Baseline("main", {Identity(model, "tok/s"): value for model, value in values.items()})


def rows(**values: float | None) -> list[Measured]:
    return [Measured(Identity(model, "tok/s"), value) for model, value in values.items()]


def verdicts(found: list[Comparison]) -> dict[str, str]:
    return {one.identity.model: one.verdict.value for one in found}


def test_every_kind_of_verdict_is_told() -> None:
    found = compare(
        baseline(same=100, better=100, worse=100, gone=100), rows(same=99, better=103, worse=97, fresh=1)
    )
    assert verdicts(found) == {
        "same": "within",
        "better": "improved",
        "worse": "regressed",
        "gone": "missing",
        "fresh": "new",
    }
    assert counted(found) == "1 within, 1 improved, 1 regressed, 1 missing, 1 new"
    assert [one.identity.model for one in regressions(found)] == ["gone", "worse"]
    assert [one.identity.model for one in regressions(found, allow_missing=True)] == ["worse"]
    assert {one.identity.model: one.change for one in found}["worse"] == -0.03


@pytest.mark.parametrize(
    ("then", "now", "direction", "verdict"),
    [
        (1861.0, 1823.78, HIGHER, "within"),
        (1861.0, 1823.779, HIGHER, "regressed"),
        (1861.0, 1898.22, HIGHER, "within"),
        (1861.0, 1898.221, HIGHER, "improved"),
        (1861.0, 1898.22, LOWER, "within"),
        (1861.0, 1898.221, LOWER, "regressed"),
        (1861.0, 1823.779, LOWER, "improved"),
        (-50.0, -51.0, HIGHER, "within"),
        (-50.0, -51.1, HIGHER, "regressed"),
        (-50.0, -51.1, LOWER, "improved"),
        (0.0, 0.0, HIGHER, "within"),
        (0.0, -1e-300, HIGHER, "regressed"),
        (0.0, 1e-300, HIGHER, "improved"),
        (0.1, 0.098, HIGHER, "within"),
        (0.3, 0.294, HIGHER, "within"),
    ],
)
def test_a_value_on_the_edge_is_within_and_one_beyond_it_is_not(
    then: float, now: float, direction: Direction, verdict: str
) -> None:
    assert judged(then, now, Fraction(2, 100), direction).value == verdict


@given(VALUES, VALUES, ALLOWED, st.sampled_from(Direction))
def test_the_verdict_is_that_of_exact_arithmetic(
    then: float, now: float, allowed: Fraction, direction: Direction
) -> None:
    low, high = exact(then) - abs(exact(then)) * allowed, exact(then) + abs(exact(then)) * allowed
    verdict = judged(then, now, allowed, direction)
    assert (verdict is Verdict.WITHIN) == (low <= exact(now) <= high)
    if verdict is not Verdict.WITHIN:
        better = now > then if direction is HIGHER else now < then
        assert (verdict is Verdict.IMPROVED) == better


@given(VALUES, VALUES, ALLOWED, ALLOWED, st.sampled_from(Direction))
def test_who_allows_more_never_stops_at_what_others_let_pass(
    then: float, now: float, one: Fraction, other: Fraction, direction: Direction
) -> None:
    assume(one <= other)
    if judged(then, now, one, direction) is not Verdict.REGRESSED:
        assert judged(then, now, other, direction) is not Verdict.REGRESSED


@given(ROWS)
def test_what_is_held_against_itself_is_within(given_rows: list[Measured]) -> None:
    values = {row.identity: row.value for row in given_rows if row.value is not None}
    own = Baseline("main", values, Fraction(0))
    found = compare(own, [Measured(one, value) for one, value in values.items()])
    assert {one.verdict for one in found} <= {Verdict.WITHIN}
    assert [one.identity for one in found] == sorted(values)
    assert regressions(found) == []


@given(ROWS, ROWS, st.randoms(use_true_random=False), st.booleans())
def test_order_makes_no_difference_and_nothing_is_lost(
    then: list[Measured], now: list[Measured], random: object, reverse: bool
) -> None:
    own = Baseline("main", {row.identity: row.value for row in then if row.value is not None})
    turned = list(now)
    random.shuffle(turned)  # type: ignore[attr-defined]
    again = Baseline("main", dict(sorted(own.values.items(), reverse=reverse)))
    found = compare(own, now)
    assert compare(again, turned) == found
    assert compare(own, now) == found
    told = [one.identity for one in found]
    assert told == sorted(set(told))
    assert set(told) == set(own.values) | {row.identity for row in now if row.value is not None}


@given(ROWS, ROWS)
def test_a_row_more_makes_no_gate_greener(then: list[Measured], now: list[Measured]) -> None:
    """The worst of several values counts: measuring again cannot hide a regression."""
    own = Baseline("main", {row.identity: row.value for row in then if row.value is not None})
    seen = {row.identity for row in now if row.value is not None}
    more = [*now, *(row for row in then if row.identity in seen)]
    before = {one.identity for one in regressions(compare(own, now))}
    assert before <= {one.identity for one in regressions(compare(own, more))}


def test_the_worst_of_several_values_counts() -> None:
    (found,) = compare(baseline(m=100), [*rows(m=100), *rows(m=90)])
    assert (found.now, found.verdict, found.note) == (90, Verdict.REGRESSED, "the worst of 2 values")


def test_tolerance_and_direction_are_those_of_the_metric() -> None:
    own = replace(
        baseline(m=100),
        tolerances={"tok/s": Fraction(10, 100)},
        directions={"tok/s": LOWER},
    )
    assert verdicts(compare(own, rows(m=110))) == {"m": "within"}
    assert verdicts(compare(own, rows(m=111))) == {"m": "regressed"}
    assert verdicts(compare(own, rows(m=89))) == {"m": "improved"}


def test_what_is_missing_says_what_there_is_instead() -> None:
    own = Baseline("main", {Identity("m", "tok/s", "2", "16"): 100.0})
    (missing, _) = compare(own, [Measured(Identity("m", "tok/s", "4", "32"), 1.0)])
    assert missing.note == "measured with nnodes 4, n_gpus 32"
    (missing,) = compare(own, [Measured(Identity("m", "", "2", "16"), None, "FAILURE")])
    assert (missing.verdict, missing.note) == (Verdict.MISSING, "FAILURE")
    (missing,) = compare(own, [])
    assert missing.note == "not run"


def test_a_row_counts_when_it_succeeded_with_a_finite_number() -> None:
    row = {
        "model": " m ",
        "metric": "tok/s",
        "nnodes": "2",
        "performance": "5.5",
        "status": "SUCCESS",
        "args": "x",
    }
    assert measured(row) == Measured(Identity("m", "tok/s", "2"), 5.5)
    assert measured({**row, "status": "FAILURE"}).value is None
    for cell in ("", "nan", "inf", "fast"):
        assert measured({**row, "performance": cell}).value is None


@given(st.decimals(0, 1000, places=4).map(lambda number: f"{number}%"))
def test_a_tolerance_reads_as_it_is_written(text: str) -> None:
    assert tolerance(in_words(tolerance(text))) == tolerance(text)


def test_tolerances_are_for_all_or_for_one_metric() -> None:
    assert tolerances(["2%", "tok/s=5%", "a=b=0.5%"]) == (
        Fraction(2, 100),
        {"tok/s": Fraction(5, 100), "a=b": Fraction(5, 1000)},
    )
    assert tolerances([]) == (None, {})
    assert in_words(tolerance("0.50 %")) == "0.5%"


@pytest.mark.parametrize(
    "text", ["2", "0.02", "-1%", "%", "1001%", "tok/s=", "=2%", "tok/s=x", "1e2%", "nan%"]
)
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot use tolerance"):
        tolerances([text])
