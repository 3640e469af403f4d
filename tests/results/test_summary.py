"""Tables of results as people and madengine keep them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from phalanx.controller.results import summary
from phalanx.controller.results.perf_csv import append_rows, guarded, unguarded
from phalanx.controller.results.summary import Summary, number, read_summary
from phalanx.controller.results.table import Limits, TableError


def read(tmp_path: Path, content: bytes, name: str = "perf.csv") -> Summary:
    path = tmp_path / name
    path.write_bytes(content)
    return read_summary(path)


def why(tmp_path: Path, content: bytes, name: str = "perf.csv") -> str:
    with pytest.raises(TableError) as caught:
        read(tmp_path, content, name)
    return str(caught.value)


def test_a_mark_crlf_quotes_and_missing_cells_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, b'\xef\xbb\xbfmodel,tags,performance\r\na,"x,y",1.0\r\n\r\nb\r\n')
    assert found.columns == ("model", "tags", "performance")
    assert found.rows == (("a", "x,y", "1.0"), ("b", "", ""))


def test_what_pandas_writes_for_a_missing_value_is_missing(tmp_path: Path) -> None:
    assert read(tmp_path, b"model,performance\na,nan\nb,NaN\n").rows == (("a", ""), ("b", ""))
    assert read(tmp_path, b"model,performance\na,-nan\nNA,<NA>\n").rows == (("a", ""), ("NA", ""))


def test_what_phalanx_guards_against_spreadsheets_reads_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(
        path, [{"model": "a", "performance": "1", "status": "", "args": "--batch 4", "tags": "'quoted'"}]
    )
    assert "'--batch 4" in path.read_text()
    (row,) = read_summary(path).records()
    assert (row["args"], row["tags"]) == ("--batch 4", "'quoted'")


@pytest.mark.parametrize("cell", ["=1+1", "@x", "-5", "--a", "+", "'", "'a", "plain"])
def test_guarding_is_undone(cell: str) -> None:
    assert unguarded(guarded(cell)) == cell


def test_a_row_with_more_cells_than_the_header_is_refused_by_its_place(tmp_path: Path) -> None:
    assert why(tmp_path, b"a,b\n1,2\n1,2,3\n") == "row 3 has 3 cells, the header 2"
    assert read(tmp_path, b"a,b\n1,2,,\n").rows == (("1", "2"),)


def test_columns_without_or_with_the_same_name_are_told_apart(tmp_path: Path) -> None:
    assert read(tmp_path, b"a,,a,a\n1,2,3,4\n").columns == ("a", "column 2", "a (2)", "a (3)")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf\r\n", b" , ,\n"])
def test_a_file_with_nothing_in_it_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "empty" in why(tmp_path, content)


def test_a_cell_beyond_what_python_reads_by_default_is_read_and_the_limit_is_as_before(
    tmp_path: Path,
) -> None:
    before = csv.field_size_limit()
    long = "x" * 200_000
    assert read(tmp_path, f"model,configs\na,{long}\n".encode()).rows == (("a", long),)
    assert csv.field_size_limit() == before


def test_what_is_beyond_the_limits_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "LIMITS", Limits(rows=3, columns=2, cell=2048))
    assert why(tmp_path, b"a\n" + b"1\n" * 4) == "it has more than 3 rows"
    assert why(tmp_path, b"a,b,c\n") == "row 1 has 3 cells; 2 are the most"
    assert "row 2 has a cell of more than 2 KiB" in why(tmp_path, b"a\n" + b"x" * 4000)
    assert "more than 2 KiB" in why(tmp_path, json.dumps({"model": "x" * 4000}).encode(), "a.json")
    monkeypatch.setattr(summary, "FILE_LIMIT", 1024 * 1024)
    assert why(tmp_path, b"a\n" + b"\n" * 1024 * 1024) == "it is larger than 1 MiB"


def test_json_with_bare_nan_is_read_and_numerals_stay_as_written(tmp_path: Path) -> None:
    text = (
        b'[{"model": "a", "performance": NaN, "n": 8.0, "m": 1e3, "ok": true, "no": null, "tags": ["x","y"]}]'
    )
    (row,) = read(tmp_path, text, "perf_super.json").records()
    assert row == {
        "model": "a",
        "performance": "",
        "n": "8.0",
        "m": "1e3",
        "ok": "true",
        "no": "",
        "tags": "x,y",
    }


def test_an_entry_of_one_row_is_an_object_and_nested_results_are_columns(tmp_path: Path) -> None:
    text = json.dumps({"model": "a", "configs": {"lr": 0.1}, "multi_results": {"latency": 3, "model": "b"}})
    (row,) = read(tmp_path, text.encode(), "perf_entry.json").records()
    assert row == {"model": "a", "configs": '{"lr": "0.1"}', "latency": "3"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "line 1 column"),
        (b"[1]", "record 1 of 1 is no object"),
        (b"[]", "it is empty"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_is_no_table_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    assert words in why(tmp_path, text, "a.json")


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="No such file"):
        read_summary(tmp_path / "none.csv")
    with pytest.raises(TableError, match="Is a directory"):
        read_summary(tmp_path)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("8", 8.0),
        ("8.0", 8.0),
        ("-1e3", -1000.0),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1_0", None),
        ("x", None),
    ],
)
def test_a_number_is_finite_and_written_as_one(cell: str, value: float | None) -> None:
    assert number(cell) == value
