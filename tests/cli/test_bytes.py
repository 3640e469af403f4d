"""Bytes that are not UTF-8, wherever a user can give them: exit 4, words, and no run that was half made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .driver import PATIENCE_S, Done, Phalanx

pytestmark = pytest.mark.local
WORDS = ": it is not UTF-8 text, and runs and their files hold no other; write it in UTF-8"
BYTES = b"caf\xe9"


def called(
    phalanx: Phalanx, *words: bytes | str, env: dict[str, bytes] | None = None, place: bytes = b"."
) -> Done:
    """As a user of another encoding calls it."""
    done = subprocess.run(
        [*phalanx.argv(), *words],
        cwd=bytes(phalanx.place) + b"/" + place,
        env={**phalanx.environ(), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["run", "--", "echo", BYTES], "argument 4"),
        (["run", "-e", b"A=" + BYTES, "--", "true"], "argument 3 (-e)"),
        (["run", b"--image=" + BYTES, "--dry-run", "--", "true"], "argument 2 (--image)"),
        (["exec", "--", BYTES], "argument 3"),
        (["image", "sync", BYTES], "argument 3"),
        (["history", BYTES], "argument 2"),
        (["history", "list", "--metric", BYTES], "argument 4 (--metric)"),
        (["database", "-f", "perf.csv", "--db", BYTES, "-c", "c"], "argument 5 (--db)"),
        (["ps", BYTES], "argument 2"),
    ],
)
def test_an_argument_is_named_by_its_place_and_not_shown(
    phalanx: Phalanx, words: list[bytes | str], what: str
) -> None:
    done = called(phalanx, *words)
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith(f"phalanx: cannot use {what}{WORDS}")
    assert "caf" not in done.err
    assert not phalanx.runs.exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["-e", "A"], "A (-e (from the environment))"),
        (["--dry-run", "-e", "A"], "A (-e (from the environment))"),
        (["--secret", "A"], "the secret A (--secret env:A)"),
    ],
)
def test_a_variable_is_named(phalanx: Phalanx, words: list[str], what: str) -> None:
    done = called(phalanx, "run", *words, "--", "true", env={"A": BYTES})
    assert (done.code, done.err.partition(WORDS)[0]) == (4, f"phalanx: cannot use {what}")
    assert not phalanx.runs.exists()


def test_a_variable_that_nothing_uses_may_hold_anything(phalanx: Phalanx) -> None:
    assert called(phalanx, "run", "--dry-run", "--", "true", env={"A": BYTES}).code == 0


def test_folders_are_named(phalanx: Phalanx) -> None:
    Path(phalanx.place, BYTES.decode("utf-8", "surrogateescape")).mkdir()
    for words in (["run", "--", "true"], ["build", "--tags", "a"], ["image", "sync", "img:1"]):
        done = called(phalanx, *words, place=BYTES)
        assert (done.code, r"the working directory" in done.err, r"/caf\xe9" + WORDS in done.err) == (
            4,
            True,
            True,
        )
    done = called(phalanx, "run", "--", "true", env={"PHALANX_RUNS_DIR": bytes(phalanx.place) + b"/" + BYTES})
    assert (done.code, "cannot use the path of PHALANX_RUNS_DIR" in done.err) == (4, True)
    assert list(phalanx.place.glob("**/*")) == [phalanx.place / BYTES.decode("utf-8", "surrogateescape")]


def test_a_table_may_be_called_anything(phalanx: Phalanx) -> None:
    name = (BYTES + b".csv").decode("utf-8", "surrogateescape")
    Path(phalanx.place, name).write_text("model,performance,status\na,1,SUCCESS\n")
    done = subprocess.run(
        [*phalanx.argv(), "report", "to-html", "--csv-file-path", name],
        cwd=phalanx.place,
        env={**phalanx.environ(), "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, BYTES + b".html\n", b"")
