"""CSV files that workloads wrote: read within limits, normalised once, the best of them chosen."""

from __future__ import annotations

import csv
import gc
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results import table as tables
from phalanx.controller.results.table import (
    Candidate,
    Count,
    TableError,
    best,
    count_of,
    parse_table,
    read_table,
    results_of,
)

HEAD = "model,performance,metric\n"


def test_a_header_is_stripped_of_spaces_and_marks_once() -> None:
    found = parse_table("\ufeff model , performance ,  two   words \r\na, 1 ,x\r\n\r\n b,,\r\n")
    assert found.columns == ("model", "performance", "two words")
    assert found.rows == (
        {"model": "a", "performance": "1", "two words": "x"},
        {"model": "b", "performance": "", "two words": ""},
    )
    assert found.numbers == (2, 4)
    assert found.valued == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ("a, a\n1,2\n", "the column 'a' twice"),
        ("a,b\n1,2,3\n", "row 2 has 3 cells, the header 2"),
        (",".join(map(str, range(257))), "257 cells; 256 are the most"),
        ("a\n" + "x" * 70_000, "a cell of more than 64 KiB"),
        ('a\n"' + "x" * 140_000 + '"', "line 2: field larger than"),
    ],
)
def test_a_text_that_is_no_table_says_why(text: str, words: str) -> None:
    with pytest.raises(TableError, match=words):
        parse_table(text)


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_LIMIT", 3)
    assert len(parse_table("a\n1\n2\n3\n").rows) == 3
    with pytest.raises(TableError, match="more than 3 rows"):
        parse_table("a\n1\n2\n3\n4\n")


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    for read, limit, words in (
        (read_table, tables.FILE_LIMIT, "larger than 64 MiB"),
        (results_of, tables.RESULTS_LIMIT, "larger than 512 MiB"),
        (count_of, tables.RESULTS_LIMIT, "larger than 512 MiB"),
    ):
        with path.open("wb") as file:
            file.truncate(limit + 1)
        with pytest.raises(TableError, match=words):
            read(path)


def test_neither_a_line_nor_a_row_without_end_is_read_into_memory(tmp_path: Path) -> None:
    line, row = tmp_path / "line.csv", tmp_path / "row.csv"
    line.write_text(HEAD + "a" * (tables.LINE_LIMIT + 1))
    row.write_text(HEAD + '"\n' + '","\n' * 1_500_000)
    with pytest.raises(TableError, match="line 2 is longer than 1 MiB"):
        count_of(line)
    with pytest.raises(TableError, match="a row is larger than 4 MiB"):
        count_of(row)


def test_broken_text_becomes_readable_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n\xff\xfe,x\0y\n")
    assert read_table(path).rows == ({"a": "\ufffd\ufffd", "b": "xy"},)


def test_an_empty_trailing_column_is_left_out() -> None:
    assert parse_table("a,b,\n1,2,\n").columns == ("a", "b")


@given(st.text(max_size=400))
def test_any_text_is_a_table_or_refused(text: str) -> None:
    try:
        found = parse_table(text)
    except TableError:
        return
    assert all(set(row) == set(found.columns) for row in found.rows)


@given(
    st.lists(
        st.lists(
            st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1)
            .map(str.strip)
            .filter(bool),
            min_size=2,
            max_size=2,
        ),
        max_size=8,
    )
)
def test_cells_that_a_csv_writer_wrote_come_back(cells: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b"], *cells])
    assert [[row["a"], row["b"]] for row in parse_table(text.getvalue()).rows] == cells


def write(folder: Path, node: int, text: str) -> Candidate:
    path = folder / f"n{node}.csv"
    path.write_text(text)
    return Candidate(f"n{node}", node, path, f"n{node}: r.csv")


def test_the_file_with_most_values_is_chosen_and_of_equals_the_lowest_node(tmp_path: Path) -> None:
    files = [
        write(tmp_path, 3, HEAD + "a,1,x\nb,2,x\n"),
        write(tmp_path, 1, HEAD + "a,1,x\nb,nan,x\nc,,x\n"),
        write(tmp_path, 2, HEAD + "a,1,x\nb,2,x\n"),
        write(tmp_path, 0, "nothing\nuseful\n"),
    ]
    choice, unusable = best(files)
    assert choice is not None
    assert choice.candidate.node == "n2"
    assert choice.count == Count(rows=2, valued=2)
    assert choice.why == (
        "n2: r.csv, of 4 files: 2 values; n3: r.csv has as many, the lowest node rank counts"
    )
    assert unusable == [
        "n0: r.csv: it has no column model and no column performance and no column metric (found nothing)"
    ]
    assert best(list(reversed(files)))[0] == choice


@pytest.mark.parametrize(
    "cell", ["-nan", "-NaN", "<NA>", "#NA", "#N/A", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"]
)
def test_what_a_program_writes_for_no_number_is_no_value(tmp_path: Path, cell: str) -> None:
    many, one = write(tmp_path, 0, HEAD + f"a,{cell},x\n" * 9), write(tmp_path, 1, HEAD + "a,7,x\n")
    choice, _ = best([many, one])
    assert choice is not None
    assert choice.candidate is one
    assert count_of(many.path) == Count(rows=9, valued=0)


def test_a_file_without_a_needed_column_names_it(tmp_path: Path) -> None:
    for read in (results_of, count_of):
        with pytest.raises(TableError, match=r"it has no column metric \(found model, performance\)"):
            read(write(tmp_path, 0, "model,performance\na,1\n").path)


def test_the_best_is_chosen_among_files_of_a_million_rows_in_the_memory_of_one_row(tmp_path: Path) -> None:
    files = [write(tmp_path, 0, HEAD + "a,,x\n" * 9), write(tmp_path, 1, HEAD + "a,1,x\n" * 1_000_000)]
    gc.collect()
    tracemalloc.start()
    choice, _ = best(files)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert choice is not None
    assert choice.count == Count(1_000_000, 1_000_000)
    assert peak < 4 * 1024 * 1024


def test_measurements_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="more than 10000 rows"):
        results_of(write(tmp_path, 0, HEAD + "a,1,x\n" * 10_001).path)
