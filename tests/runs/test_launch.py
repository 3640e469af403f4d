"""The controller's process: its own session, nothing of the client's but what it was given."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from phalanx.controller.plan.model import Plan
from phalanx.controller.runs import launch
from phalanx.controller.runs.directory import RunDirectory, create
from phalanx.controller.runs.launch import Controller, LaunchError, start_controller, wait_until_reachable

from tests.fleet.world import make_plan

pytestmark = pytest.mark.local


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create(tmp_path / "runs", "20260101-000000-demo-0a0b")


def ended(process: Controller) -> int:
    """Its exit status."""
    end = time.monotonic() + 20
    while (status := process.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    return status


def test_it_is_in_a_session_of_its_own_with_its_log_and_no_other_file(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conduct(run_dir: Path, plan: Plan, secrets: dict[str, str]) -> int:
        open_files = {path.name: os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()}
        told = {"session": os.getsid(0), "files": open_files, "secrets": secrets}
        (run_dir / "told.json").write_text(json.dumps({**told, "plan": plan.name}))
        return 7

    monkeypatch.setattr(launch, "conduct", conduct)
    plan = make_plan(2)
    with Path("/dev/zero").open("rb"):
        process = start_controller(run, plan, {"A": "b"})
    assert ended(process) == 7
    told = json.loads((run.path / "told.json").read_text())
    log = str(run.controller_log)
    assert told["session"] == process.pid != os.getsid(0)
    looking = told["files"].pop("3")
    assert looking.startswith("/proc/")
    assert told["files"] == {"0": "/dev/null", "1": log, "2": log}
    assert (told["secrets"], told["plan"]) == ({"A": "b"}, plan.name)


def test_whatever_it_raises_ends_there_and_is_in_its_log(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conduct(run_dir: Path, plan: Plan, secrets: dict[str, str]) -> int:
        raise KeyboardInterrupt("odd")

    monkeypatch.setattr(launch, "conduct", conduct)
    process = start_controller(run, make_plan(2), {})
    with pytest.raises(LaunchError, match=r"it ended with status 1\n  KeyboardInterrupt: odd"):
        wait_until_reachable(run, process)
    assert ended(process) == 1


def test_one_that_is_told_to_terminate_is_over_by_that_signal(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "conduct", lambda *given: time.sleep(60))
    process = start_controller(run, make_plan(2), {})
    process.terminate()
    assert ended(process) == -15
    process.terminate()
