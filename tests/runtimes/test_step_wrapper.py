"""The few lines of sh that start a command: what they say when they are killed at it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from phalanx.agent.runtimes.supervisor import STEP

pytestmark = pytest.mark.local


def wrapped(tmp_path: Path, cat: str) -> list[str]:
    """The words of the status that the wrapper leaves when ``cat`` is this script."""
    tools, step = tmp_path / "tools", tmp_path / "step"
    tools.mkdir()
    step.mkdir()
    fake = tools / "cat"
    fake.write_text(f"#!/bin/sh\n{cat}\n")
    fake.chmod(0o755)
    (step / "env").write_text("set -- echo hello\n")
    environment = {"PATH": f"{tools}:{os.environ['PATH']}"}
    argv = ["/bin/sh", "-c", STEP, "step", str(step), "-"]
    subprocess.run(argv, env=environment, check=False, timeout=20)
    return (step / "status").read_text().split()


def test_a_wrapper_that_is_killed_while_it_reads_its_command_starts_nothing_else(tmp_path: Path) -> None:
    assert wrapped(tmp_path, "kill -KILL $$")[0] == "137"


def test_a_command_that_cannot_be_read_is_not_started_and_says_why(tmp_path: Path) -> None:
    assert wrapped(tmp_path, "exit 1")[:2] == ["126", "not_started"]


def test_a_command_that_is_read_is_started(tmp_path: Path) -> None:
    assert wrapped(tmp_path, 'exec /bin/cat "$@"')[:2] == ["0", "exited"]
