"""``phalanx report`` as a user calls it: what it writes, says and returns."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.driver import Phalanx
from tests.runs.stories import RUN, STORIES, recorded

from .making import nightly, row, table, with_table, write_run
from .reading import seen

OTHER = "20261123-020124-demo-91bc"


@pytest.fixture
def phalanx(tmp_path: Path) -> Phalanx:
    return Phalanx(tmp_path, fake=False)


@pytest.fixture
def run(phalanx: Phalanx) -> Iterator[Path]:
    """A run that failed."""
    yield write_run(phalanx.runs, recorded(STORIES["first_failure"])).path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- to-html -------------------------------------------------------------------------------------------


def test_a_table_gets_its_page_beside_it_and_the_path_is_printed(phalanx: Phalanx) -> None:
    (phalanx.place / "sub").mkdir()
    with_table(phalanx.place / "sub" / "perf.csv", nightly(20))
    done = phalanx("report", "to-html", "--csv-file-path", "sub/perf.csv")
    assert (done.code, done.out, done.err) == (0, "sub/perf.html\n", "")
    assert "pyt_vllm_llama-3.1-70b" in seen((phalanx.place / "sub" / "perf.html").read_bytes()).text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "cannot make a page of none.csv: No such file or directory"),
        ("perf.txt", "model\na\n", "cannot make a page of perf.txt: expected a file that ends in .csv"),
        ("empty.csv", "", "cannot make a page of empty.csv: it is empty"),
        ("bad.csv", "a,b\n1,2,3\n", "cannot make a page of bad.csv: row 2 has 3 cells, the header 2"),
    ],
)
def test_a_table_that_cannot_be_read_ends_with_1_and_leaves_nothing(
    phalanx: Phalanx, name: str, content: str | None, words: str
) -> None:
    if content is not None:
        (phalanx.place / name).write_text(content)
    before = sorted(phalanx.place.iterdir())
    done = phalanx("report", "to-html", "--csv-file-path", name)
    assert (done.code, done.out, done.err) == (1, "", f"phalanx: {words}\n")
    assert sorted(phalanx.place.iterdir()) == before


def test_a_page_for_standard_output_is_all_that_is_printed(phalanx: Phalanx) -> None:
    with_table(phalanx.place / "perf.csv", nightly(3))
    done = phalanx("report", "to-html", "--csv-file-path", "perf.csv", "-o", "/proc/self/fd/1")
    assert (done.code, done.err) == (0, "")
    assert done.out.rstrip().endswith("</html>")


def test_a_folder_is_no_table(phalanx: Phalanx) -> None:
    (phalanx.place / "x.csv").mkdir()
    done = phalanx("report", "to-html", "--csv-file-path", "x.csv")
    assert (done.code, done.err) == (1, "phalanx: cannot make a page of x.csv: Is a directory\n")


def test_a_page_never_takes_the_place_of_its_table(phalanx: Phalanx) -> None:
    path = with_table(phalanx.place / "perf.csv", nightly(3))
    before = path.read_bytes()
    done = phalanx("report", "to-html", "--csv-file-path", "perf.csv", "-o", "./perf.csv")
    assert done.code == 1
    assert "it is the table itself" in done.err
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(phalanx: Phalanx) -> None:
    with_table(phalanx.place / "perf.csv", nightly(3))
    done = phalanx("report", "to-html", "--csv-file-path", "perf.csv", "-o", "no/such/place.html")
    assert done.code == 1
    assert done.err.startswith("phalanx: cannot write no/such/place.html: No such file or directory")


def test_verbose_says_how_large_the_page_is(phalanx: Phalanx) -> None:
    with_table(phalanx.place / "perf.csv", nightly(3))
    assert " MB in " in phalanx("report", "to-html", "--csv-file-path", "perf.csv", "-v").err


def test_the_latest_run_is_reported_into_its_directory_for_its_owner(phalanx: Phalanx, run: Path) -> None:
    done = phalanx("report", "to-html")
    assert (done.code, done.out) == (0, f"runs/{RUN}/report.html\n")
    assert mode(run / "report.html") == 0o600
    assert "First failure: node2 rank 3" in seen((run / "report.html").read_bytes()).text


def test_a_run_is_chosen_as_by_other_verbs_and_its_page_goes_where_told(phalanx: Phalanx, run: Path) -> None:
    done = phalanx("report", "to-html", "7f3a", "-o", "out.html")
    assert (done.code, done.out) == (0, "out.html\n")
    assert not (run / "report.html").exists()
    umask = os.umask(0)
    os.umask(umask)
    assert mode(phalanx.place / "out.html") == 0o666 & ~umask
    done = phalanx("report", "to-html", "nothing")
    assert done.code == 4
    assert "cannot find run 'nothing'" in done.err


def test_a_run_and_a_table_at_once_are_refused(phalanx: Phalanx, run: Path) -> None:
    done = phalanx("report", "to-html", RUN, "--csv-file-path", "x.csv")
    assert done.code == 4
    assert "give RUN" in done.err


def test_without_a_display_nothing_is_opened_and_it_is_said(phalanx: Phalanx, run: Path) -> None:
    done = phalanx("report", "to-html", "--open")
    assert done.code == 0
    assert done.err == "phalanx: cannot open it: there is no display here\n"


def test_with_a_display_a_browser_gets_the_page(phalanx: Phalanx, run: Path) -> None:
    browser = phalanx.place / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > "$(dirname "$0")/opened"\n')
    browser.chmod(0o755)
    done = phalanx("report", "to-html", "--open", env={"DISPLAY": ":9", "BROWSER": f"{browser} %s"})
    assert (done.code, done.err) == (0, "")
    assert (phalanx.place / "opened").read_text() == f"{(run / 'report.html').as_uri()}\n"


# --- to-email ------------------------------------------------------------------------------------------


def test_every_table_of_a_folder_is_in_the_mail_and_the_unreadable_are_said(phalanx: Phalanx) -> None:
    folder = phalanx.place / "results"
    folder.mkdir()
    table(folder / "b.csv", [row("two", "2", "x")])
    table(folder / "a.csv", [row("one", "1", "x")])
    (folder / "broken.csv").write_text("a,b\n1,2,3\n")
    done = phalanx("report", "to-email", "--dir", "results")
    assert (done.code, done.out) == (0, "run_results.html\n")
    assert done.err == "phalanx: cannot read broken.csv: row 2 has 3 cells, the header 2; the page says so\n"
    text = seen((phalanx.place / "run_results.html").read_bytes()).text
    assert text.index("broken.csv") < text.index("one") < text.index("two")


def test_a_folder_without_tables_ends_with_1_and_writes_nothing(phalanx: Phalanx) -> None:
    done = phalanx("report", "to-email")
    assert done.code == 1
    assert "there is no *.csv in it" in done.err
    assert not (phalanx.place / "run_results.html").exists()
    (phalanx.place / "x.csv").write_text("")
    done = phalanx("report", "to-email", "-o", "mine.html")
    assert done.code == 1
    assert "no *.csv in it can be read" in done.err
    assert not (phalanx.place / "mine.html").exists()


def test_a_folder_that_is_not_there_is_named(phalanx: Phalanx) -> None:
    done = phalanx("report", "to-email", "--directory", "nowhere")
    assert (done.code, done.err) == (
        1,
        "phalanx: cannot read the folder nowhere: No such file or directory\n",
    )


def test_the_help_says_that_no_mail_is_sent(phalanx: Phalanx) -> None:
    assert "It sends no mail" in phalanx("report", "to-email", "--help").out


# --- compare -------------------------------------------------------------------------------------------


def test_two_tables_are_compared_in_aligned_text(phalanx: Phalanx) -> None:
    table(phalanx.place / "A.csv", [row("a", "200", "tok/s", args="--bs 1"), row("gone", "1", "s")])
    table(phalanx.place / "B.csv", [row("a", "250", "tok/s", args="--bs 2"), row("new")])
    done = phalanx("report", "compare", "A.csv", "B.csv")
    assert (done.code, done.err) == (0, "")
    assert (
        done.out
        == """\
A  A.csv   2 rows
B  B.csv   2 rows

RUN DIFFERENTLY  A       B       MODELS
args             --bs 1  --bs 2  a

NOT IN ALL
gone        in A, not in B
new         in B, not in A

MODEL  METRIC    A    B      B/A
a      tok/s   200  250  +25.0 %
gone   s         1    -
"""
    )


def test_a_run_is_compared_with_a_table_and_with_a_directory(phalanx: Phalanx, run: Path) -> None:
    write_run(phalanx.runs, recorded(STORIES["success"]), OTHER)
    table(phalanx.place / "A.csv", [row("demo", "10", "")])
    done = phalanx("report", "compare", "A.csv", "91bc", f"runs/{RUN}", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert [one["label"] for one in document["tables"]] == ["A.csv", OTHER, RUN]
    assert document["tables"][2]["note"] == "it failed, exit 3"
    assert document["metrics"][0]["values"] == [10.0, 12.0, None]
    assert document["status_changes"] == [{"model": "demo", "statuses": ["SUCCESS", "SUCCESS", "FAILURE"]}]


def test_a_folder_with_a_table_stands_for_it(phalanx: Phalanx) -> None:
    for name in ("old", "new"):
        (phalanx.place / name).mkdir()
        table(phalanx.place / name / "perf.csv", [row("a", "1", "x")])
    assert phalanx("report", "compare", "old", "new").code == 0


def test_the_page_of_a_comparison_has_bars(phalanx: Phalanx) -> None:
    table(phalanx.place / "A.csv", [row("a", "1", "x"), row("b", "1", "x")])
    table(phalanx.place / "B.csv", [row("a", "2", "x"), row("b")])
    done = phalanx("report", "compare", "A.csv", "B.csv", "-o", "compare.html")
    assert (done.code, done.err) == (0, "phalanx: wrote compare.html\n")
    found = seen((phalanx.place / "compare.html").read_bytes())
    bars = [float(bar["width"] or 0) for bar in found.of("rect")]
    assert bars == [79.0, 158.0, 158.0]
    assert "Ended differently" in found.text


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("A.csv",), "cannot compare 1: name from 2 to 26 runs or files"),
        (("A.csv", "none.csv"), "cannot compare none.csv: there is no such file, and no run"),
        (("A.csv", "broken.json"), "cannot compare broken.json: line 1 column 2"),
        (("A.csv", "other.csv"), "cannot compare other.csv: it has no column model (found x, y)"),
        (("A.csv", "empty"), "cannot compare empty: it is no run and holds no perf.csv"),
        (
            ("A.csv", "notes.txt"),
            "cannot compare notes.txt: expected a run, or a file that ends in .csv",
        ),
        ((), "Missing argument"),
    ],
)
def test_what_cannot_be_compared_ends_with_4_and_says_why(
    phalanx: Phalanx, names: tuple[str, ...], words: str
) -> None:
    table(phalanx.place / "A.csv", [row("a", "1", "x")])
    (phalanx.place / "broken.json").write_text("{")
    (phalanx.place / "notes.txt").write_text("x")
    (phalanx.place / "other.csv").write_text("x,y\n1,2\n")
    (phalanx.place / "empty").mkdir()
    done = phalanx("report", "compare", *names)
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith(f"phalanx: {words}")


def test_names_from_elsewhere_cannot_act_on_the_terminal(phalanx: Phalanx) -> None:
    table(phalanx.place / "A.csv", [row("\x1b[2Jevil\u202e", "1", "\x1b]0;x\x07")])
    done = phalanx("report", "compare", "A.csv", "A.csv")
    assert done.code == 0
    assert not set(done.out) & {"\x1b", "\u202e", "\x07"}


def test_an_unknown_verb_gets_the_nearest(phalanx: Phalanx) -> None:
    done = phalanx("report", "tohtml")
    assert done.code == 4
    assert "did you mean to-html?" in done.err
