"""A table laid out for people."""

from __future__ import annotations

from phalanx.controller.report.grid import grid
from phalanx.controller.results.summary import Summary, of_records

from .making import row


def test_what_is_the_same_everywhere_is_said_once_and_what_is_empty_is_named() -> None:
    found = grid(
        of_records([row("a", "1", "x", args="--x", git_commit="abc"), row("b", "2", "x", git_commit="abc")])
    )
    assert found.columns == ("model", "status", "performance", "metric", "args")
    assert found.same == (("git_commit", "abc"),)
    assert "pipeline" in found.empty
    assert "git_commit" not in found.empty


def test_what_people_look_for_comes_first_whatever_the_order_of_the_file() -> None:
    found = grid(
        Summary(
            ("zeta", "status", "model", "metric", "x"), (("1", "A", "m", "t", "1"), ("2", "B", "n", "u", "2"))
        )
    )
    assert found.columns == ("model", "status", "metric", "zeta", "x")
    assert found.rows[0] == ("m", "A", "t", "1", "1")


def test_a_column_is_numeric_when_all_that_is_there_is_numbers() -> None:
    found = grid(Summary(("a", "b", "c"), (("1", "1", ""), ("", "x", "-2.5"))))
    assert found.numeric == (True, False, True)


def test_a_small_table_of_another_kind_keeps_all_its_columns() -> None:
    assert grid(Summary(("a", "b"), (("1", "2"),))).columns == ("a", "b")


def test_the_latest_rows_are_kept_with_their_places_and_the_others_counted() -> None:
    found = grid(Summary(("n",), tuple((str(n),) for n in range(1, 11))), most=3)
    assert (found.rows, found.places, found.left_out) == ((("8",), ("9",), ("10",)), (8, 9, 10), 7)


def test_columns_beyond_what_fits_are_named() -> None:
    found = grid(Summary(tuple("abcd"), (tuple("1234"), tuple("5678"))), most_columns=2)
    assert (found.columns, found.more_columns) == (("a", "b"), ("c", "d"))


def test_statuses_are_counted() -> None:
    rows = [row("a", "1", "x"), row("b"), row("c", "1", "x")]
    assert grid(of_records(rows)).statuses == (("SUCCESS", 2), ("FAILURE", 1))


def test_a_table_without_rows_has_no_rows() -> None:
    assert grid(Summary(("model",), ())).rows == ()
