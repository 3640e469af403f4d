"""HTTP over a unix socket for workloads: the socket itself, and one connection read and answered in a thread.

What a request asks for is told by ``workload_calls``, who performs it by the caller.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from phalanx.protocol import VERSION

from .workload_calls import MOST_BODY_BYTES, Call, Refused, read_call

#: Seconds in which a client has to send its request, and to take the answer.
CLIENT_S = 30.0

#: Bytes of a body that is too large, taken in so that its client hears why; the rest costs it the answer.
_MOST_DISCARDED = 16 * 1024 * 1024

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n"
    b'{"error": "too many requests are waiting on this node"}\n'
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. ``undelivered`` is called when the client was gone before it had it."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    allow: str = ""
    undelivered: Callable[[], None] | None = None


def document(
    status: int, *, undelivered: Callable[[], None] | None = None, allow: str = "", **members: Any
) -> Answer:
    """An answer of JSON, one line of it."""
    return Answer(status, json.dumps(members).encode() + b"\n", allow=allow, undelivered=undelivered)


def listening(path: Path, backlog: int) -> socket.socket:
    """A listening unix socket at ``path``, of any length, that every user who gets to it may connect to.

    The directory decides who gets to it: on the host it is private; in a container that it is mounted into,
    any user may be the workload's. What lies there already is removed. Raises OSError.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        reached = f"/proc/self/fd/{directory}/{path.name}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(reached)
            os.chmod(reached, 0o666)  # noqa: S103, PTH101 - see above
            listener.listen(backlog)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener
    finally:
        os.close(directory)


def turn_away(connection: socket.socket) -> None:
    """Answer 503 at once, without reading: the few bytes fit into the socket's empty buffer.

    The caller closes the connection a little later: a client that is still sending would not see the answer.
    """
    try:
        connection.setblocking(False)
        connection.send(_FULL)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return


def hung_up(connection: socket.socket) -> bool:
    """Whether the other end is closed; one that has only ended its sending is not."""
    poller = select.poll()
    poller.register(connection, 0)
    return bool(poller.poll(0))


def converse(connection: socket.socket, ranks: Sequence[int], perform: Callable[[Call], Answer]) -> None:
    """Read requests and answer them until the client is done or gone. Blocks; closes the connection."""
    with connection:
        try:
            _Handler(connection, ranks, perform)
        except OSError:  # the client is gone, or took longer than CLIENT_S
            return


class _Handler(BaseHTTPRequestHandler):
    """Reads requests, has them performed, and writes the answers."""

    protocol_version = "HTTP/1.1"
    server_version = f"phalanx/{VERSION}"
    sys_version = ""
    timeout = CLIENT_S

    def __init__(
        self, connection: socket.socket, ranks: Sequence[int], perform: Callable[[Call], Answer]
    ) -> None:
        self._ranks = ranks
        self._perform = perform
        super().__init__(connection, "workload", None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Any method: the path says what it means."""
        answer = self._performed()
        try:
            self._write(answer)
        except OSError:
            if answer.undelivered is not None:
                answer.undelivered()
            raise

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET

    def _performed(self) -> Answer:
        try:
            body = self._body()
            rank = self.headers.get("X-Phalanx-Rank", "").strip()
            call = read_call(self.command, self.path, rank, body, self._ranks)
        except Refused as error:
            return document(error.status, allow=error.allow, error=str(error))
        return self._perform(call)

    def _body(self) -> bytes:
        """The body, with its length or in chunks. One that is too large is taken in before it is refused: a
        client that is still sending would not see the answer.
        """
        body, size = bytearray(), 0
        for part in self._parts():
            size += len(part)
            if size > _MOST_DISCARDED:
                break
            if size <= MOST_BODY_BYTES:
                body += part
        if size > MOST_BODY_BYTES:
            self.close_connection = True
            raise Refused(413, f"the body is too large: at most {MOST_BODY_BYTES} bytes are taken")
        return bytes(body)

    def _parts(self) -> Iterator[bytes]:
        if "Transfer-Encoding" not in self.headers:
            yield from self._exactly(self._length(self.headers.get("Content-Length", "0"), 10))
            return
        while length := self._length(self.rfile.readline(64).partition(b";")[0].decode("latin-1"), 16):
            yield from self._exactly(length)
            self.rfile.readline(2)
        while self.rfile.readline(1024).strip():  # trailers
            pass

    def _length(self, text: str, base: int) -> int:
        try:
            length = int(text.strip()[:16], base)
        except ValueError:
            length = -1
        if length < 0:
            self.close_connection = True  # where the next request begins is not known
            raise Refused(400, f"cannot read the length of the body: {text[:100]!r}")
        return length

    def _exactly(self, length: int) -> Iterator[bytes]:
        while length > 0:
            part = self.rfile.read(min(length, MOST_BODY_BYTES))
            if not part:
                raise ConnectionResetError("the client ended in the middle of its request")
            length -= len(part)
            yield part

    def _write(self, answer: Answer) -> None:
        self.send_response(answer.status)
        if answer.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
        if answer.allow:
            self.send_header("Allow", answer.allow)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is not HTTP, or none that is known, in the form of all other errors."""
        self.close_connection = True
        self.command = self.command or ""
        self._write(document(code, error=message or HTTPStatus(code).phrase))

    def log_message(self, format: str, *args: Any) -> None:
        """A workload may call a thousand times a second; its calls are not news."""
