"""An agent and the real door of a controller: joining, coming back, leaving, giving up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from phalanx.agent import session as session_module
from phalanx.agent.cases import Cases
from phalanx.agent.session import ABANDONED, FENCED, LEFT, NotJoined
from phalanx.controller.fleet.events import AgentJoined
from phalanx.controller.plan.model import Timing
from phalanx.protocol import lifeline
from phalanx.protocol import messages as m

from tests.runtimes.cases import running

from .agent import Agent
from .controller import NODE, Controller
from .wire import Wire

pytestmark = pytest.mark.local

#: Short enough for a test to wait for its end.
SHORT = Timing(heartbeat_s=0.1, dead_after_s=0.8, lease_s=1.5)


@asynccontextmanager
async def over_a_wire(
    folder: Path, timing: Timing | None = None
) -> AsyncIterator[tuple[Controller, Wire, Agent]]:
    """A controller, an agent of it, and the network between them."""
    async with (
        Controller(timing) as controller,
        Wire(controller.addresses[0]) as wire,
        Agent(folder, controller.bootstrap(wire.address)) as agent,
    ):
        yield controller, wire, agent


async def test_an_agent_joins_reports_what_its_node_is_and_leaves_nothing(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        facts = await controller.heard(m.Facts)
        assert facts.cpus > 0
        left = await controller.leave()
        assert await agent.status() == LEFT
        assert left.leftovers == ()
        assert not list(agent.base.glob("cases/*"))


async def test_what_comes_with_the_welcome_is_not_lost(tmp_path: Path) -> None:
    async with Controller() as controller:
        controller.hub.on_control = lambda node: controller.tell(m.Diagnose(42, "none"))
        async with Agent(tmp_path, controller.bootstrap()):
            assert (await controller.heard(m.Diagnosed)).request == 42


async def test_an_agent_whose_link_is_cut_comes_back_as_the_same(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        await controller.open_case()
        controller.start("main", "sleep", "300")
        await controller.heard(m.StepStarted)
        controller.cut()
        controller.tell(m.StepStop("demo", "main", 0.0))
        assert (await controller.heard(m.StepExited)).cause is m.Cause.STOPPED
        joins = [event for event in controller.events if isinstance(event, AgentJoined)]
        assert [event.resumed for event in joins] == [False, True]
        assert {event.incarnation for event in joins} == {agent.session.incarnation}


async def test_an_agent_that_hears_nothing_ends_what_it_runs_with_its_lease(tmp_path: Path) -> None:
    async with over_a_wire(tmp_path, SHORT) as (controller, wire, agent):
        await controller.open_case()
        controller.start("main", "sleep", "301.5")
        await controller.heard(m.StepStarted)
        wire.up = wire.down = False
        began = time.monotonic()
        assert await agent.status() == ABANDONED
        assert SHORT.lease_s - 0.3 < time.monotonic() - began < SHORT.lease_s + 5
        assert not running("sleep 301.5")


async def test_an_agent_that_hears_but_is_not_heard_gives_up_as_well(tmp_path: Path) -> None:
    async with over_a_wire(tmp_path, SHORT) as (controller, wire, agent):
        await controller.open_case()
        controller.start("main", "sleep", "302.5")
        await controller.heard(m.StepStarted)
        wire.up = False
        assert await agent.status() == ABANDONED
        assert not running("sleep 302.5")


async def test_a_break_shorter_than_the_lease_ends_nothing(tmp_path: Path) -> None:
    timing = Timing(heartbeat_s=0.1, dead_after_s=0.5, lease_s=20.0)
    async with over_a_wire(tmp_path, timing) as (controller, wire, _):
        await controller.open_case()
        controller.shell("main", "while [ ! -e go ]; do sleep 0.05; done; echo went on")
        await controller.heard(m.StepStarted)
        wire.up = wire.down = False
        while controller.hub.peers[NODE].control is not None:
            await asyncio.sleep(0.02)
        wire.up = wire.down = True
        wire.cut()
        (tmp_path / "base/cases/demo/work/go").touch()
        assert (await controller.heard(m.StepExited)).status == 0
        assert await controller.whole("main") == b"went on\n"


async def test_only_a_controller_that_is_no_more_makes_an_agent_give_the_allocation_back(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "given back"
    for case, gone in (("cut off", False), ("gone", True)):
        async with Controller(SHORT) as controller, Wire(controller.addresses[0]) as wire:
            addresses = controller.addresses if gone else (wire.address,)
            bootstrap = controller.bootstrap(*addresses, give_back=("touch", str(mark)))
            async with Agent(tmp_path / case, bootstrap) as agent:
                await controller.heard(m.Facts)
                if gone:
                    await controller.vanish()
                else:
                    wire.up = wire.down = False
                assert await agent.status() == ABANDONED
                assert mark.exists() is gone


async def test_a_fenced_agent_ends_what_it_runs_and_goes(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        await controller.open_case()
        controller.start("main", "sleep", "303.5")
        await controller.heard(m.StepStarted)
        controller.tell(m.Fence("a newer incarnation exists"))
        assert await agent.status() == FENCED
        assert not running("sleep 303.5")


async def test_leaving_ends_steps_first_and_their_output_arrives(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        await controller.open_case()
        controller.shell("main", "echo before; exec sleep 304.5")
        await controller.heard(m.StepStarted)
        left = await controller.leave()
        assert left.leftovers == ()
        assert (await controller.heard(m.StepExited)).cause is m.Cause.STOPPED
        assert await agent.status() == LEFT
        assert not running("sleep 304.5")
        assert not list(agent.base.glob("cases/*"))


async def test_a_node_that_is_taken_away_saves_its_steps_and_starts_no_more(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        await controller.open_case()
        controller.shell("main", "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.1; done")
        await controller.heard(m.StepStarted)
        while b"ready" not in controller.log("main").data:
            await asyncio.sleep(0.02)
        await asyncio.gather(agent.session.drain("SIGTERM"), agent.session.drain("SIGTERM again"))
        assert (await controller.heard(m.Draining)).reason == "SIGTERM"
        assert (await controller.heard(m.StepExited)).cause is m.Cause.STOPPED
        assert await controller.whole("main") == b"ready\nsaved\n"
        controller.start("post-1", "true")
        assert (await controller.heard(m.StepExited)).cause is m.Cause.NOT_STARTED
        await controller.leave()
        assert await agent.status() == LEFT


async def test_a_drain_and_a_leave_at_once_end_in_a_goodbye(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        await controller.open_case()
        controller.start("main", "sleep", "305.5")
        await controller.heard(m.StepStarted)
        controller.tell(m.Leave("cancelled", 0.5))
        await agent.session.drain("SIGTERM")
        assert (await controller.heard(m.Left)).leftovers == ()
        assert await agent.status() == LEFT


async def test_the_last_words_wait_for_a_link_that_is_just_being_made_anew(tmp_path: Path) -> None:
    async with over_a_wire(tmp_path) as (controller, wire, agent):
        await controller.heard(m.Facts)
        controller.tell(m.Leave("over", 0.0))
        while not agent.session._leaving:
            await asyncio.sleep(0)
        wire.cut()
        assert await agent.status() == LEFT
        assert (await controller.heard(m.Left)).leftovers == ()


async def test_a_message_against_the_rules_costs_the_link_and_nothing_else(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.open_case()
        controller.start("main", "sleep", "306.5")
        await controller.heard(m.StepStarted)
        stream = controller.log("main").opening.stream
        controller.tell(m.LogAck(stream, 1 << 40, 0))
        controller.tell(m.Diagnose(9, "none"))
        assert (await controller.heard(m.Diagnosed)).request == 9
        assert len([event for event in controller.events if isinstance(event, AgentJoined)]) == 2


def broken(self: Cases, message: m.Message) -> None:
    raise RuntimeError("a bug")


async def test_a_bug_in_one_handler_is_told_and_loses_no_other_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        await controller.heard(m.Facts)
        monkeypatch.setattr(Cases, "start_step", broken)
        controller.start("main", "true")
        controller.tell(m.Diagnose(5, "none"))
        assert "a bug" in (await controller.heard(m.Notice)).text
        assert (await controller.heard(m.Diagnosed)).request == 5


async def test_an_agent_that_could_not_tell_everything_does_not_go_on_as_if_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "KEPT_BYTES", 4096)
    async with over_a_wire(tmp_path) as (controller, wire, agent):
        await controller.heard(m.Facts)
        wire.down = False  # nothing is confirmed any more
        for _ in range(10):
            agent.session.notice("x" * 1000)
        assert await agent.status() == ABANDONED


async def test_a_workload_is_told_to_wait_before_it_crowds_out_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "KEPT_BYTES", 4096)
    async with over_a_wire(tmp_path) as (controller, wire, agent):
        assert (await controller.open_case()).error == ""
        exchange = agent.duties.exchanges["demo"]
        await exchange.metric(0, "loss", 1.0, "")
        wire.down = False
        agent.session.notice("x" * 4000)
        with pytest.raises(Exception, match="try again later"):
            await exchange.metric(0, "loss", 1.0, "")


async def test_nobody_there_is_said_with_every_address(tmp_path: Path) -> None:
    async with Controller() as controller:
        addresses = (("127.0.0.1", 1), ("127.0.0.2", 1))
        bootstrap = controller.bootstrap(*addresses, join_timeout_s=0.3)
        agent = Agent(tmp_path, bootstrap)
        with pytest.raises(
            NotJoined, match=r"127\.0\.0\.1:1: .*refused.*; 127\.0\.0\.2:1|127\.0\.0\.2:1: .*"
        ):
            await agent.session.join()


async def test_tasks_do_not_outlive_the_session(tmp_path: Path) -> None:
    async with Controller() as controller:
        before = asyncio.all_tasks()
        async with Agent(tmp_path, controller.bootstrap()) as agent:
            await controller.open_case()
            controller.ship(b"never served", request=3)
            controller.tell(m.Leave("over", 0.0))
            assert await agent.status() == LEFT
        left = {task.get_name() for task in asyncio.all_tasks() - before if not task.done()}
        assert not [name for name in left if not name.startswith(("TLS", "Task"))]


def test_the_folder_of_an_agent_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    base = session_module.make_base("run", 3, "cafe0123" + "0" * 24)
    assert base.stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileExistsError):
        session_module.make_base("run", 3, "cafe0123" + "0" * 24)
