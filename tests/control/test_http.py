"""The control socket's HTTP: what is broken at either end is told in words, and stops nobody else."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from phalanx.controller.control import client, http
from phalanx.controller.control.client import ContactLost, ControlClient, ControlRefused

from .desk import desk

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def peer_that_says(*pieces: bytes, then_waits: bool = False) -> AsyncIterator[ControlClient]:
    """A client of something that reads the head of a question, says this and leaves."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then_waits:
            await reader.read()
        writer.close()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        async with await asyncio.start_unix_server(answer, path):
            yield ControlClient(path)


async def ask(socket: Path, question: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to raw bytes."""
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(question)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        body = await reader.readexactly(length)
    writer.close()
    return head, body


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((), "it closed the connection"),
        ((b"HTTP/1.1 200",), "it closed the connection"),
        ((HEAD,), "it closed the connection"),
        ((HEAD, b"5\r\nab"), "it closed the connection"),
        ((b"SSH-2.0-OpenSSH_9\r\n\r\n",), "it speaks no HTTP"),
        ((HEAD, b"zz\r\n\r\n"), "it speaks no HTTP"),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,), "it speaks no HTTP"),
    ],
)
async def test_a_stream_that_breaks_is_lost_contact_and_no_end(said: tuple[bytes, ...], words: str) -> None:
    async with peer_that_says(*said) as lost:
        with pytest.raises(ContactLost, match=words):
            async for _ in lost.watch():
                pass


async def test_a_stream_that_ends_with_its_last_chunk_has_ended_well() -> None:
    line = b'{"type":"heartbeat"}\n'
    async with peer_that_says(HEAD, b"%x\r\n%b\r\n" % (len(line), line), b"0\r\n\r\n") as told:
        assert [notice async for notice in told.watch()] == [client.Heartbeat()]


async def test_silence_is_lost_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.01)
    async with peer_that_says(HEAD, then_waits=True) as silent:
        with pytest.raises(ContactLost):
            async for _ in silent.watch():
                pass


async def test_a_line_in_many_pieces_is_one_line() -> None:
    pieces = [b'{"type":', b'"heartbeat"}', b'\n{"type":"heart', b'beat"}\n']
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    async with peer_that_says(HEAD, *chunks, b"0\r\n\r\n") as told:
        assert [notice async for notice in told.watch()] == [client.Heartbeat()] * 2


async def test_a_refusal_without_json_keeps_its_words() -> None:
    async with peer_that_says(b"HTTP/1.1 503 Busy\r\nContent-Length: 7\r\n\r\nnot now") as busy:
        with pytest.raises(ControlRefused, match="not now"):
            await busy.nodes()


@pytest.mark.parametrize(
    ("question", "status"),
    [
        (b"hello there\r\n\r\n", b"400"),
        (b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\nX: " + b"y" * http.HEAD_BYTES * 2, b"431"),
        (b"GET /v1/nodes HTTP/1.1\r\n\r\n", b"400"),
        (
            b"POST /v1/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + b" " * 1_100_000,
            b"413",
        ),
        (b"POST /v1/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_question_gets_a_status_and_the_next_caller_an_answer(
    question: bytes, status: bytes, tmp_path: Path
) -> None:
    async with desk(tmp_path) as one:
        head, body = await ask(one.socket, question)
        assert head.split()[1] == status
        assert json.loads(body)["error"]
        assert len(await ControlClient(one.socket).nodes()) == 2


async def test_who_leaves_without_a_question_or_in_the_middle_of_one_stops_nobody(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        for said in (b"", b"GET /v1", b"POST /v1/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"):
            _, writer = await asyncio.open_unix_connection(one.socket)
            writer.write(said)
            writer.close()
            await writer.wait_closed()
        assert len(await ControlClient(one.socket).nodes()) == 2
        assert one.cancels == []


async def test_a_caller_that_asks_for_too_long_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx.controller.control.server.ASK_S", 0.01)
    async with desk(tmp_path) as one:
        reader, writer = await asyncio.open_unix_connection(one.socket)
        writer.write(b"GET /v1/nodes HTTP/1.1\r\n")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_an_old_client_gets_its_answer_too(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        head, body = await ask(one.socket, b"GET /v1/nodes HTTP/1.0\r\n\r\n")
        assert head.split()[1] == b"200"
        assert len(json.loads(body)["nodes"]) == 2
