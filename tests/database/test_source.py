"""Files of results are read as what they are, and one that cannot be used says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results.database.source import read_source
from phalanx.controller.results.perf_csv import guarded, unguarded
from phalanx.controller.workflow.errors import InputError

from .rows import perf_csv, result


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_rows_of_a_csv_have_the_numbers_of_a_spreadsheet(tmp_path: Path) -> None:
    source = read_source(written(tmp_path / "perf.csv", 'a,b\n1,"two\nlines"\n\n3,4\n'))
    assert [(row.place, dict(row.fields)) for row in source.rows] == [
        ("row 2", {"a": "1", "b": "two\nlines"}),
        ("row 4", {"a": "3", "b": "4"}),
    ]
    assert source.text


def test_what_perf_csv_guards_from_spreadsheets_is_what_the_run_said(tmp_path: Path) -> None:
    path = perf_csv(tmp_path / "perf.csv", result(args="--steps 5", tags="=x", relative_change="-1.5"))
    assert "'--steps 5" in path.read_text()
    (row,) = read_source(path).rows
    assert (row.fields["args"], row.fields["tags"]) == ("--steps 5", "=x")
    assert row.fields["relative_change"] == "-1.5"


@given(st.text(alphabet="='+-@a1 ", max_size=6).filter(lambda text: not text.startswith("'")))
def test_guarding_a_cell_is_undone(cell: str) -> None:
    assert unguarded(guarded(cell)) == cell


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.csv", "model\nx\n", True),
        ("a.json", '{"model": "x"}', False),
        ("a.JSON", '[{"model": "x"}]', False),
        ("a.txt", ' \n[{"model": "x"}]', False),
        ("a", '{"model": "x"}', False),
        ("a", "model\nx\n", True),
    ],
)
def test_the_format_is_the_extension_or_the_first_character(
    name: str, text: str, kind: bool, tmp_path: Path
) -> None:
    source = read_source(written(tmp_path / name, text))
    assert source.text is kind
    assert [dict(row.fields) for row in source.rows] == [{"model": "x"}]


def test_nan_of_pandas_is_read_as_no_value(tmp_path: Path) -> None:
    text = '[{"a": NaN, "b": -Infinity, "c": [NaN, 1]}]'
    (row,) = read_source(written(tmp_path / "perf_super.json", text)).rows
    assert (row.place, row.fields) == ("entry 1", {"a": None, "b": None, "c": [None, 1]})


def test_a_cell_may_hold_a_long_configuration(tmp_path: Path) -> None:
    configuration = json.dumps([{"batch_size": number} for number in range(20_000)])
    cell = '"' + configuration.replace('"', '""') + '"'
    (row,) = read_source(written(tmp_path / "perf_super.csv", f"model,configs\nx,{cell}\n")).rows
    assert row.fields["configs"] == configuration


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "a.csv: it is empty"),
        ("a.csv", "model,status\n", "a.csv: it has no rows"),
        ("a.csv", "a,a\n1,2\n", "the column 'a' twice"),
        ("a.csv", "a\n\n1,2\n", "row 3 has 2 cells, the header 1"),
        ("a.json", "[]", "it has no rows"),
        ("a.json", "[1", "a.json: line 1 column 3"),
        ("a.json", '"x"', "expected a list of objects, found"),
        ("a.json", '[{"a": 1}, 7]', "entry 2 is the number 7, not an object"),
        ("a.json", '[{"a": 1, "a": 2}]', "'a' is given twice"),
        ("a.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name: str, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_source(written(tmp_path / name, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*gone\.csv: No such file"):
        read_source(tmp_path / "gone.csv")
    with pytest.raises(InputError, match=r"Is a directory|not a regular file"):
        read_source(tmp_path)
