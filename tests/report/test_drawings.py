"""What is drawn: histories, axes of time, bars."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.report.drawing import axis, line, shares
from phalanx.controller.report.rendering import signed, tone, value
from phalanx.controller.report.trend import MOST_VALUES, trends

from .making import row

NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.none() | NUMBER, max_size=70))
def test_every_line_stays_inside_its_drawing(values: list[float | None]) -> None:
    drawn = line(values)
    places = [float(number) for number in re.findall(r"-?[\d.]+(?:e[+-]?\d+)?", drawn.points)]
    assert len(places) == 2 * sum(1 for found in values if found is not None)
    assert all(0 <= x <= drawn.width for x in [*places[::2], *drawn.gaps])
    assert all(0 <= y <= drawn.height for y in places[1::2])


def test_a_line_goes_from_the_lowest_at_the_bottom_to_the_highest_at_the_top() -> None:
    drawn = line([1.0, None, 3.0], width=106, height=26)
    assert (drawn.points, drawn.gaps, drawn.last) == ("3,23 103,3", (53.0,), (103.0, 3.0))
    assert line([1.0, None]).last is None


def test_bars_are_shares_of_the_largest() -> None:
    assert shares([2.0, None, -4.0]) == (0.5, None, 1.0)
    assert shares([0.0, 0.0]) == (0.0, 0.0)


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_an_axis_has_few_marks_and_all_of_them_on_it(seconds: float) -> None:
    marks = axis(seconds, 1000.0)
    assert 1 <= len(marks) <= 12
    assert all(0 <= mark.x <= 1000 for mark in marks)
    assert len({mark.words for mark in marks}) == len(marks)


def test_an_axis_counts_in_what_people_count_in() -> None:
    assert [mark.words for mark in axis(120, 1000)] == [
        "0",
        "20 s",
        "40 s",
        "1 m 00 s",
        "1 m 20 s",
        "1 m 40 s",
        "2 m 00 s",
    ]
    assert [mark.words for mark in axis(0.45, 1000)] == ["0", "0.1 s", "0.2 s", "0.3 s", "0.4 s"]


def test_a_history_has_gaps_where_the_model_failed() -> None:
    (one,) = trends([row("a", "1", "x"), row("a"), row("a", "4", "x")])
    assert (one.values, one.latest, one.status, one.rows) == ((1.0, None, 4.0), "4", "SUCCESS", 3)
    assert one.change == pytest.approx(300.0)


def test_a_history_that_ends_with_a_failure_has_no_change_and_says_so() -> None:
    (one,) = trends([row("a", "1", "x"), row("a")])
    assert (one.values, one.latest, one.status, one.change) == ((1.0, None), "", "FAILURE", None)


def test_metrics_and_models_have_histories_of_their_own() -> None:
    found = trends([row("a", "1", "x"), row("b", "2", "x"), row("a", "3", "y"), row("a", "2", "x"), row("c")])
    assert [(one.model, one.metric, one.values) for one in found] == [
        ("a", "x", (1.0, 2.0)),
        ("a", "y", (3.0,)),
        ("b", "x", (2.0,)),
        ("c", "", (None,)),
    ]


def test_a_model_that_failed_is_a_gap_in_the_histories_of_its_results() -> None:
    found = trends([row("bert_a", "1", "x"), row("berta", "1", "x"), row("bert"), row("bert_a", "2", "x")])
    assert {one.model: one.values for one in found} == {
        "bert_a": (1.0, None, 2.0),
        "berta": (1.0,),
        "bert": (None,),
    }


def test_a_model_that_failed_first_has_no_history_without_a_metric_beside_the_others() -> None:
    found = trends([row("a"), row("a", "1", "x")])
    assert [(one.metric, one.values) for one in found] == [("x", (1.0,))]


def test_a_long_history_keeps_its_latest_values_and_counts_all() -> None:
    (one,) = trends(row("a", str(n), "x") for n in range(1, 500))
    assert len(one.values) == MOST_VALUES
    assert (one.values[-1], one.rows) == (499.0, 499)


@pytest.mark.parametrize(
    ("percent", "words"),
    [(None, ""), (0.0, "±0 %"), (0.04, "±0 %"), (3.21, "+3.2 %"), (-3.25, "−3.2 %"), (1234.5, "+1 234 %")],
)
def test_a_change_is_written_with_its_sign(percent: float | None, words: str) -> None:
    assert signed(percent) == words


def test_a_number_of_a_range_has_about_five_digits() -> None:
    assert [value(found) for found in (None, 12.0, 123456.0, 0.000012345)] == [
        "",
        "12",
        "123456",
        "1.2345e-05",
    ]


def test_a_status_that_is_not_known_is_neither_good_nor_bad() -> None:
    assert [tone(word) for word in ("SUCCESS", "failed", "Not run", "<script>", "")] == [
        "good",
        "bad",
        "warn",
        "plain",
        "plain",
    ]
