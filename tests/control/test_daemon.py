"""The controller's program: what it refuses before it begins, and what a signal means each time."""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from phalanx.controller.daemon import Stopping, TooFewDescriptors, check_descriptors, into_history
from phalanx.controller.fleet.ending import ending_of
from phalanx.controller.fleet.journal import JournalError


def test_a_fleet_that_needs_more_descriptors_than_there_are_is_refused_with_the_number() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        check_descriptors(10)
        with pytest.raises(TooFewDescriptors, match="ulimit -n 728"):
            check_descriptors(200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.local
@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (None, "No such file or directory"),
        ("{", "cannot read"),
        ('{"schema": 1}', "cannot read"),
    ],
)
def test_a_plan_that_cannot_be_read_is_one_line_and_no_traceback(
    plan: str | None, words: str, tmp_path: Path
) -> None:
    if plan is not None:
        (tmp_path / "plan.json").write_text(plan)
    done = subprocess.run(
        [sys.executable, "-m", "phalanx.controller.daemon", str(tmp_path)],
        input=b"",
        capture_output=True,
        check=False,
    )
    text = done.stderr.decode()
    assert done.returncode == 1
    assert words in text
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "control.json").exists()


class Conductor:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.cancels: list[tuple[int, str]] = []

    def cancel(self, level: int, by: str) -> None:
        self.cancels.append((level, by))


async def test_the_first_signal_ends_the_second_kills_and_the_third_gives_up_once() -> None:
    conductor = Conductor()
    conducting: asyncio.Task[None] = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    stopping = Stopping(conductor, conducting)  # type: ignore[arg-type]
    for _ in range(2):
        stopping.on_signal(signal.SIGTERM)
    assert conductor.cancels == [(1, "SIGTERM"), (2, "SIGTERM")]
    assert conducting.cancelling() == 0
    for _ in range(3):
        stopping.on_signal(signal.SIGINT)
    assert conducting.cancelling() == 1
    await asyncio.wait([conducting])


def test_an_ending_says_what_is_known_of_it() -> None:
    bug = ending_of(BaseExceptionGroup("", [ExceptionGroup("", [ValueError("odd")])]))
    assert (bug.state, bug.exit_code, bug.mute) == ("failed", 1, False)
    assert bug.reason == "the controller cannot go on: ValueError: odd"
    full = ending_of(ExceptionGroup("", [ValueError("odd"), JournalError("disk full")]))
    assert (full.reason, full.mute) == ("disk full", True)
    told = ending_of(asyncio.CancelledError())
    assert (told.state, told.exit_code, told.cancelled) == ("cancelled", 130, True)


async def test_a_history_that_never_answers_does_not_hold_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer = threading.Event()
    monkeypatch.setattr("phalanx.controller.runs.history.keep", lambda run, environ: answer.wait(60))
    try:
        await into_history(tmp_path, patience_s=0.01)
    finally:
        answer.set()
    assert "the history did not take the run within 0.01 s" in caplog.text
