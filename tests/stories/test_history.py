"""Runs over time: each is recorded at its end, and a model that got slower is stopped at the gate."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.stories.program import Phalanx
from tests.stories.project import make_project

#: Ranks write in turn what they are told; only the first one's line is a result.
SCRIPT = '[ "$RANK" = 0 ] && echo "performance: $SPEED tok/s"; true'
RUN = ("run", "--tags", "llm", "-N", "2", "--runtime", "process")


@pytest.fixture
def project(place: Path) -> Path:
    return make_project(place, llm=("", SCRIPT))


@pytest.mark.local
def test_two_runs_are_recorded_and_the_third_that_is_slower_ends_with_seven(
    local: Phalanx, project: Path
) -> None:
    first = local.run(*RUN, "-e", "SPEED=1861", folder=project)
    made = local.ask("baseline", "set", "main")
    assert (made.returncode, made.stderr) == (0, "")
    second = local.run(*RUN, "-e", "SPEED=1830", "--baseline", "main", folder=project)
    assert second.stderr.splitlines()[-1] == "baseline main: 1 within"

    listed = json.loads(local.ask("history", "llm", "--json").stdout)["results"]
    assert [(one["run"], one["value"], one["before"]) for one in listed] == [
        (second.id, 1830.0, 1861.0),
        (first.id, 1861.0, None),
    ]
    shown = local.ask("history").stdout
    assert f"{second.id}  llm" in shown and "-1.7 %" in shown
    assert local.ask("baseline", "check", "main").returncode == 0

    third = local.run(*RUN, "-e", "SPEED=1700", "--baseline", "main", folder=project, code=7)
    assert third.verdict["exit_code"] == 0
    assert "baseline main: 1 regressed" in third.stderr
    assert local.ask("wait").returncode == 0
    checked = local.ask("baseline", "check", "main", third.id)
    assert (checked.returncode, "-8.65%" in checked.stdout) == (7, True), checked.stdout

    again = local.ask("history", "import", *(run.folder for run in (first, second, third)))
    assert again.stdout == "0 added, 3 known before\n"


@pytest.mark.local
def test_the_node_of_the_rank_that_failed_first_is_remembered(local: Phalanx) -> None:
    fails = 'if [ "$RANK" = 1 ]; then exit 7; fi; sleep 60'
    run = local.run("run", "-N", "2", "--", "sh", "-c", fails, code=7)
    node = next(event["node"] for event in run.events("step.exited", rank=1))
    found = local.ask("history", node)
    assert found.stdout.startswith(f"{node} failed first in 1 of the last 1 run\n"), found.stderr
    assert "failed first: rank 1 exit 7" in found.stdout


@pytest.mark.local
def test_a_history_that_cannot_be_written_is_told_and_changes_nothing_else(
    local: Phalanx, place: Path
) -> None:
    damaged = place / "history.db"
    damaged.write_bytes(os.urandom(8192))
    run = local.run("run", "-N", "2", "--", "true", env={"PHALANX_HISTORY": str(damaged)})
    assert "2/2 ranks ok" in run.stderr
    assert f"! history      cannot use the history {damaged}: it is damaged" in run.stderr
    assert "it is damaged" in (run.folder / "logs" / "controller.log").read_text()
    assert run.verdict["exit_code"] == 0


@pytest.mark.local
def test_off_records_nothing(local: Phalanx, place: Path) -> None:
    run = local.run("run", "-N", "1", "--", "true", env={"PHALANX_HISTORY": "off"})
    assert "history" not in run.stderr
    assert not (place / "state").exists()
