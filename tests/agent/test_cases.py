"""Cases and steps of a real agent, asked for over a real connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from phalanx.agent.runtimes.base import RuntimeUnavailable
from phalanx.agent.runtimes.process import ProcessPlace, ProcessRuntime
from phalanx.protocol import messages as m

from tests.runtimes.cases import running

from .agent import Agent
from .controller import Controller

pytestmark = pytest.mark.local


async def test_a_command_runs_on_a_node_that_has_no_case(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        controller.shell("exec-1", "echo here; id -u >&2", case="", where="host")
        assert (await controller.heard(m.StepStarted)).step == "exec-1"
        assert (await controller.heard(m.StepExited)).status == 0
        assert await controller.whole("exec-1") == b"here\n"
        controller.shell("exec-2", "pwd", case="")
        assert (await controller.heard(m.StepExited)).status == 0
        assert (await controller.leave()).leftovers == ()
        assert not (agent.base / "cases" / ".host").exists()


async def test_a_command_beside_a_case_does_not_see_it(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        controller.start("exec-1", "env", case="", where="host")
        controller.start("exec-2", "env", ranks=(0,))
        await controller.heard(m.StepExited)
        await controller.heard(m.StepExited)
        beside, inside = await controller.whole("exec-1"), await controller.whole("exec-2", rank=0)
        assert b"PHALANX_SOCKET=" in inside and b"RANK=0" in inside
        assert b"PHALANX_SOCKET=" not in beside and b"RANK=" not in beside


async def test_two_commands_at_once_share_one_place_beside_the_cases(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        for number in range(4):
            controller.start(f"exec-{number}", "pwd", case="", where="host")
        for _ in range(4):
            assert (await controller.heard(m.StepExited)).status == 0
        assert list(agent.session.cases.open) == [""]


async def test_closing_a_case_leaves_commands_beside_it_alone(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        controller.shell("exec-1", "read x < fifo; echo done", case="", where="host")
        await controller.heard(m.StepStarted)
        controller.tell(m.CaseClose(8, "demo", 0.0))
        assert (await controller.heard(m.CaseClosed)).error == ""
        controller.tell(m.StepStop("", "exec-1", 0.0))
        assert (await controller.heard(m.StepExited)).step == "exec-1"


async def test_a_step_of_a_case_that_is_not_open_says_so(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        controller.start("main", "true", case="other", ranks=(0, 1))
        for rank in (0, 1):
            exited = await controller.heard(m.StepExited)
            assert (exited.rank, exited.cause) == (rank, m.Cause.NOT_STARTED)
            assert "'other' is not open" in exited.detail


async def test_a_rank_of_another_node_is_refused(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case(ranks=(0,))
        controller.start("main", "true", ranks=(5,))
        assert "rank 5 is not of this node" in (await controller.heard(m.StepExited)).detail


async def test_a_stop_that_comes_with_the_start_ends_the_step_before_it_begins(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        controller.start("main", "sleep", "311.5", ranks=(0,))
        controller.tell(m.StepStop("demo", "main", 0.0))
        exited = await controller.heard(m.StepExited)
        assert exited.cause is m.Cause.STOPPED
        assert not running("sleep 311.5")
        controller.start("post-1", "true")
        assert (await controller.heard(m.StepExited)).status == 0


async def test_a_step_ends_at_its_deadline(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        controller.shell("main", "trap 'exit 0' TERM; while :; do sleep 0.05; done", deadline_s=0.5)
        exited = await controller.heard(m.StepExited)
        assert (exited.status, exited.cause) == (124, m.Cause.DEADLINE)
        assert "0.5 s" in exited.detail


async def test_what_hangs_at_its_deadline_is_looked_at_before_it_is_ended(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        controller.start("main", "sleep", "312.5", deadline_s=0.5)
        assert (await controller.heard(m.StepExited)).cause is m.Cause.DEADLINE
        assert b"sleep 312.5" in await controller.whole("diagnostics")
        assert not running("sleep 312.5")


async def test_a_stop_within_its_grace_is_not_a_deadline(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        script = "trap : TERM; echo up; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; exit 3"
        controller.shell("main", script, deadline_s=0.8)
        while b"up" not in b"".join(bytes(log.data) for log in controller.logs.values()):
            await asyncio.sleep(0.02)
        controller.tell(m.StepStop("demo", "main", 20.0))
        exited = await controller.heard(m.StepExited)
        assert (exited.status, exited.cause) == (3, m.Cause.STOPPED)


async def test_a_second_stop_hastens_the_first(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        controller.shell("main", "trap '' TERM; echo up; while :; do sleep 0.05; done")
        while b"up" not in b"".join(bytes(log.data) for log in controller.logs.values()):
            await asyncio.sleep(0.02)
        controller.tell(m.StepStop("demo", "main", 250.0))
        controller.tell(m.StepStop("demo", "main", 0.0))
        assert (await controller.heard(m.StepExited)).cause is m.Cause.STOPPED


async def test_a_case_that_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        opened = await controller.open_case(limits=m.Limits(memory_bytes=1 << 30))
        assert "memory" in opened.error
        assert not agent.duties.exchanges
        assert not list(agent.base.glob("cases/*"))
        assert (await controller.open_case()).error == ""


async def test_a_bad_workspace_is_the_case_s_error(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        blob = controller.ship(b"this is no tar" * 100)
        assert (await controller.heard(m.BlobHave)).error == ""
        spec = m.ContainerSpec(m.Runtime.PROCESS)
        controller.tell(m.CaseOpen(1, "demo", spec, (0,), 1, blob))
        assert "not a tar" in (await controller.heard(m.CaseOpened)).error
        assert not list(agent.base.glob("cases/*"))


async def test_a_case_is_opened_once(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        assert "already" in (await controller.open_case()).error


async def test_a_close_waits_for_the_opening_it_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = ProcessRuntime.open_case
    asked = asyncio.Event()

    async def slowly(self: ProcessRuntime, *told: object) -> ProcessPlace:
        await asked.wait()
        return await opening(self, *told)  # type: ignore[arg-type]

    monkeypatch.setattr(ProcessRuntime, "open_case", slowly)
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        controller.tell(m.CaseOpen(1, "demo", m.ContainerSpec(m.Runtime.PROCESS), (0,), 1, None))
        controller.tell(m.CaseClose(2, "demo", 0.0))
        controller.tell(m.Diagnose(3, "none"))
        await controller.heard(m.Diagnosed)
        asked.set()
        assert (await controller.heard(m.CaseOpened)).error == ""
        assert (await controller.heard(m.CaseClosed)).error == ""
        assert not agent.session.cases.open


async def test_a_place_that_cannot_be_ended_is_named_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = ProcessPlace.close

    async def refuse(self: ProcessPlace, grace_s: float) -> None:
        raise RuntimeUnavailable("cannot end it: stuck")

    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        await controller.open_case()
        monkeypatch.setattr(ProcessPlace, "close", refuse)
        controller.tell(m.CaseClose(2, "demo", 0.0))
        assert "stuck" in (await controller.heard(m.CaseClosed)).error
        assert "demo" in agent.session.cases.open
        monkeypatch.setattr(ProcessPlace, "close", closing)
        assert (await controller.leave()).leftovers == ()


async def test_diagnostics_are_written_where_a_workload_cannot_redirect_them(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        await controller.open_case()
        spool = agent.base / "cases/demo/spool"
        (spool / "diagnostics.txt").symlink_to(tmp_path / "victim")
        for request in (4, 5):
            controller.tell(m.Diagnose(request, "demo"))
            assert (await controller.heard(m.Diagnosed)).error == ""
        assert await controller.whole("diagnostics")
        assert not (tmp_path / "victim").exists()
        controller.tell(m.CaseClose(2, "demo", 0.0))
        assert (await controller.heard(m.CaseClosed)).error == ""


async def test_results_are_offered_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        script = (
            'cd "$PHALANX_RESULTS"; echo a,1 >perf.csv; ln -s perf.csv latest.csv; echo x >"$OLDPWD/w.log"'
        )
        controller.shell("main", script)
        await controller.heard(m.StepExited)
        controller.tell(m.Collect(6, "demo", ("*.log",)))
        collected = await controller.heard(m.Collected)
        offers = [one.path for one in controller.said if isinstance(one, m.FileOffer)]
        assert (offers, collected.files) == (["perf.csv", "w.log"], 2)
        assert collected.left_out == ("latest.csv: links are not followed; copy the file",)
