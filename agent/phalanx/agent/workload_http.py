"""HTTP over a unix socket for workloads: the socket itself, and one connection read and answered in a thread.

What a request asks for is told by ``workload_calls``, who performs it by the caller.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from phalanx.protocol import VERSION

from .workload_calls import MOST_BODY_BYTES, Call, Refused, read_call

#: Seconds in which a client has to send its request, and to take the answer.
CLIENT_S = 30.0

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
        length = self.headers.get("Content-Length", "0").strip()
        if "Transfer-Encoding" in self.headers or not _is_length(length):
            self.close_connection = True  # where the next request begins is not known
            raise Refused(411, "send the body with its Content-Length")
        if int(length) > MOST_BODY_BYTES:
            self.close_connection = True  # the body is in its way
            raise Refused(413, f"the body has {length} bytes; at most {MOST_BODY_BYTES} are taken")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionResetError("the client ended in the middle of its request")
        return body

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


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 12
