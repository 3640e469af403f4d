"""A controller that cannot go on leaves nothing behind: agents end, nodes are given back, and it says so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from phalanx.controller.fleet import conductor as shell
from phalanx.controller.fleet.conductor import Conductor
from phalanx.controller.fleet.journal import JournalError
from phalanx.controller.targets.base import (
    Allocation,
    AllocationHealth,
    AllocationReport,
    Bootstrap,
    SpawnError,
    Words,
)

from .world import make_plan


class Spawned:
    """Agents that never join and end when they are told to."""

    argv = ("srun", "agent")

    def __init__(self, target: Target) -> None:
        self._target = target
        self._over = asyncio.Event()

    async def wait(self) -> tuple[int, str]:
        await self._over.wait()
        return 0, ""

    def reason(self, node: str) -> str:
        return ""

    async def end(self, grace_s: float) -> None:
        self._target.happened.append("ended")
        if self._target.end_error is not None:
            raise self._target.end_error
        self._over.set()


class Target:
    """One node of a scheduler that keeps account."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.end_error: Exception | None = None
        self.release_words = ""
        self.spawned = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def listen_addresses(self) -> tuple[str, ...]:
        return ("127.0.0.1",)

    def allocation_argv(self) -> tuple[str, ...]:
        return ("salloc",)

    async def allocate(self) -> Allocation:
        return Allocation("77", ("n0",), True)

    async def spawn(
        self, allocation: Allocation, bootstrap: Bootstrap, agent: Path, launch_dir: Path, words: Words
    ) -> Spawned:
        self.spawned.set()
        await self.go_on.wait()
        if "unspawnable" in self.happened:
            raise SpawnError("no srun here")
        self.happened.append("spawned")
        return Spawned(self)

    async def report(self, allocation: Allocation) -> AllocationReport:
        return AllocationReport(AllocationHealth.RUNNING, "RUNNING", "")

    def give_back_argv(self, allocation: Allocation) -> tuple[str, ...]:
        return ()

    async def release(self, allocation: Allocation) -> str:
        self.happened.append("released")
        return self.release_words


class Run:
    """A conductor on that target, in a run directory of its own."""

    def __init__(self, folder: Path, cases: int = 2) -> None:
        self.folder = folder
        self.target = Target()
        self.lines: list[bytes] = []
        self._changed = asyncio.Event()
        self.conductor = Conductor(
            folder, make_plan(1, cases), lambda name: "", self.target, self._publish, lambda *told: None
        )
        self.task = asyncio.create_task(self.conductor.conduct())

    def _publish(self, seq: int, line: bytes) -> None:
        self.lines.append(line)
        self._changed.set()

    async def until(self, kind: str) -> None:
        """Wait until an event of this type is true."""
        async with asyncio.timeout(20):
            while not any(f'"type":"{kind}"'.encode() in line for line in self.lines):
                self._changed.clear()
                await self._changed.wait()

    async def ends_with(self, error: type[BaseException]) -> BaseException:
        """Wait for the end; the error of that type."""
        async with asyncio.timeout(30):
            await asyncio.wait([self.task])
        raised = None if self.task.cancelled() else self.task.exception()
        if isinstance(raised, BaseExceptionGroup):
            raised = raised.exceptions[0]
        if self.task.cancelled():
            raised = asyncio.CancelledError()
        assert isinstance(raised, error)
        return raised

    @property
    def last(self) -> dict[str, object]:
        """The last event of the log on disk."""
        document = json.loads((self.folder / "events.jsonl").read_bytes().splitlines()[-1])
        return {"type": document["type"], **document["data"]}

    @property
    def rows(self) -> list[str]:
        """Cases with a verdict, by their status."""
        found = [json.loads(line) for line in (self.folder / "events.jsonl").read_bytes().splitlines()]
        return [one["data"]["status"] for one in found if one["type"] == "case.finished"]


@pytest.fixture
async def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("phalanx.controller.fleet.engine.LEAVE_SLACK_S", 0.1)
    folder = tmp_path / "run"
    folder.mkdir()
    return Run(folder)


def explode(*args: object) -> None:
    raise RuntimeError("a bug")


async def test_an_event_log_that_cannot_be_written_ends_agents_and_gives_nodes_back(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await run.until("spawn.started")

    def full(*args: object) -> None:
        raise JournalError("cannot write events.jsonl: No space left on device")

    monkeypatch.setattr(run.conductor._chronicle._journal, "append", full)
    run.conductor.cancel(1, "someone")
    await run.ends_with(JournalError)
    assert run.target.happened == ["spawned", "ended", "released"]
    assert run.last["type"] == "spawn.started"
    assert "No space left on device; telling agents to leave and giving the nodes back" in caplog.text


async def test_a_bug_in_one_task_gives_a_row_to_every_case_and_a_last_event(run: Run) -> None:
    await run.until("spawn.started")
    run.conductor.start(asyncio.to_thread(explode), name="a bug")
    await run.ends_with(RuntimeError)
    assert run.target.happened == ["spawned", "ended", "released"]
    assert run.rows == ["FAILURE", "FAILURE"]
    assert (run.last["type"], run.last["state"], run.last["exit_code"]) == ("run.finished", "failed", 1)
    assert run.last["reason"] == "the controller cannot go on: RuntimeError: a bug"


async def test_a_bug_in_a_timer_ends_the_run_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    await run.until("spawn.started")
    monkeypatch.setattr(type(run.conductor.engine), "on_timer", explode)
    run.conductor._timers.set("join", 0.0)
    await run.ends_with(RuntimeError)
    assert run.target.happened == ["spawned", "ended", "released"]


async def test_a_controller_that_is_told_to_stop_at_once_says_cancelled(run: Run) -> None:
    await run.until("spawn.started")
    run.task.cancel()
    await run.ends_with(asyncio.CancelledError)
    assert run.target.happened == ["spawned", "ended", "released"]
    assert run.rows == ["CANCELLED", "CANCELLED"]
    assert (run.last["state"], run.last["exit_code"]) == ("cancelled", 130)


async def test_agents_that_are_just_being_started_are_not_forgotten(run: Run) -> None:
    run.target.go_on.clear()
    await run.target.spawned.wait()
    run.task.cancel()
    asyncio.get_running_loop().call_later(0.05, run.target.go_on.set)
    await run.ends_with(asyncio.CancelledError)
    assert run.target.happened == ["spawned", "ended", "released"]


async def test_a_cancel_while_agents_are_being_started_ends_them_before_nodes_are_given_back(
    run: Run,
) -> None:
    run.target.go_on.clear()
    await run.target.spawned.wait()
    run.conductor.cancel(2, "someone")
    await run.until("run.ending")
    asyncio.get_running_loop().call_later(0.05, run.target.go_on.set)
    async with asyncio.timeout(30):
        await run.task
    assert run.target.happened == ["spawned", "ended", "released"]
    assert (run.last["state"], run.last["exit_code"]) == ("cancelled", 130)


@pytest.mark.parametrize("trouble", ["end", "release"])
async def test_what_could_not_be_given_back_is_named(run: Run, trouble: str) -> None:
    if trouble == "end":
        run.target.end_error = OSError("scancel is gone")
    else:
        run.target.release_words = "slurmctld does not answer"
    await run.until("spawn.started")
    run.conductor.start(asyncio.to_thread(explode), name="a bug")
    await run.ends_with(RuntimeError)
    assert run.target.happened == ["spawned", "ended", "released"]
    words = {
        "end": ["agents may be left on their nodes: scancel is gone"],
        "release": ["allocation 77: slurmctld does not answer"],
    }
    assert run.last["leftovers"] == words[trouble]


async def test_results_that_cannot_be_judged_are_a_failure_and_no_end_of_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "judge", explode)
    await run.until("spawn.started")
    run.conductor.cancel(1, "someone")
    async with asyncio.timeout(40):
        await run.task
    assert run.rows == ["FAILURE", "FAILURE"]
    assert run.last["type"] == "run.finished"


async def test_files_of_the_run_tell_how_it_ended(run: Run) -> None:
    await run.until("spawn.started")
    run.task.cancel()
    await run.ends_with(asyncio.CancelledError)
    launch = json.loads((run.folder / "launch" / "argv.json").read_bytes())
    assert launch == {"v": 1, "allocation": ["salloc"], "spawn": [["srun", "agent"]]}
    assert (run.folder / "launch" / "srun.sh").read_text().endswith("\nsalloc\nsrun agent\n")
    status = json.loads((run.folder / "status.json").read_bytes())
    assert (status["state"], status["exit_code"], status["seq"]) == ("cancelled", 130, len(run.lines))
    assert not (run.folder / ".reserve").exists()
