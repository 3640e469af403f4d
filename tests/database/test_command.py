"""``phalanx database`` as a program, without a server: dry runs, refusals, and what is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.driver import Done, Phalanx

from .rows import perf_csv, result

pytestmark = pytest.mark.local

TARGET = ("--db", "perf", "-c", "results")
#: Where nobody is: a dry run that connected would fail.
NOWHERE = {"MONGO_HOST": "no-such-host.invalid", "MONGO_USER": "ci", "MONGO_PASSWORD": "hunter22"}


def dry(phalanx: Phalanx, *words: str) -> Done:
    perf_csv(phalanx.place / "perf.csv", *(result(performance=str(number)) for number in range(5)))
    return phalanx("database", "-f", "perf.csv", *TARGET, "--dry-run", *words, env=NOWHERE)


def test_a_dry_run_shows_documents_target_key_and_indexes_and_connects_to_nothing(phalanx: Phalanx) -> None:
    done = dry(phalanx)
    assert done.code == 0
    assert done.out.count('"model": "bert"') == 3
    assert done.out.splitlines()[-3:] == [
        "and 2 more",
        "5 rows of perf.csv would go to perf.results on no-such-host.invalid:27017",
        "key: _id, made of the row's content; indexes: model; created_date; status; pipeline",
    ]
    assert "unencrypted" in done.err
    assert "hunter22" not in done.out + done.err


def test_a_dry_run_as_a_document(phalanx: Phalanx) -> None:
    shown = json.loads(dry(phalanx, "--json", "-k", "model,performance").out)
    assert (shown["dry_run"], shown["rows"], shown["key"]) == (True, 5, ["model", "performance"])
    assert shown["server"] == "no-such-host.invalid:27017"
    assert shown["indexes"][0] == {"fields": ["model", "performance"], "unique": True}
    assert [one["performance"] for one in shown["documents"]] == [0, 1, 2]


def test_what_a_workload_wrote_does_not_reach_the_terminal_as_it_is(phalanx: Phalanx) -> None:
    (phalanx.place / "a.json").write_text('{"model": "x\\u001b]0;t\\u0007\\u202e", "b\\u009b31m": 1}')
    done = phalanx("database", "-f", "a.json", *TARGET, "--dry-run")
    assert done.code == 0
    assert not set(done.out) & set("\x1b\x07\x9b\u202e")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-f", "gone.csv", *TARGET], "cannot read gone.csv: No such file or directory"),
        (["-f", "perf.csv", "--db", "a.b", "-c", "x"], "cannot use --database 'a.b': it holds '.'"),
        (["-f", "perf.csv", "--db", "a", "-c", "x$"], "cannot use --collection 'x$'"),
        (["-f", "perf.csv", *TARGET, "-k", "modle"], "no row has such a field; did you mean 'model'?"),
        (["-f", "perf.csv", *TARGET, "-k", "model"], "by model: row 3 is the same as row 2"),
        (["-f", "perf.csv", *TARGET, "-k", "pipeline"], "row 2 has no pipeline; row 3 has no pipeline"),
        (["-f", "perf.csv", *TARGET, "--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["-f", "perf.csv", "-c", "x"], "Missing option '--database'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_touched(
    phalanx: Phalanx, words: list[str], said: str
) -> None:
    perf_csv(phalanx.place / "perf.csv", result(), result())
    done = phalanx("database", *words, env={"MONGO_HOST": "no-such-host.invalid"})
    assert (done.code, done.out) == (4, "")
    assert said in done.err


def test_a_variable_that_cannot_be_used_is_refused_in_a_dry_run_too(phalanx: Phalanx) -> None:
    perf_csv(phalanx.place / "perf.csv", result())
    done = phalanx("database", "-f", "perf.csv", *TARGET, "--dry-run", env={"MONGO_PORT": "mongo"})
    assert (done.code, done.out) == (4, "")
    assert "cannot use MONGO_PORT=mongo" in done.err


def test_a_key_that_nothing_reads_is_told(phalanx: Phalanx) -> None:
    done = dry(phalanx, "-k", "performance", "--no-upsert", "--no-index")
    assert "--unique-key does nothing with --no-upsert and --no-index" in done.err


@pytest.mark.parametrize("words", [["--help"], ["database", "--help"]])
def test_nothing_of_mongodb_is_imported_for_help(words: list[str]) -> None:
    code = (
        "import sys\nfrom phalanx.controller.cli.main import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "sys.stderr.write(' '.join(sorted({'pymongo', 'bson', 'dns', 'asyncio'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
