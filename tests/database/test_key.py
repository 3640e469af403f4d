"""A row is in the collection once: what is the same row, and what is another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results.database.documents import documents_of
from phalanx.controller.results.database.key import ID, Key, digests, identified, key_of
from phalanx.controller.workflow.errors import InputError

from .rows import csv_source, of, result

CONTENT = st.dictionaries(
    st.sampled_from(["model", "a", "b", "c"]),
    st.none() | st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from(["", "x", "1", "1.0", "y"]),
)


def digest(**row: str) -> str:
    return digests(documents_of(csv_source(row)).documents)[0]


def test_without_a_wish_the_whole_content_is_the_key() -> None:
    documents = of({"model": "a"}, {"model": "a", "performance": 2})
    assert key_of(documents, ()) == Key((ID,), digest=True)
    first, second = (one.identity[ID] for one in identified(documents, key_of(documents, ()), "f"))
    assert first != second
    assert len(first) == len(second) == 32


def test_rows_that_have_an_id_are_known_by_it() -> None:
    documents = of({"_id": "x", "model": "a"}, {"_id": "y", "model": "a"})
    assert key_of(documents, ()) == Key(("_id",))


def test_a_widened_file_and_rewritten_numbers_are_the_same_rows() -> None:
    assert digest(model="a", n_gpus="8", performance="1.50") == digest(
        performance="1.5", model="a", n_gpus="8.0", more="", other="nan"
    )


def test_a_column_that_gets_words_does_not_change_the_rows_before() -> None:
    before = digests(documents_of(csv_source({"model": "a", "x": "1"})).documents)
    after = digests(documents_of(csv_source({"model": "a", "x": "1"}, {"model": "a", "x": "no"})).documents)
    assert after[0] == before[0]


def test_another_number_text_or_field_is_another_row() -> None:
    base = result()
    known = {digest(**base)}
    for change in ({"performance": "14164.1"}, {"model": "bert2"}, {"status": "FAILURE"}, {"new": "1"}):
        known.add(digest(**{**base, **change}))
    assert len(known) == 5


@given(st.lists(CONTENT, max_size=6))
def test_a_file_of_n_rows_has_n_identities_and_its_beginning_keeps_them(
    contents: list[dict[str, Any]],
) -> None:
    found = digests(of(*contents))
    assert len(set(found)) == len(contents)
    for length in range(len(contents)):
        assert digests(of(*contents[:length])) == found[:length]


def test_fields_that_are_wished_are_the_key_whatever_is_beside_them() -> None:
    documents = of({"model": "a", "n": 1, "x": 1}, {"model": "a", "n": 2})
    key = key_of(documents, ("model", "n", "model"))
    assert key == Key(("model", "n"))
    assert [one.identity for one in identified(documents, key, "f")] == [
        {"model": "a", "n": 1},
        {"model": "a", "n": 2},
    ]


def test_a_wished_field_is_meant_by_its_name_in_the_file() -> None:
    documents = documents_of(csv_source({"a.b": "1"})).documents
    assert key_of(documents, ("a.b",)) == Key(("a_b",))


def test_a_field_that_no_row_has_gets_the_nearest_spelling() -> None:
    with pytest.raises(
        InputError, match=r"--unique-key modle: no row has such a field; did you mean 'model'"
    ):
        key_of(of({"model": "a"}), ("modle",))


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ([{"k": 1}, {"x": 1}, {"k": None}], "by k: row 3 has no k; row 4 has no k; add fields"),
        ([{"k": [1]}], "row 2 has a list as k, which cannot be a key"),
        ([{"k": 1}, {"k": 2}, {"k": 1.0}], "row 4 is the same as row 2"),
        ([{"k": "a"}] * 8, r"row 6 is the same as row 2; row 7 is the same as row 2, and 2 more"),
    ],
)
def test_rows_without_a_key_of_their_own_are_named(contents: list[dict[str, Any]], words: str) -> None:
    documents = of(*contents)
    with pytest.raises(InputError, match=words):
        identified(documents, key_of(documents, ("k",)), "perf.csv")


def test_true_is_not_one() -> None:
    documents = of({"k": 1}, {"k": True})
    assert len(identified(documents, key_of(documents, ("k",)), "f")) == 2
