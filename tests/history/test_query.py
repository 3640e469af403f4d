"""What the history is asked: newest first, against the value before of the same kind, and about nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results.history import History, NodeEntry, opened
from phalanx.controller.results.history_query import (
    Filter,
    UnclearName,
    failed_first,
    named,
    parts,
    results,
    trends,
)
from phalanx.controller.results.sparkline import sparkline

from .entries import DAY_S, START, row, run


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with opened(tmp_path / "history.db") as history:
        yield history


def add(history: History, number: int, value: float | None, **columns: str) -> None:
    """A run of one row, a day after the run before it."""
    at = START + number * DAY_S
    history.add(run(number, row(value, at=at, **columns), at=at))


def test_results_stand_newest_first_with_their_change_against_the_value_before(history: History) -> None:
    for number, value in enumerate((100.0, 110.0, 99.0)):
        add(history, number, value)
    found = results(history, Filter(), 10)
    assert [(one.value, one.before) for one in found] == [(99.0, 110.0), (110.0, 100.0), (100.0, None)]
    assert [one.change for one in found] == [pytest.approx(-0.1), pytest.approx(0.1), None]
    assert [one.value for one in results(history, Filter(), 2)] == [99.0, 110.0]


@pytest.mark.parametrize(
    "other", [{"model": "n"}, {"metric": "s"}, {"nnodes": "4"}, {"n_gpus": "8"}, {"launcher": "deepspeed"}]
)
def test_a_value_of_another_kind_is_no_value_before(history: History, other: dict[str, str]) -> None:
    add(history, 0, 100.0, **other)
    add(history, 1, 110.0)
    assert results(history, Filter(), 1)[0].before is None


def test_failures_are_listed_and_are_no_value_before(history: History) -> None:
    add(history, 0, 100.0)
    add(history, 1, None)
    add(history, 2, 50.0, status="FAILURE")
    add(history, 3, 90.0)
    assert [one.before for one in results(history, Filter(), 10)] == [100.0, 100.0, None, None]
    assert [one.status for one in results(history, Filter(status="FAILURE"), 10)] == ["FAILURE"] * 2


def test_a_value_before_that_was_nothing_makes_no_change_in_per_cent(history: History) -> None:
    add(history, 0, 0.0)
    add(history, 1, 5.0)
    add(history, 2, 1e308)
    add(history, 3, -1e308)
    assert [one.change for one in results(history, Filter(), 10)] == [None, pytest.approx(2e307), None, None]


def test_filters_narrow_the_list(history: History) -> None:
    add(history, 0, 1.0, model="llama70b")
    add(history, 1, 2.0, model="llama[8b]")
    add(history, 2, 3.0, model="mixtral", metric="s")

    def values(**wanted: str | float) -> list[float | None]:
        return [one.value for one in results(history, Filter(**wanted), 10)]  # type: ignore[arg-type]

    assert values(model="llama70b") == [1.0]
    assert values(model="llama*") == [2.0, 1.0]
    assert values(model="llama[8b]") == [2.0]
    assert values(model="llama[8?]") == [2.0]
    assert values(metric="s") == [3.0]
    assert values(since=START + DAY_S) == [3.0, 2.0]
    assert values(model="'; DROP TABLE runs; --") == []


def test_trends_have_one_line_for_each_kind_the_newest_first(history: History) -> None:
    for number in range(25):
        add(history, number, float(number))
    add(history, 30, 7.0, model="n")
    add(history, 31, None)
    first, second = trends(history, Filter(), 10)
    assert (first.model, first.count, first.values) == ("n", 1, (7.0,))
    assert (second.model, second.count, second.values) == ("m", 25, tuple(map(float, range(5, 25))))


def test_a_node_shows_the_runs_it_had_and_where_it_failed_first(history: History) -> None:
    for number in range(6):
        bad = number % 2 == 1
        nodes = (NodeEntry("n87", bad, "rank 691 exit 137" if bad else ""), NodeEntry("n88"))
        history.add(run(number, row(1.0), at=START + number * DAY_S, nodes=nodes))
    history.add(run(9, row(1.0), at=START + 9 * DAY_S, nodes=(NodeEntry("n88"),)))
    found = parts(history, Filter(node="n87"), 5)
    assert failed_first(found) == 3
    assert [one.failed_first for one in found] == [True, False, True, False, True]
    assert (found[0].why, found[0].state, found[0].models) == ("rank 691 exit 137", "failed", ("m",))
    assert len(parts(history, Filter(node="n87", since=START + 3 * DAY_S), 10)) == 3
    assert parts(history, Filter(node="n87", model="other"), 10) == []
    assert failed_first(parts(history, Filter(node="n88"), 10)) == 0


def test_a_bare_name_is_a_model_or_a_node_and_else_the_nearest_is_told(history: History) -> None:
    history.add(run(1, row(1.0), row(1.0, model="twin"), nodes=(NodeEntry("node087"), NodeEntry("twin"))))
    assert named(history, Filter(), "m") == Filter(model="m")
    assert named(history, Filter(metric="s"), "node087") == Filter(node="node087", metric="s")
    with pytest.raises(UnclearName, match="say --model twin or --node twin"):
        named(history, Filter(), "twin")
    with pytest.raises(UnclearName, match="did you mean 'node087'"):
        named(history, Filter(), "node078")


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, max_size=30))
def test_a_sparkline_has_a_sign_for_each_value_and_the_highest_for_the_highest(values: list[float]) -> None:
    for unicode, signs in ((True, "▁▂▃▄▅▆▇█"), (False, "12345678")):
        line = sparkline(values, unicode)
        assert len(line) == len(values)
        assert set(line) <= set(signs)
        if values and min(values) / 2 < max(values) / 2:
            assert line[values.index(max(values))] == signs[-1]
            assert line[values.index(min(values))] == signs[0]
        else:
            assert len(set(line)) <= 1
