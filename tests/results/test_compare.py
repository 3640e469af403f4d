"""Results side by side."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results.compare import Compared, Difference, StatusChange, compare, document

Row = dict[str, str]


def row(model: str, value: str = "", metric: str = "", status: str = "", **more: str) -> Row:
    status = status or ("SUCCESS" if value else "FAILURE")
    return {"model": model, "performance": value, "metric": metric, "status": status, **more}


def values(found: Compared, model: str, metric: str) -> list[float | None]:
    (one,) = [one for one in found.metrics if (one.model, one.metric) == (model, metric)]
    return list(one.numbers)


def changes(found: Compared, model: str) -> list[float | None]:
    (one,) = [one for one in found.metrics if one.model == model]
    return [None if moved is None else round(moved, 6) for moved in one.changes]


def test_a_change_is_in_percent_of_the_first() -> None:
    found = compare([[row("a", "200", "x")], [row("a", "250", "x")], [row("a", "150", "x")]])
    assert changes(found, "a") == [0.0, 25.0, -25.0]


def test_a_change_from_a_negative_value_has_the_sign_of_the_move() -> None:
    assert changes(compare([[row("a", "-2", "x")], [row("a", "-1", "x")]]), "a") == [0.0, 50.0]


def test_there_is_no_change_from_zero_from_nothing_or_of_words() -> None:
    assert changes(compare([[row("a", "0", "x")], [row("a", "5", "x")]]), "a") == [None, None]
    assert changes(compare([[row("a", "", "x")], [row("a", "5", "x")]]), "a") == [None, None]
    assert changes(compare([[row("a", "fast", "x")], [row("a", "5", "x")]]), "a") == [None, None]


def test_the_last_row_of_a_history_counts_and_how_many_there_are_is_known() -> None:
    found = compare([[row("a", "1", "x"), row("a", "2", "x")], [row("a", "4", "x")]])
    assert values(found, "a", "x") == [2.0, 4.0]
    assert [value and value.rows for value in found.metrics[0].values] == [2, 1]


def test_every_metric_of_a_model_is_compared_by_itself() -> None:
    found = compare([[row("a", "1", "x"), row("a", "9", "y")], [row("a", "8", "y")]])
    assert values(found, "a", "x") == [1.0, None]
    assert values(found, "a", "y") == [9.0, 8.0]


def test_a_failure_takes_the_place_of_the_values_before_it() -> None:
    found = compare([[row("a", "1", "x")], [row("a", "2", "x"), row("a")]])
    assert values(found, "a", "x") == [1.0, None]
    assert found.statuses == (StatusChange("a", ("SUCCESS", "FAILURE")),)


def test_a_value_after_a_failure_makes_the_model_well_again() -> None:
    found = compare([[row("a", "1", "x")], [row("a"), row("a", "2", "x")]])
    assert values(found, "a", "x") == [1.0, 2.0]
    assert found.statuses == ()


def test_a_failure_takes_the_place_of_the_values_of_all_results_of_its_model() -> None:
    good = [row(f"bert_{name}", "1", "x", tags="t") for name in "ab"]
    other = row("bert_large", "1", "x", tags="other")
    found = compare([[*good, other], [*good, other, row("bert", tags="t")]])
    assert [values(found, f"bert_{name}", "x") for name in "ab"] == [[1.0, None]] * 2
    assert values(found, "bert_large", "x") == [1.0, 1.0], "it is a card of its own"
    assert {one.model for one in found.statuses} == {"bert_a", "bert_b"}
    again = compare([good, [*good, row("bert", tags="t"), *good]])
    assert values(again, "bert_a", "x") == [1.0, 1.0]


def test_models_that_are_not_everywhere_are_named_with_where() -> None:
    found = compare([[row("a", "1", "x"), row("b", "1", "x")], [row("b", "1", "x"), row("c", "1", "x")], []])
    assert found.missing == (("a", (1, 2)), ("b", (2,)))
    assert found.added == (("c", (1,)),)


def test_what_was_run_differently_is_told_once_for_all_models_alike() -> None:
    old = [row(name, "1", "x", docker_sha="1", args="--bs 4", nnodes="8") for name in "ab"]
    new = [row(name, "1", "x", docker_sha="2", args="--bs 4", nnodes="8.0") for name in "ab"]
    assert compare([old, new]).configuration == (Difference("docker_sha", ("1", "2"), ("a", "b")),)


def test_a_setting_that_one_table_does_not_have_is_no_difference() -> None:
    found = compare([[row("a", "1", "x", git_commit="abc")], [row("a", "1", "x", git_commit="")]])
    assert found.configuration == ()


def test_a_model_that_differs_and_is_absent_elsewhere_says_nothing_there() -> None:
    found = compare(
        [[row("a", "1", "x", args="1")], [row("a", "1", "x", args="2")], [row("b", "1", "x", args="9")]]
    )
    assert found.configuration == (Difference("args", ("1", "2", ""), ("a",)),)


CELL = st.sampled_from(["", "1", "2.5", "-3", "nan", "inf", "1e308", "-1e308", "5e-324", "text"])
TABLE = st.lists(
    st.builds(
        row,
        st.sampled_from("abc"),
        CELL,
        st.sampled_from(["", "x", "y"]),
        st.sampled_from(["SUCCESS", "FAILURE", "SKIPPED", ""]),
        args=CELL,
    ),
    max_size=8,
)


@given(st.lists(TABLE, min_size=2, max_size=4))
def test_any_tables_compare_and_their_document_is_strict_json(tables: list[list[Row]]) -> None:
    found = compare(tables)
    names = {one["model"] for table in tables for one in table}
    assert found.models == len(names)
    for one in found.metrics:
        assert len(one.values) == len(one.changes) == len(tables)
        assert all(moved is None or math.isfinite(moved) for moved in one.changes)
    json.dumps(document(found), allow_nan=False)


@given(TABLE)
def test_a_table_does_not_differ_from_itself(table: list[Row]) -> None:
    found = compare([table, table])
    assert (found.statuses, found.added, found.missing, found.configuration) == ((), (), (), ())
    assert all(moved in (0.0, None) for one in found.metrics for moved in one.changes)
