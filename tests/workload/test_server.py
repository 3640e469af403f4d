"""Real clients on the real socket: curl, the documented Python client, and clients that misbehave."""

from __future__ import annotations

import asyncio
import shutil
import socket
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from phalanx.agent import workload_http
from phalanx.agent.workload import WorkloadServer, WorkloadUnavailable

from .client import Phalanx, call, document
from .exchange import MemoryExchange

Ask = Callable[..., Awaitable[tuple[int, bytes]]]


class Case:
    """A case of four ranks on this node, served."""

    def __init__(self, directory: Path, ranks: int = 4) -> None:
        self.exchange = MemoryExchange(ranks)
        self.server = WorkloadServer.start(
            directory / "phalanx.sock", self.exchange, ranks=range(ranks), name="train"
        )

    async def ask(
        self, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        named = {f"X-Phalanx-{name.title()}": value for name, value in headers.items()}
        return await asyncio.to_thread(call, self.server.client_path, method, target, body, named)


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    made = Case(tmp_path)
    yield made
    made.server.stop()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread and cannot be awaited."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_barrier_holds_until_the_last_rank_calls_and_then_releases_all(case: Case) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(case.ask("POST", f"/barrier/go?rank={rank}")) for rank in range(3)]
        await case.exchange.until_waiting(3)
        assert not any(task.done() for task in calls)
        calls.append(group.create_task(case.ask("POST", "/barrier/go", rank="3")))
    assert [document(task.result()) for task in calls] == [
        (200, {"name": "go", "generation": 0, "members": 4})
    ] * 4


async def test_the_same_barrier_again_meets_the_next_generation(case: Case) -> None:
    for generation in range(3):
        answer = await case.ask("POST", "/barrier/step?rank=1&count=1")
        assert document(answer)[1]["generation"] == generation
    assert case.exchange.arrivals == [("step", 1, 0), ("step", 1, 1), ("step", 1, 2)]


async def test_an_explicit_generation_can_be_asked_again_and_moves_the_next_one(case: Case) -> None:
    for _ in range(2):
        answer = await case.ask("POST", "/barrier/step?rank=1&count=1&generation=5")
        assert document(answer)[1]["generation"] == 5
    answer = await case.ask("POST", "/barrier/step?rank=1&count=1")
    assert document(answer)[1]["generation"] == 6


async def test_after_a_timeout_the_same_generation_is_met_again(case: Case) -> None:
    status, words = document(await case.ask("POST", "/barrier/go?rank=0&timeout=0.01"))
    assert status == 408
    assert words["error"] == "not all have arrived within 0.01 s; call again to go on waiting"
    assert document(await case.ask("POST", "/barrier/go?rank=0&count=1"))[1]["generation"] == 0


async def test_a_barrier_that_fails_says_who_left(case: Case) -> None:
    waiting = asyncio.create_task(case.ask("POST", "/barrier/go?rank=0"))
    await case.exchange.until_waiting(1)
    await case.exchange.lose("rank 2 on n3 left: exit status 1")
    status, words = document(await waiting)
    assert (status, words["error"]) == (409, "rank 2 on n3 left: exit status 1")


async def test_a_key_is_set_read_and_waited_for(case: Case) -> None:
    status, words = document(await case.ask("GET", "/kv/address"))
    assert (status, words["error"]) == (404, "the key 'address' is not set; add ?wait=SECONDS to wait for it")
    waiting = asyncio.create_task(case.ask("GET", "/kv/address?wait=30"))
    await case.exchange.until_waiting(1)
    assert await case.ask("PUT", "/kv/address", b"10.0.0.1:2\x00\n") == (204, b"")
    assert await waiting == (200, b"10.0.0.1:2\x00\n")
    assert await case.ask("GET", "/kv/address") == (200, b"10.0.0.1:2\x00\n")
    status, words = document(await case.ask("GET", "/kv/other?wait=0.01"))
    assert (status, words["error"]) == (404, "the key 'other' is not set within 0.01 s")


async def test_readiness_and_metrics_arrive(case: Case) -> None:
    assert (await case.ask("POST", "/ready?rank=2"))[0] == 204
    assert (await case.ask("POST", "/metric/tokens_per_s?value=1234.5&unit=1/s&rank=2"))[0] == 204
    assert (await case.ask("POST", "/metric/loss", b"0.25", rank="3"))[0] == 204
    assert case.exchange.ready_ranks == [2]
    assert case.exchange.metrics == [(2, "tokens_per_s", 1234.5, "1/s"), (3, "loss", 0.25, "")]


async def test_the_root_tells_what_there_is(case: Case) -> None:
    status, text = await case.ask("GET", "/")
    assert status == 200
    for word in (b"/barrier/", b"/kv/", b"/ready", b"/metric/", b"curl --unix-socket"):
        assert word in text


async def test_a_body_past_the_limit_is_refused_and_one_at_it_taken(case: Case) -> None:
    for size in (64 * 1024 + 1, 2 * 1024 * 1024):
        status, words = document(await case.ask("PUT", "/kv/a", bytes(size)))
        assert (status, words["error"]) == (413, "the body is too large: at most 65536 bytes are taken")
    assert (await case.ask("PUT", "/kv/a", bytes(64 * 1024)))[0] == 204
    assert case.exchange.values == {"a": bytes(64 * 1024)}


async def test_a_body_may_come_in_chunks_and_the_connection_lives_on(case: Case) -> None:
    def chunked() -> list[int]:
        connection = Phalanx(case.server.client_path)
        statuses = []
        for parts in ([b"one ", b"two"], [b"three"]):
            connection.request("PUT", f"/kv/{len(parts)}", iter(parts), encode_chunked=True)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        return statuses

    assert await asyncio.to_thread(chunked) == [204, 204]
    assert case.exchange.values == {"2": b"one two", "1": b"three"}


@pytest.mark.parametrize(
    "head", [b"Content-Length: -1", b"Content-Length: many", b"Transfer-Encoding: chunked\r\n\r\nxyz"]
)
async def test_a_body_whose_length_cannot_be_read_is_refused(case: Case, head: bytes) -> None:
    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(case.server.client_path))
            client.sendall(b"PUT /kv/a HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            return client.recv(4096)

    assert (await asyncio.to_thread(ask)).startswith(b"HTTP/1.1 400 ")


async def test_an_exchange_that_breaks_is_an_answer_not_a_hang(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(rank: int) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(case.exchange, "ready", broken)
    assert (await case.ask("POST", "/ready?rank=0"))[0] == 500


async def test_one_connection_carries_many_requests(case: Case) -> None:
    def many() -> list[int]:
        connection = Phalanx(case.server.client_path)
        statuses = []
        for number in range(20):
            connection.request("PUT", f"/kv/{number}", b"x")
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        return statuses

    assert await asyncio.to_thread(many) == [204] * 20


async def test_256_waiting_requests_are_released_at_once(tmp_path: Path) -> None:
    case = Case(tmp_path, ranks=256)
    connections = [Phalanx(case.server.client_path) for _ in range(256)]

    def send() -> None:
        for rank, connection in enumerate(connections[:255]):
            connection.request("POST", f"/barrier/go?rank={rank}")

    def receive() -> list[int]:
        statuses = []
        for connection in connections:
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        return statuses

    try:
        await asyncio.to_thread(send)
        await case.exchange.until_waiting(255)
        await asyncio.to_thread(connections[255].request, "POST", "/barrier/go?rank=255")
        assert await asyncio.to_thread(receive) == [200] * 256
    finally:
        for connection in connections:
            connection.close()
        case.server.stop()


async def test_past_the_most_connections_a_client_is_told_at_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx.agent.workload.MOST_CONNECTIONS", 1)
    waiting = asyncio.create_task(case.ask("POST", "/barrier/go?rank=0"))
    await case.exchange.until_waiting(1)
    status, words = document(await case.ask("POST", "/barrier/go?rank=1"))
    assert (status, words["error"]) == (503, "too many requests are waiting on this node")
    await case.exchange.lose("enough")
    await waiting


async def test_a_client_that_hangs_up_while_waiting_leaves_neither_wait_nor_thread(case: Case) -> None:
    before = threading.active_count()
    client = Phalanx(case.server.client_path)
    await asyncio.to_thread(client.request, "POST", "/barrier/go?rank=0")
    await case.exchange.until_waiting(1)
    client.close()
    async with asyncio.timeout(10):
        await case.exchange.cancelled.wait()
    await until(lambda: threading.active_count() <= before + 1)  # one is asyncio's own pool
    assert not case.server._calls
    answer = await case.ask("POST", "/barrier/go?rank=0&count=1")
    assert document(answer)[1]["generation"] == 0


async def test_a_client_that_only_ends_its_sending_still_gets_its_answer(case: Case) -> None:
    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(case.server.client_path))
            client.sendall(b"GET /kv/late?wait=30 HTTP/1.1\r\nHost: x\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while part := client.recv(4096):
                answer += part
            return answer

    waiting = asyncio.create_task(asyncio.to_thread(ask))
    await case.exchange.until_waiting(1)
    await case.ask("PUT", "/kv/late", b"here")
    assert (await waiting).endswith(b"\r\n\r\nhere")


async def test_a_client_that_says_nothing_is_let_go(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_http._Handler, "timeout", 0.3)

    def silent() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(case.server.client_path))
            client.sendall(b"POST /bar")
            client.settimeout(10)
            return client.recv(100)

    assert await asyncio.to_thread(silent) == b""


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"A" * 70000, b"\r\n\r\n"]
)
async def test_noise_costs_its_own_connection_only(case: Case, noise: bytes) -> None:
    def shout() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(case.server.client_path))
            try:
                client.sendall(noise)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
            except OSError:
                return

    await asyncio.to_thread(shout)
    assert (await case.ask("GET", "/"))[0] == 200


async def test_stopping_answers_those_who_wait_and_removes_the_socket(case: Case) -> None:
    waiting = asyncio.create_task(case.ask("POST", "/barrier/go?rank=0"))
    await case.exchange.until_waiting(1)
    case.server.stop()
    status, words = document(await waiting)
    assert (status, words["error"]) == (503, "the case is over on this node")
    assert not case.server.path.exists()


async def test_an_answer_that_was_not_delivered_is_met_again(case: Case) -> None:
    await case.ask("POST", "/barrier/go?rank=0&count=1")
    case.server._rounds.untold(("go", 0), 0)
    answer = await case.ask("POST", "/barrier/go?rank=0&count=1")
    assert document(answer)[1]["generation"] == 0


async def test_every_user_who_reaches_the_socket_may_connect(case: Case) -> None:
    assert stat.S_IMODE(case.server.path.stat().st_mode) == 0o666


async def test_a_path_too_long_for_a_socket_has_a_short_name_for_clients(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    case = Case(deep)
    short = case.server.client_path
    assert len(str(short)) < 108
    assert (await case.ask("GET", "/"))[0] == 200
    assert stat.S_ISSOCK((deep / "phalanx.sock").stat().st_mode)
    case.server.stop()
    assert not short.parent.exists()


async def test_a_socket_that_cannot_be_made_says_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        WorkloadUnavailable, match=r"cannot serve the workload API at .*/none/phalanx\.sock: No such"
    ):
        Case(tmp_path / "none")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_can_do_all_of_it(case: Case) -> None:
    async def curl(*arguments: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "curl",
            "-sS",
            "--fail-with-body",
            "--unix-socket",
            str(case.server.client_path),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return out

    assert await curl("-X", "PUT", "-d", "10.0.0.1", "http://x/kv/address") == b""
    assert await curl("http://x/kv/address") == b"10.0.0.1"
    ask = partial(curl, "-X", "POST")
    answers = await asyncio.gather(*(ask(f"http://x/barrier/go?rank={rank}") for rank in range(4)))
    assert answers == [b'{"name": "go", "generation": 0, "members": 4}\n'] * 4
    assert await ask("http://x/metric/loss?rank=1&value=2") == b""
    assert case.exchange.metrics == [(1, "loss", 2.0, "")]
