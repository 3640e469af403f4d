"""Node sets as people write and read them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.nodesets import NodesetError, counted, expand, fold, fold_numbers, natural, ranges


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node[001-003,007]", ("node001", "node002", "node003", "node007")),
        ("b,a", ("a", "b")),
        ("node[1-4]!node[2-3]", ("node1", "node4")),
        ("node[0-4/2]", ("node0", "node2", "node4")),
        ("node2,node10", ("node2", "node10")),
    ],
)
def test_a_node_set_expands_in_natural_order(text: str, names: tuple[str, ...]) -> None:
    assert expand(text) == names


@given(st.sets(st.integers(0, 300), min_size=1, max_size=40))
def test_expanding_what_was_folded_gives_the_same_nodes(members: set[int]) -> None:
    names = natural(f"gpu{number}" for number in members)
    assert expand(fold(names)) == names


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((), ""),
        (("n1",), "n1"),
        (("n1", "n2", "n3"), "n[1-3] (3)"),
        (("n1", "n1"), "n1"),
        (("a b", "c"), "a b,c (2)"),
    ],
)
def test_more_than_one_node_is_counted(names: tuple[str, ...], text: str) -> None:
    assert counted(names) == text


@pytest.mark.parametrize("text", ["node[1-", "node[a-b]", "node[3-1]"])
def test_what_cannot_be_read_is_named_with_a_right_example(text: str) -> None:
    with pytest.raises(NodesetError, match="write it like"):
        expand(text)


def test_thousands_of_irregular_names_do_not_take_seconds() -> None:
    names = [f"r{i * 7 % 13}c{i * 31 % 101}n{i}" for i in range(5000)]
    began = time.perf_counter()
    assert "and 4999 more" in fold(names)
    assert time.perf_counter() - began < 1.0


def test_ranks_fold_and_unfold() -> None:
    assert fold_numbers([6, 0, 1, 2, 9, 2]) == "0-2,6,9"
    assert ranges("0-2,6,9") == (range(0, 3), range(6, 7), range(9, 10))


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2"])
def test_ranks_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(NodesetError):
        ranges(text)


def test_long_ranges_of_ranks_take_no_room() -> None:
    (everyone,) = ranges("0-99999999999")
    assert len(everyone) == 100_000_000_000
    with pytest.raises(NodesetError, match="no number or range"):
        ranges("9" * 5000)


@pytest.mark.parametrize(
    "text",
    ["a[1-99999999]", "r[1-1000]n[1-1000]", "a[1-60000],b[1-60000]", f"a[1-{'9' * 5000}]", "n[1-99999999/2]"],
)
def test_a_set_of_more_nodes_than_a_run_may_have_is_refused_before_it_is_written_out(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(NodesetError, match="stands for more than 100000 nodes"):
        expand(text)
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    ("text", "count"), [("a[1-100000]", 100_000), ("a[0-90000/9],b", 10_002), ("r[1-9]n[1,3-5]", 36)]
)
def test_a_set_that_a_run_may_have_is_read_whole(text: str, count: int) -> None:
    assert len(expand(text)) == count
