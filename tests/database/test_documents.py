"""Rows become documents: numbers are numbers, names stay names, and all of it can be stored."""

from __future__ import annotations

import json
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results.database.documents import documents_of, field_name, number_of
from phalanx.controller.workflow.errors import InputError

from .rows import contents, csv_source, json_source, result

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=4), part, max_size=3),
    max_leaves=12,
)


def test_numbers_of_perf_csv_are_numbers_and_ids_that_read_as_numbers_are_text() -> None:
    (found,) = contents(csv_source(result("70", build_number="12")))
    assert (found["n_gpus"], found["performance"], found["test_duration"]) == (16, 14164.0, 61.25)
    assert found["build_number"] == 12
    assert [found[name] for name in ("model", "docker_sha", "git_commit", "machine_name")] == [
        *("70", "1234567", "12e5", "4711")
    ]


def test_an_empty_cell_and_what_programs_write_for_none_is_null() -> None:
    (found,) = contents(csv_source(result(performance="", pipeline="nan", dataname="N/A", note="None")))
    assert [found[name] for name in ("performance", "pipeline", "dataname", "note")] == [None] * 4


def test_a_column_of_results_is_a_number_only_when_every_row_says_so() -> None:
    found = contents(
        csv_source(
            {"model": "a", "tokens": "12", "note": "12", "run_id": "7", "zip": "007", "version": "1.10"},
            {"model": "b", "tokens": "1.5", "note": "many", "run_id": "8", "zip": "1", "version": "1.2"},
            {"model": "c", "tokens": "", "note": "", "run_id": "", "zip": "", "version": ""},
        )
    )
    assert [one["tokens"] for one in found] == [12, 1.5, None]
    assert [one["note"] for one in found] == ["12", "many", None]
    assert [one["run_id"] for one in found] == ["7", "8", None]
    assert [one["zip"] for one in found] == ["007", "1", None]
    assert [one["version"] for one in found] == ["1.10", "1.2", None]


def test_a_number_with_its_unit_stays_text() -> None:
    (found,) = contents(csv_source(result(test_duration="12.34s", data_size="1.2G")))
    assert (found["test_duration"], found["data_size"]) == ("12.34s", "1.2G")


def test_cells_with_json_are_decoded_and_others_left() -> None:
    row = {"configs": '[{"lr": 0.1, "x": NaN}]', "multi_results": '{"a": 1}', "args": "{not json", "t": "[1"}
    assert contents(csv_source(row)) == [
        {"configs": [{"lr": 0.1, "x": None}], "multi_results": {"a": 1}, "args": "{not json", "t": "[1"}
    ]


def test_json_keeps_its_types_and_madengine_s_numbers_in_text_become_numbers() -> None:
    row = {"model": "7", "n_gpus": "8", "performance": "nan", "extra": "12", "configs": [{"a": "1"}, []]}
    assert contents(json_source(row)) == [
        {"model": "7", "n_gpus": 8, "performance": None, "extra": "12", "configs": [{"a": "1"}, []]}
    ]


def test_names_that_queries_cannot_use_are_changed_and_told() -> None:
    found = documents_of(json_source({"a.b": 1, "$c": {"d.e": [{"": 2}]}, "x$": 3}))
    assert found.documents[0].content == {"a_b": 1, "_c": {"d_e": [{"_": 2}]}, "x$": 3}
    (note,) = found.notes
    assert "'a.b' as 'a_b'" in note
    assert "'$c' as '_c'" in note


def test_two_fields_of_one_name_are_refused_with_their_row() -> None:
    with pytest.raises(InputError, match=r"perf\.json: entry 2: the fields 'a_b' and 'a\.b' would both"):
        documents_of(json_source({"a": 1}, {"a_b": 1, "a.b": 2}))


def test_an_earlier_upload_s_mark_is_no_content() -> None:
    assert contents(json_source({"a": 1, "_meta_uploaded_at": "2026"})) == [{"a": 1}]


def test_what_is_nested_too_deeply_is_refused_with_its_row() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InputError, match="entry 1: it is nested deeper than 90"):
        documents_of(json_source({"a": deep}))
    with pytest.raises(InputError, match="row 2: it is nested deeper than 90"):
        documents_of(csv_source({"a": json.dumps(deep)}))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("0", 0), ("-7", -7), ("+7", 7), ("8.0", 8.0), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0)),
        *((str(2**63 - 1), 2**63 - 1), (str(2**63), None), ("9" * 5000, None), ("1e999", None)),
        *(("007", None), ("0x10", None), ("1_000", None), ("", None), (" 1", None), ("nan", None)),
        *(("inf", None), ("१", None), ("1,5", None)),
    ],
)
def test_what_spells_a_number(text: str, number: float | None) -> None:
    assert number_of(text) == number
    assert type(number_of(text)) is type(number)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_every_number_is_read_back(number: float) -> None:
    assert number_of(repr(number)) == number


@given(st.text())
def test_a_changed_name_stays_as_it_is(name: str) -> None:
    assert field_name(field_name(name)) == field_name(name)
    assert not field_name(name).startswith("$")
    assert not set(field_name(name)) & {".", "\0"}


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_whatever_json_says_can_be_stored_or_is_refused_by_row(row: dict[str, Any]) -> None:
    try:
        (found,) = contents(json_source(row))
    except InputError as error:
        assert "entry 1: the fields" in str(error)
        return
    assert bson.decode(bson.encode(found)) == found


@given(st.lists(st.dictionaries(st.sampled_from(["model", "x", "y"]), st.text(max_size=6), max_size=3)))
def test_a_column_has_one_type(rows: list[dict[str, str]]) -> None:
    found = contents(csv_source(*rows))
    for name in ("model", "x", "y"):
        values = [one[name] for one in found if one.get(name) is not None]
        scalars = [value for value in values if not isinstance(value, (list, dict))]
        assert len({isinstance(value, str) for value in scalars}) <= 1
