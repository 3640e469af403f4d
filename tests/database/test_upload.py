"""An upload as a value: names, batches, writes, indexes, and what a tally of rows means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results.database.mongo import check_sizes
from phalanx.controller.results.database.upload import (
    Index,
    Tally,
    batches,
    check_names,
    document,
    indexes,
    update,
)
from phalanx.controller.workflow.errors import InputError

from .rows import NOW, of, upload

ID_INDEX = {"name": "_id_", "key": {"_id": 1}}


def test_a_new_document_has_the_row_and_when_it_came() -> None:
    made = upload(of({"model": "a"}))
    row = made.rows[0]
    assert document(made, row) == {
        "_id": row.identity["_id"],
        "model": "a",
        "created_date": "2026-11-22 02:01:24",
        "_meta_uploaded_at": NOW,
    }


def test_a_row_s_own_date_of_creation_stays() -> None:
    made = upload(of({"created_date": "2020-01-01 00:00:00"}, {"created_date": None}))
    assert [document(made, row)["created_date"] for row in made.rows] == [
        *("2020-01-01 00:00:00", "2026-11-22 02:01:24")
    ]


def test_a_row_known_by_its_content_changes_nothing_that_is_there() -> None:
    made = upload(of({"model": "a"}))
    (operator,) = update(made, made.rows[0])
    assert operator == "$setOnInsert"


def test_without_upsert_a_row_has_no_identity() -> None:
    made = upload(of({"model": "a"}), upsert=False)
    assert "_id" not in document(made, made.rows[0])
    assert not made.keyed


@given(st.integers(1, 9), st.integers(0, 30))
def test_batches_have_every_row_once_in_order(size: int, count: int) -> None:
    made = upload(of(*({"n": number} for number in range(count))), size=size)
    parts = list(batches(made))
    assert [row for part in parts for row in part] == list(made.rows)
    assert all(len(part) == size for part in parts[:-1])
    assert all(0 < len(part) <= size for part in parts)


def test_a_key_of_fields_gets_a_unique_index_that_leaves_strangers_alone() -> None:
    made = upload(of({"model": "a", "run": "x", "status": "SUCCESS"}), "model", "run")
    unique, created, status = indexes(made, [ID_INDEX])
    assert (unique.name, unique.fields) == ("phalanx_unique_model_run", ("model", "run"))
    assert unique.options == {
        "unique": True,
        "partialFilterExpression": {"model": {"$exists": True}, "run": {"$exists": True}},
    }
    assert [created, status] == [
        Index("phalanx_created_date", ("created_date",)),
        Index("phalanx_status", ("status",)),
    ]


def test_a_digest_needs_no_index_of_its_own() -> None:
    made = upload(of({"model": "a", "pipeline": "p"}))
    assert [one.fields for one in indexes(made)] == [("model",), ("created_date",), ("pipeline",)]


def test_what_is_indexed_already_is_left_as_it_is() -> None:
    made = upload(of({"model": "a", "run": "x"}), "model", "run")
    there = [
        ID_INDEX,
        {"name": "r", "key": {"run": 1, "model": -1}, "unique": True},
        {"name": "m", "key": {"model": 1, "x": 1}},
        {"name": "c", "key": {"created_date": -1}},
    ]
    assert indexes(made, there) == []


@pytest.mark.parametrize(
    "there",
    [
        {"name": "r", "key": {"model": 1, "run": 1}},
        {"name": "r", "key": {"model": 1}, "unique": True},
        {
            "name": "r",
            "key": {"model": 1, "run": 1},
            "unique": True,
            "partialFilterExpression": {"run": {"$gt": 3}},
        },
    ],
)
def test_an_index_that_does_not_make_the_key_unique_is_not_enough(there: dict[str, object]) -> None:
    made = upload(of({"model": "a", "run": "x"}), "model", "run")
    assert [one.fields for one in indexes(made, [there]) if one.unique] == [("model", "run")]


def test_no_indexes_when_none_are_wanted() -> None:
    assert indexes(upload(of({"model": "a"}), "model", index=False)) == []


@pytest.mark.parametrize(
    ("stored", "status", "failed"),
    [((3, 1, 1), "success", 0), ((1, 0, 0), "partial", 4), ((0, 0, 0), "failed", 5)],
)
def test_a_tally_is_a_success_only_when_every_row_is_there(
    stored: tuple[int, int, int], status: str, failed: int
) -> None:
    tally = Tally(5, *stored)
    assert (tally.status, tally.failed) == (status, failed)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a/b", "a$", "x" * 64, "é" * 32])
def test_names_that_no_database_has(name: str) -> None:
    with pytest.raises(InputError, match="cannot use --database"):
        check_names(name, "results")


@pytest.mark.parametrize("name", ["", "system.users", "a$b", ".a", "a.", "a..b", "x" * 191, "a\0"])
def test_names_that_no_collection_has(name: str) -> None:
    with pytest.raises(InputError, match="cannot use --collection"):
        check_names("perf", name)


def test_names_that_are_in_use() -> None:
    check_names("perf-2026_x", "ci.results-v2 weekly")


def test_a_document_that_mongodb_cannot_hold_is_refused_by_its_row() -> None:
    with pytest.raises(
        InputError, match=r"perf\.csv: row 3 is a document of 17\.0 MiB; MongoDB holds 16 MiB"
    ):
        check_sizes(upload(of({"a": "x"}, {"a": "x" * (17 * 2**20)})))
    check_sizes(upload(of({"a": "x" * (15 * 2**20)})))
