"""A client beside a run: every event, every line, and never a verdict that the run did not give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.control.client import (
    ContactLost,
    ControlClient,
    ControlRefused,
    ExecRequest,
    LogAdvanced,
)
from phalanx.controller.control.client import ExecExited as Exited
from phalanx.controller.control.client import ExecOutput as Output
from phalanx.controller.fleet import events as ev
from phalanx.controller.logs.follow import LogTail
from phalanx.controller.logs.show import raw
from phalanx.controller.logs.sources import Selection
from phalanx.controller.runs.attend import Attendance, Left, Manners
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.live import Screen, Writer
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.status import state_of
from phalanx.controller.runs.view import fold
from phalanx.controller.runs.watch import Disconnected, OutOfContact, Reconnected, watch
from phalanx.controller.runs.words import Style

from .fake_controller import FakeController, act
from .stories import RUN, STORIES, log_bytes, recorded, running, started, success

OUT = "logs/node1/rank0.out"


class Heard(Screen):
    """A screen that remembers."""

    pace_s = 0.001

    def __init__(self) -> None:
        super().__init__(Writer(), Style(), lambda: 0.0)
        self.lines = b""
        self.events: list[str] = []
        self.said: list[str] = []
        self.bytes_at_finish = -1

    async def log(self, data: bytes, output: str = "out") -> None:
        self.lines += data

    async def event(self, view: RunView, recorded: ev.Recorded) -> None:
        self.events.append(recorded.event.TYPE)
        if isinstance(recorded.event, ev.RunFinished):
            self.bytes_at_finish = len(self.lines)

    async def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    path = tmp_path / RUN
    path.mkdir()
    return RunDirectory(path)


async def attended(run: RunDirectory, patience_s: float = 5.0) -> tuple[Left, Heard, RunView]:
    view, screen = RunView(run_id=RUN), Heard()
    logs = LogTail(run.path, Selection(), lambda: raw, only_case=lambda: "demo")
    left = await Attendance(run, screen, logs, Manners(True, patience_s), view).stay()
    return left, screen, view


async def played(
    run: RunDirectory, acts: Sequence[dict[str, Any]], patience_s: float = 5.0
) -> tuple[Left, Heard, RunView]:
    async with FakeController(run.path, acts) as controller, asyncio.TaskGroup() as tasks:
        tasks.create_task(controller.play())
        client = tasks.create_task(attended(run, patience_s))
    return client.result()


async def test_every_event_comes_once_and_in_order_and_the_code_is_the_runs_own(run: RunDirectory) -> None:
    story = STORIES["first_failure"]
    left, screen, view = await played(run, [act(event) for event in story])
    assert left == Left(3, over=True)
    assert screen.events == [event.TYPE for event in story]
    assert view.failure is not None and view.failure.rank == 3


async def test_every_line_is_shown_before_the_end_even_if_no_notice_of_it_came(run: RunDirectory) -> None:
    text = "".join(f"line {number}\n" for number in range(5000))
    acts = [act(event) for event in [*started(), *running()]]
    acts += [{"log": OUT, "text": text[i : i + 997]} for i in range(0, len(text), 997)]
    acts += [act(event) for event in success()[-4:]]
    behind = run.path / "logs" / "node2" / "rank1.err"
    behind.parent.mkdir(parents=True)
    behind.write_bytes(b"written, never announced\nno end")
    _, screen, _ = await played(run, acts)
    assert screen.lines.count(b"line ") == 5000
    assert b"written, never announced\nno end" in screen.lines
    assert screen.bytes_at_finish == len(screen.lines)


async def test_a_controller_that_goes_silent_and_comes_back_costs_no_event_and_no_line(
    run: RunDirectory,
) -> None:
    story = success()
    acts = [act(event) for event in story[:5]]
    acts += [{"log": OUT, "text": "before\n"}, {"silence": True}]
    acts += [act(event) for event in story[5:12]]
    acts += [{"log": OUT, "text": "meanwhile\n"}, {"silence": False}]
    acts += [act(event) for event in story[12:]]
    left, screen, _ = await played(run, acts)
    assert left == Left(0, over=True)
    assert screen.events == [event.TYPE for event in story]
    assert screen.lines == b"before\nmeanwhile\n"


async def test_a_run_that_ends_while_the_socket_is_gone_is_read_from_disk(run: RunDirectory) -> None:
    run.events.write_bytes(log_bytes(success()))
    left, screen, _ = await attended(run)
    assert left == Left(0, over=True)
    assert screen.events[-1] == "run.finished"


async def test_lost_contact_is_no_success_and_no_failure_and_says_where_to_look(run: RunDirectory) -> None:
    run.events.write_bytes(log_bytes(STORIES["unfinished"]))
    left, screen, view = await attended(run, patience_s=0.2)
    assert (left.code, left.over) == (75, False)
    assert f"the run may still be going: phalanx status {RUN}" in left.words
    assert not view.finished
    assert screen.said[0].startswith("lost the controller")


async def test_a_half_written_last_event_is_waited_for(run: RunDirectory) -> None:
    whole = log_bytes(success())
    run.events.write_bytes(whole[:-20])
    left, screen, _ = await attended(run, patience_s=0.2)
    assert left.code == 75
    assert screen.events[-1] != "run.finished"


async def test_watching_tells_of_a_break_and_of_its_end(run: RunDirectory, tmp_path: Path) -> None:
    story = [act(event) for event in success()]
    gate = tmp_path / "noticed"
    acts = [*story[:7], {"silence": True}, {"until": str(gate)}, {"silence": False}, *story[7:]]
    seen: list[Any] = []
    async with FakeController(run.path, acts) as controller, asyncio.TaskGroup() as tasks:
        tasks.create_task(controller.play())
        async for one in watch(run, 5.0):
            seen.append(one)
            if isinstance(one, Disconnected):
                gate.touch()
    kinds = [type(one) for one in seen if isinstance(one, Disconnected | Reconnected)]
    assert kinds in ([Disconnected, Reconnected], [Disconnected])
    assert [one.seq for one in seen if isinstance(one, ev.Recorded)] == list(range(1, len(story) + 1))


async def test_without_any_controller_watching_gives_up_after_its_patience(run: RunDirectory) -> None:
    with pytest.raises(OutOfContact, match=r"control\.json"):
        async for _ in watch(run, 0.1):
            pass


async def test_an_event_line_larger_than_any_buffer_arrives_whole(run: RunDirectory) -> None:
    rows = tuple({"model": "demo", "detail": "x" * 1000} for _ in range(2000))
    story = [*started(), ev.CaseFinished("demo", "SUCCESS", "", rows), ev.RunFinished("succeeded", 0, "")]
    _, _, view = await played(run, [act(event) for event in story])
    assert view.rows == 2000


# --- the control client by itself ----------------------------------------------------------------------


async def test_cancel_and_nodes_and_notices_are_typed(run: RunDirectory) -> None:
    acts = [act(event) for event in started()] + [{"log": OUT, "text": "x\n"}]
    async with FakeController(run.path, acts) as controller:
        client = ControlClient(controller.socket)
        await controller.play()
        await client.cancel(2, "alice")
        assert controller.cancels == [{"level": 2, "by": "alice"}]
        assert [(node.node, node.state) for node in await client.nodes()] == [
            ("node1", "joined"),
            ("node2", "joined"),
        ]
        seen = [one async for one in client.watch(3)]
    assert LogAdvanced({OUT: 2}) in seen
    assert [one.seq for one in seen if isinstance(one, ev.Recorded)] == [4, 5, 6, 7]


async def test_exec_gives_output_and_ends(run: RunDirectory) -> None:
    async with FakeController(run.path, []) as controller:
        client = ControlClient(controller.socket)
        seen = [
            one async for one in client.exec(ExecRequest(("uname",), ("node2",), "host", {"A": "b"}, 5.0))
        ]
        (asked,) = controller.execs
        assert asked == {
            "argv": ["uname"],
            "nodes": ["node2"],
            "where": "host",
            "env": {"A": "b"},
            "deadline_s": 5.0,
            "case": "",
        }
    assert (
        b"".join(one.data for one in seen if isinstance(one, Output) and one.output == "out")
        == b"same\nname of node2"
    )
    assert [(one.node, one.status) for one in seen if isinstance(one, Exited)] == [("node2", 3)]


async def test_a_refusal_has_the_controllers_words(run: RunDirectory) -> None:
    async with FakeController(run.path, []) as controller:
        client = ControlClient(controller.socket)
        with pytest.raises(ControlRefused, match="no case is open"):
            async for _ in client.exec(ExecRequest(("refuse",))):
                pass


async def test_a_socket_that_nobody_serves_is_lost_contact(tmp_path: Path) -> None:
    with pytest.raises(ContactLost, match="nothing answers on its socket"):
        await ControlClient(tmp_path / "none").nodes()


# --- what ps and status say ----------------------------------------------------------------------------


async def test_a_run_whose_controller_is_dead_is_lost_and_one_that_answers_is_what_its_log_says(
    run: RunDirectory,
) -> None:
    run.events.write_bytes(log_bytes(STORIES["unfinished"]))
    view = fold(recorded(STORIES["unfinished"]), RUN)
    now = run.path.stat().st_mtime
    assert state_of(run, view, now + 3600) == "lost"
    async with FakeController(run.path, []):
        assert state_of(run, view, now + 3600) == "running"
    run.control.write_text(json.dumps({"pid": 1, "socket": str(run.path / "gone"), "started_at": 0}))
    assert state_of(run, view, now) == "lost"


def test_a_run_that_was_just_made_is_starting_and_an_old_one_without_events_is_lost(
    run: RunDirectory,
) -> None:
    now = run.path.stat().st_mtime
    assert state_of(run, RunView(), now) == "starting"
    assert state_of(run, RunView(), now + 3600) == "lost"


@pytest.mark.parametrize("story", [name for name, events in STORIES.items() if name != "unfinished"])
def test_a_finished_run_needs_no_controller_to_say_how_it_ended(run: RunDirectory, story: str) -> None:
    view = fold(recorded(STORIES[story]), RUN)
    assert state_of(run, view, 9e9) == view.state
