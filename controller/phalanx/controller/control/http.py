"""HTTP/1.1 on the control socket: h11 knows the protocol, asyncio moves the bytes, here they meet.

One request a connection, at both ends. A body of unknown length comes in chunks, so that an end that was sent
and a connection that broke are told apart. A web framework would do all of this as well; importing one costs
a start more than everything else that a run does on the login node.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import h11

#: Largest head of a request or an answer, in bytes.
HEAD_BYTES = 16 * 1024
#: Largest body of a request, in bytes.
BODY_BYTES = 1 << 20
_READ_BYTES = 64 * 1024
_TYPES = {"document": b"application/json", "stream": b"application/x-ndjson"}


class Refusal(Exception):
    """The answer is no: ``status`` is HTTP's, ``words`` are for whoever asked."""

    def __init__(self, status: HTTPStatus, words: str = "") -> None:
        self.status = status
        self.words = words or status.phrase
        super().__init__(self.words)


def bad(words: str) -> Refusal:
    """The question is not well formed; ``words`` name the part."""
    return Refusal(HTTPStatus.BAD_REQUEST, words)


def conflict(words: str) -> Refusal:
    """The question is well formed, and cannot be answered now; ``words`` say why."""
    return Refusal(HTTPStatus.CONFLICT, words)


def words(value: Any) -> bool:
    """Whether it is a list of words."""
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def names(value: Any, key: str) -> tuple[str, ...] | None:
    """The names of a list, each once, None for all. Raises Refusal, naming ``key``."""
    if value is not None and not words(value):
        raise bad(f"{key}: expected a list of names, or null for all")
    return None if value is None else tuple(dict.fromkeys(value))


class Broken(Exception):
    """The peer closed the connection in the middle, or does not speak HTTP. The message says which."""


class _Link:
    """One end of a connection."""

    def __init__(
        self, role: type[h11.CLIENT | h11.SERVER], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._http = h11.Connection(role, max_incomplete_event_size=HEAD_BYTES)
        self._reader = reader
        self._writer = writer

    async def receive(self) -> h11.Event:
        """The next thing that the peer says. Raises h11.RemoteProtocolError, OSError."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        # PAUSED comes only to who asks on after the end of a message: one request a connection.
        return cast(h11.Event, event)

    async def send(self, *events: h11.Event) -> None:
        """Say these. Raises ConnectionError when the peer is gone."""
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()


class Question(_Link):
    """A request that came, and the way to answer it: ``document``, or ``begin`` and ``write`` and ``end``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(h11.SERVER, reader, writer)
        self.method = self.path = ""
        self.query: dict[str, str] = {}
        self._began = False

    @property
    def began(self) -> bool:
        """Whether an answer is on its way."""
        return self._began

    async def head(self) -> bool:
        """Read who is asked for what; False when the peer left without asking. Raises Refusal, OSError."""
        try:
            event = await self.receive()
        except h11.RemoteProtocolError as error:
            raise Refusal(HTTPStatus(error.error_status_hint), str(error)) from None
        if not isinstance(event, h11.Request):
            return False
        target = urlsplit(event.target.decode("ascii", "replace"))
        self.method, self.path = event.method.decode("ascii"), target.path
        self.query = dict(parse_qsl(target.query, keep_blank_values=True))
        return True

    async def body(self) -> dict[str, Any]:
        """The JSON object that came with it. Raises Refusal, OSError."""
        pieces, size = [], 0
        try:
            while isinstance(event := await self.receive(), h11.Data):
                pieces.append(bytes(event.data))
                size += len(event.data)
                if size > BODY_BYTES:
                    raise Refusal(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {BODY_BYTES} bytes"
                    )
            body = json.loads(b"".join(pieces))
        except h11.RemoteProtocolError as error:
            raise Refusal(HTTPStatus(error.error_status_hint), str(error)) from None
        except (ValueError, RecursionError):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body is not an object")
        return body

    async def document(self, document: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        """Answer with a JSON object and nothing after it. Raises ConnectionError."""
        data = json.dumps(document).encode()
        head = self._head(status, "document", (b"Content-Length", str(len(data)).encode()))
        await self.send(head, h11.Data(data=data), h11.EndOfMessage())

    async def begin(self) -> None:
        """Answer with lines as they come. Raises ConnectionError."""
        await self.send(self._head(HTTPStatus.OK, "stream"))

    async def write(self, data: bytes) -> None:
        """More of the answer. Raises ConnectionError when nobody reads it any more."""
        if data:
            await self.send(h11.Data(data=data))

    @asynccontextmanager
    async def while_asked(self) -> AsyncIterator[None]:
        """What is done inside ends with ConnectionError as soon as whoever asked hangs up."""
        doing, left = asyncio.current_task(), False

        async def listen() -> None:
            nonlocal left
            while await self._reader.read(_READ_BYTES):
                pass  # one question a connection: what else is said is not heard
            left = True
            if doing is not None:
                doing.cancel()

        listening = asyncio.create_task(listen(), name="whether it is still asked")
        try:
            yield
        except asyncio.CancelledError:
            if left and doing is not None and not doing.uncancel():
                raise ConnectionResetError("whoever asked is gone") from None
            raise
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def end(self) -> None:
        """That was all. Raises ConnectionError."""
        await self.send(h11.EndOfMessage())

    def _head(self, status: HTTPStatus, kind: str, *more: tuple[bytes, bytes]) -> h11.Response:
        self._began = True
        headers = [(b"Content-Type", _TYPES[kind]), (b"Connection", b"close"), *more]
        return h11.Response(status_code=int(status), reason=status.phrase.encode(), headers=headers)


class Answer(_Link):
    """What was answered to our question."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(h11.CLIENT, reader, writer)
        self.status = 0

    async def ask(self, method: str, path: str, body: dict[str, Any] | None) -> None:
        """Send the question and read the head of the answer. Raises Broken, OSError."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = [(b"Host", b"phalanx"), (b"Content-Length", str(len(data)).encode())]
        request = h11.Request(method=method.encode(), target=path.encode(), headers=headers)
        await self.send(request, h11.Data(data=data), h11.EndOfMessage())
        event = await self._told()
        if not isinstance(event, h11.Response):
            raise Broken("it does not answer as a controller does")
        self.status = event.status_code

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Broken when the connection ends before it does, OSError."""
        while isinstance(event := await self._told(), h11.Data):
            yield bytes(event.data)

    async def text(self) -> bytes:
        """The whole body. Raises Broken, OSError."""
        return b"".join([piece async for piece in self.pieces()])

    async def _told(self) -> h11.Event:
        try:
            return await self.receive()
        except h11.RemoteProtocolError as error:
            at_end = self._reader.at_eof()
            raise Broken("it closed the connection" if at_end else f"it speaks no HTTP: {error}") from error


@asynccontextmanager
async def asked(
    socket: Path, method: str, path: str, body: dict[str, Any] | None, connect_s: float
) -> AsyncIterator[Answer]:
    """The answer of who listens on a unix socket. Raises Broken, and OSError when nobody does."""
    async with asyncio.timeout(connect_s):
        reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        answer = Answer(reader, writer)
        await answer.ask(method, path, body)
        yield answer
    finally:
        await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever state it is in."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
