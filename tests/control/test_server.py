"""The control socket: nothing lost or told twice, bad questions answered in words, strangers kept out."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from phalanx.controller.control import server
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.states import Phase
from phalanx.controller.logs.paths import StreamName
from phalanx.protocol.membership import Member
from phalanx.protocol.messages import StepStop

from .desk import Desk, desk


async def numbers(one: Desk, after: int, upto: int) -> list[int]:
    """Sequence numbers that a watcher is told, until ``upto`` came or the stream ended."""
    told: list[int] = []
    async with one.http() as http, http.get(f"/v1/watch?from={after}") as reply:
        assert reply.status == 200
        async for line in reply.content:
            document = json.loads(line)
            if "seq" in document:
                told.append(document["seq"])
                if told[-1] >= upto:
                    break
    return told


async def test_watchers_that_come_at_any_time_get_every_event_once_and_in_order(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        recording = asyncio.create_task(one.record(2000))
        watching = []
        for after in (0, 0, 5, 100, 1999):
            watching.append(asyncio.create_task(numbers(one, after, 2000)))
            await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            told = await asyncio.gather(*watching)
        await recording
        assert told == [list(range(after + 1, 2001)) for after in (0, 0, 5, 100, 1999)]


async def test_a_watcher_that_does_not_read_is_dropped_and_gets_the_rest_when_it_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WATCHER_LINES", 10)
    async with desk(tmp_path) as one:
        queue = one.watchers.join()
        await one.record(500)
        async with asyncio.timeout(20):
            while one.watchers.told < 500:
                await asyncio.sleep(0.01)
        assert queue.qsize() == 10
        assert not one.watchers.has(queue)
        assert await numbers(one, 10, 500) == list(range(11, 501))


async def test_a_torn_line_and_what_is_not_yet_published_are_not_told(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.record(3)
        async with asyncio.timeout(20):
            while one.watchers.told < 3:
                await asyncio.sleep(0.01)
        with (tmp_path / "events.jsonl").open("ab") as file:
            file.write(b'{"v":1,"seq":4,"type":"agent.notice","data":{}}\n{"v":1,"se')
        assert server._lines_between(tmp_path / "events.jsonl", 1, 3).count(b"\n") == 2


async def test_the_stream_ends_when_the_run_is_over(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        watching = asyncio.create_task(numbers(one, 0, 10**9))
        await one.record(5)
        async with asyncio.timeout(20):
            while one.watchers.told < 5:
                await asyncio.sleep(0.01)
            await one.watchers.close()
            assert await watching == [1, 2, 3, 4, 5]


async def test_sizes_of_logs_are_told_when_they_are_on_disk(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http, http.get("/v1/watch") as reply:
        assert json.loads(await reply.content.readline())["data"] == {}
        telling = asyncio.create_task(one.server.keep_telling())
        stream = one.store.open(StreamName("n0", "case0", "main", 0, "out"))
        one.store.data(stream, 0, 1.0, b"hello\n")
        await one.store.sync()
        async with asyncio.timeout(10):
            told = json.loads(await reply.content.readline())
        telling.cancel()
        assert told == {"v": 1, "type": "log.advanced", "data": {"logs/n0/rank0.out": 6}}


BAD: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/v1/watch?from=abc", None, 400, "from: expected the number of an event"),
    ("GET", "/v1/watch?from=-1", None, 400, "from: expected"),
    ("GET", "/v1/watch?from=" + "9" * 30, None, 400, "from: expected"),
    ("GET", "/v1/nowhere", None, 404, "Not Found"),
    ("GET", "/v1/cancel", None, 405, "Method Not Allowed"),
    ("POST", "/v1/cancel", b"{", 400, "the body is not JSON"),
    ("POST", "/v1/cancel", b"[" * 100_000, 400, "the body is not JSON"),
    ("POST", "/v1/cancel", [], 400, "the body is not an object"),
    ("POST", "/v1/cancel", {"level": 3}, 400, "level: expected 1"),
    ("POST", "/v1/cancel", {"level": True}, 400, "level: expected 1"),
    ("POST", "/v1/cancel", {"level": "1"}, 400, "level: expected 1"),
    ("POST", "/v1/cancel", {"level": [1]}, 400, "level: expected 1"),
    ("POST", "/v1/cancel", {"by": 7}, 400, "by: expected"),
    ("POST", "/v1/exec", {}, 400, "argv: expected"),
    ("POST", "/v1/exec", {"argv": "ls"}, 400, "argv: expected"),
    ("POST", "/v1/exec", {"argv": [1]}, 400, "argv: expected"),
    ("POST", "/v1/exec", {"argv": ["ls"], "nodes": "n0"}, 400, "nodes: expected"),
    ("POST", "/v1/exec", {"argv": ["ls"], "env": {"A": 1}}, 400, "env: expected"),
    ("POST", "/v1/exec", {"argv": ["ls"], "where": []}, 400, "where: expected"),
    ("POST", "/v1/exec", {"argv": ["ls"], "deadline_s": "soon"}, 400, "deadline_s: expected"),
    ("POST", "/v1/exec", {"argv": ["ls"], "deadline_s": -1}, 400, "deadline_s: expected"),
    ("POST", "/v1/exec", {"argv": ["x" * 200_000]}, 400, "cannot send StepStart"),
    ("POST", "/v1/exec", {"argv": ["ls"], "nodes": ["n7"]}, 409, "no agent is on n7"),
    ("POST", "/v1/exec", {"argv": ["ls"], "nodes": []}, 409, "no agent is there"),
    ("POST", "/v1/image", {}, 400, "reference: expected"),
    ("POST", "/v1/image", {"reference": "a b"}, 400, "'a b' is no image name"),
    ("POST", "/v1/image", {"reference": "a:1", "archive": "a.tar"}, 400, "archive: expected an absolute"),
    ("POST", "/v1/image", {"reference": "a:1", "archive": 7}, 400, "archive: expected"),
    ("POST", "/v1/image", {"reference": "a:1", "archive": "/a\0b"}, 400, "archive: expected"),
    ("POST", "/v1/image", {"reference": "a:1", "nodes": "n0"}, 400, "nodes: expected"),
    ("POST", "/v1/image", {"reference": "a:1", "nodes": ["n7"]}, 409, "no agent is on n7"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), BAD)
async def test_a_bad_question_gets_words_as_json_and_does_nothing(
    method: str, path: str, body: Any, status: int, words: str, tmp_path: Path
) -> None:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    async with desk(tmp_path) as one, one.http() as http, http.request(method, path, data=data) as reply:
        assert reply.status == status
        document = await reply.json()
        assert words in document["error"]
        assert (one.cancels, one.hub.told, one.wanted) == ([], [], [])


async def test_cancel_reaches_the_run(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        async with http.post("/v1/cancel", json={"level": 2, "by": "someone"}) as reply:
            assert (reply.status, await reply.json()) == (200, {})
        assert one.cancels == [(2, "someone")]


async def test_nodes_are_told_with_their_state(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http, http.get("/v1/nodes") as reply:
        nodes = (await reply.json())["nodes"]
        assert [(node["node"], node["state"]) for node in nodes] == [("n0", "joined"), ("n1", "joined")]


async def exec_lines(reply: aiohttp.ClientResponse) -> list[tuple[str, dict[str, Any]]]:
    """What a command's stream says, to its end."""
    return [(one["type"], one["data"]) for one in [json.loads(line) async for line in reply.content]]


async def test_a_command_tells_all_output_of_a_node_before_its_end_and_then_that_it_is_done(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        text = os.urandom(300_000)
        async with http.post("/v1/exec", json={"argv": ["ls"]}) as reply:
            reading = asyncio.create_task(exec_lines(reply))
            start = await one.step()
            one.exit(start, "n0", 0)
            await one.write(start, "n0", text)
            await one.write(start, "n1", b"x")
            one.exit(start, "n1", 3)
            async with asyncio.timeout(20):
                lines = await reading
        assert lines[0] == ("exec.started", {"step": "exec-1", "nodes": ["n0", "n1"]})
        assert lines[-1] == ("exec.done", {})
        pieces = [data["b64"] for kind, data in lines if kind == "exec.output" and data["node"] == "n0"]
        assert b"".join(map(base64.b64decode, pieces)) == text
        ends = {data["node"]: data["status"] for kind, data in lines if kind == "exec.exited"}
        assert ends == {"n0": 0, "n1": 3}
        kinds = [(kind, data.get("node")) for kind, data in lines]
        last = max(place for place, found in enumerate(kinds) if found == ("exec.output", "n0"))
        assert last < kinds.index(("exec.exited", "n0"))


async def test_a_node_that_is_lost_ends_its_part_of_a_command(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        async with http.post("/v1/exec", json={"argv": ["ls"], "nodes": ["n1", "n1"]}) as reply:
            reading = asyncio.create_task(exec_lines(reply))
            await one.step()
            one.engine.roster.nodes["n1"].state = Member.LOST
            async with asyncio.timeout(20):
                lines = await reading
        assert [data for kind, data in lines if kind == "exec.exited"] == [
            {"node": "n1", "status": 255, "cause": "lost", "detail": "the node was lost"}
        ]


async def test_who_leaves_stops_the_command(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        async with http.post("/v1/exec", json={"argv": ["sleep", "100"]}) as reply:
            await reply.content.readline()
            start = await one.step()
        async with asyncio.timeout(20):
            while len(one.hub.told) < 2:
                one.exit(start, "nowhere", 0)
                await one.write(start, "n0", b"x" * 100)
        assert one.hub.told[1] == (("n0", "n1"), StepStop("case0", "exec-1", 2.0))


async def test_who_leaves_stops_a_command_that_says_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        async with http.post("/v1/exec", json={"argv": ["sleep", "100"]}) as reply:
            await reply.content.readline()
            await one.step()
        async with asyncio.timeout(5):
            while len(one.hub.told) < 2:
                await asyncio.sleep(0.01)
        assert one.hub.told[1] == (("n0", "n1"), StepStop("case0", "exec-1", 2.0))


async def image_lines(reply: aiohttp.ClientResponse) -> list[tuple[str, dict[str, Any]]]:
    """What the stream of a request for an image says of it, to its end."""
    told = [json.loads(line) async for line in reply.content]
    return [(one["type"], one["data"]) for one in told if one["type"] != "heartbeat"]


async def test_who_asks_for_an_image_is_told_of_it_alone_and_to_its_end(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        wanted = {"reference": "a:1", "archive": "/tmp/a.tar", "nodes": ["n1", "n1"]}
        async with http.post("/v1/image", json=wanted) as reply:
            reading = asyncio.create_task(image_lines(reply))
            ready = ev.ImageReady("a:1", "sha256:1", 1, 0.5)
            one.chronicle.record(ready)  # of the run's own image
            await one.record(3)
            one.chronicle.record(ev.SlowNodes(("n1",), request=2))
            one.watchers.progress("image", "n1", 1, 2)
            one.chronicle.record(replace(ready, request=2))
            async with asyncio.timeout(20):
                lines = await reading
        assert sorted(kind for kind, _ in lines) == ["image.ready", "image.slow", "progress"]
        assert lines[-1][1]["request"] == 2
        assert (one.wanted, one.called_off) == ([("a:1", "/tmp/a.tar", ("n1",))], [])


async def test_an_image_goes_to_all_nodes_unless_one_is_silent_or_some_are_named(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        async with http.post("/v1/image", json={"reference": "a:1"}):
            pass
        one.engine.roster.nodes["n0"].state = Member.SILENT
        async with http.post("/v1/image", json={"reference": "a:1"}) as reply:
            assert reply.status == 409
            assert "n0 is not heard from" in (await reply.json())["error"]
        async with http.post("/v1/image", json={"reference": "a:1", "nodes": ["n1"]}):
            pass
        assert one.wanted == [("a:1", "", ("n0", "n1")), ("a:1", "", ("n1",))]


async def test_who_leaves_calls_the_image_off_though_nothing_happens(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        async with http.post("/v1/image", json={"reference": "a:1"}):
            pass
        async with asyncio.timeout(2):  # less than the pause between signs of life
            while not one.called_off:
                await asyncio.sleep(0.01)
        assert one.called_off == [2]


async def test_who_does_not_read_of_an_image_for_too_long_has_called_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WATCHER_LINES", 10)
    async with desk(tmp_path) as one, one.http() as http:
        async with http.post("/v1/image", json={"reference": "a:1"}) as reply:
            for _ in range(50):  # without a pause in which they could be sent on
                one.watchers.publish(1, b'{"type":"image.slow","data":{"request":2}}\n')
            assert len([line async for line in reply.content]) <= 11
        async with asyncio.timeout(2):
            while not one.called_off:
                await asyncio.sleep(0.01)
        assert one.called_off == [2]


@pytest.mark.lab
async def test_another_user_is_refused_even_where_the_folder_lets_him_in() -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("curl") is None:
        pytest.skip("needs root, setpriv and curl")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o711)  # noqa: PTH101, S103 - others must reach the socket to be refused
        await _ask_as_two_users(Path(folder))


async def _ask_as_two_users(folder: Path) -> None:
    async with desk(folder) as one:
        one.socket.chmod(0o777)
        ask = ["curl", "-s", "--unix-socket", str(one.socket), "http://run/v1/nodes"]
        other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *ask]
        mine, his = [
            await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=True)
            for argv in (ask, other)
        ]
        assert len(json.loads(mine.stdout)["nodes"]) == 2
        assert json.loads(his.stdout) == {"error": "this run belongs to user 0, not to 65534"}


async def test_a_command_for_a_case_that_does_not_run_is_not_run_beside_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        one.engine.phase = Phase.IDLE
        one.engine.cases.flows.clear()
        async with http.post("/v1/exec", json={"argv": ["ls"], "case": "case0"}) as reply:
            assert (reply.status, "case case0 is not running now" in await reply.text()) == (409, True)
        assert one.hub.told == []


async def test_a_command_says_in_which_of_several_cases_it_is_meant(tmp_path: Path) -> None:
    async with desk(tmp_path) as one, one.http() as http:
        one.run_case("case1", ("n1",))
        for body, words in (
            ({}, "several cases are running: say --case with one of case0, case1"),
            ({"case": "case7"}, "case case7 is not running now; these are: case0, case1"),
            ({"case": "case1", "nodes": ["n0"]}, "no agent is on n0"),
        ):
            async with http.post("/v1/exec", json={"argv": ["ls"], **body}) as reply:
                assert (reply.status, words in await reply.text()) == (409, True)
        async with http.post("/v1/exec", json={"argv": ["ls"], "case": "x", "where": "host"}) as reply:
            assert reply.status == 400
        async with http.post("/v1/exec", json={"argv": ["ls"], "case": "case1"}) as reply:
            reading = asyncio.create_task(exec_lines(reply))
            start = await one.step()
            assert start.case == "case1"
            one.exit(start, "n1", 0)
            async with asyncio.timeout(20):
                assert (await reading)[0] == ("exec.started", {"step": "exec-1", "nodes": ["n1"]})
