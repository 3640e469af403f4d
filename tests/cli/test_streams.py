"""Standard output and error that are closed or full: the run goes on, and what is lost is said in words."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.runs.live import Writer

from tests.runs.fake_controller import act
from tests.runs.stories import first_failure, running, started, success

from .driver import PATIENCE_S, Done, Phalanx

pytestmark = pytest.mark.local
LOST = "phalanx: cannot write to standard output: No space left on device"
LINES: list[dict[str, Any]] = [
    {"log": "logs/node1/rank0.out", "text": "hello\n"},
    {"log": "logs/node2/rank1.err", "text": "careful\n"},
]


def redirected(phalanx: Phalanx, where: str, *words: str) -> Done:
    """The command under a shell's redirection, such as ``>&-``."""
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(phalanx.argv(*words))} {where}"],
        cwd=phalanx.place,
        env=phalanx.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def part(phalanx: Phalanx, *, well: bool = True) -> None:
    begun = [*started(), *running()]
    rest = success()[len(begun) :] if well else first_failure()[-3:]
    phalanx.part([*(act(event) for event in begun), *LINES, *LINES, *(act(event) for event in rest)])


@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 3)])
def test_a_full_disk_takes_the_lines_and_not_the_run(phalanx: Phalanx, well: bool, code: int) -> None:
    part(phalanx, well=well)
    done = redirected(phalanx, "> /dev/full", "run", "-N", "2", "--", "./hello.sh")
    assert (done.code, done.err.count(LOST)) == (code, 1), done.err
    assert "; the run goes on, its logs are kept: phalanx logs " in done.err
    assert done.err.count("node2: careful") == 2


@pytest.mark.parametrize("where", ["2> /dev/full", "2>&-"])
def test_lost_words_cost_neither_the_lines_nor_the_code(phalanx: Phalanx, where: str) -> None:
    part(phalanx)
    done = redirected(phalanx, where, "run", "-N", "2", "--", "./hello.sh")
    assert (done.code, done.out) == (0, "node1: hello\n" * 2)


@pytest.mark.parametrize("where", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_is_attended_without_any_stream(phalanx: Phalanx, where: str) -> None:
    part(phalanx)
    done = redirected(phalanx, where, "run", "-N", "2", "--", "./hello.sh")
    assert (done.code, done.out) == (0, ""), done.err
    assert "bug" not in done.err


def test_an_id_that_nobody_gets_is_said_with_the_failure(phalanx: Phalanx) -> None:
    part(phalanx)
    assert redirected(phalanx, ">&-", "run", "-d", "--", "./hello.sh").code == 0
    first = phalanx.only_run().name
    done = redirected(phalanx, "> /dev/full", "run", "-d", "--", "./hello.sh")
    (second,) = {path.name for path in phalanx.runs.iterdir()} - {first, "latest"}
    assert (done.code, done.err) == (1, f"{LOST}; run {second} has begun and goes on\n")


def test_a_document_that_is_lost_is_a_failure_of_a_run_that_has_none(phalanx: Phalanx) -> None:
    part(phalanx)
    done = redirected(phalanx, "> /dev/full", "run", "--json", "-N", "2", "--", "./hello.sh")
    assert (done.code, LOST in done.err) == (1, True)
    part(phalanx, well=False)
    assert redirected(phalanx, "> /dev/full", "run", "--json", "-N", "2", "--", "./hello.sh").code == 3


@pytest.mark.parametrize(
    "words",
    ["--help", "ps", "status", "status --json", "doctor", "logs", "logs -f", "run --dry-run -- true"],
)
def test_a_verb_says_why_its_output_is_lost(phalanx: Phalanx, words: str) -> None:
    part(phalanx)
    assert phalanx("run", "-N", "2", "--", "./hello.sh").code == 0
    done = redirected(phalanx, "> /dev/full", *words.split())
    assert (done.code, done.err) == (1, LOST + "\n")
    done = redirected(phalanx, ">&-", *words.split())
    assert (done.code, done.err) == (0, "")


def test_who_only_follows_leaves_when_its_output_is_lost(phalanx: Phalanx, tmp_path: Path) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    begun, rest = [*started(), *running()], success()[len([*started(), *running()]) :]
    phalanx.part([*map(act, begun), {"until": str(first)}, *LINES, {"until": str(last)}, *map(act, rest)])
    assert phalanx("run", "-d", "-N", "2", "--", "./hello.sh").code == 0
    first.touch()
    done = redirected(phalanx, "> /dev/full", "logs", "-f")
    assert (done.code, done.err) == (1, LOST + "\n")
    last.touch()
    assert phalanx("wait").code == 0


async def test_an_output_that_does_not_block_is_waited_for(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
    writer, data = Writer(), b"x" * 300_000
    write = asyncio.create_task(writer.write(writing, data))
    got = b""
    while len(got) < len(data):
        got += await asyncio.to_thread(os.read, reading, 65536)
    await write
    os.close(reading)
    os.close(writing)
    assert (got, writer.closed) == (data, False)
