"""The client of a run's control socket: HTTP over a unix socket, typed.

Losing the socket is no verdict about the run. It is told as ``ContactLost``, which callers answer by reading
the event log from disk and trying again.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.controller.control import http
from phalanx.controller.fleet.events import ImageFailed, ImageReady, Recorded, from_line

#: The controller sends a heartbeat each 5 s: after four missed ones the socket is given up and tried again.
SILENCE_S = 20.0
CONNECT_S = 5.0


class ContactLost(Exception):
    """The controller cannot be reached, or the connection broke. Says nothing about the run."""


class ControlRefused(Exception):
    """The controller answered that it will not; the message is its own."""


@dataclass(frozen=True, slots=True)
class LogAdvanced:
    """Durable bytes of log files, by their path relative to the run directory."""

    sizes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase is on a node ("" for all): ``done`` of ``total`` bytes or things."""

    phase: str
    node: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The controller is there."""


Notice = Recorded | LogAdvanced | Progress | Heartbeat


@dataclass(frozen=True, slots=True)
class ExecStarted:
    """The command was sent to these nodes."""

    step: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExecOutput:
    """Bytes that the command wrote on a node; ``output`` is out or err."""

    node: str
    output: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ExecExited:
    """The command ended on a node; ``cause`` as in step.exited."""

    node: str
    status: int
    cause: str
    detail: str


ExecNotice = ExecStarted | ExecOutput | ExecExited


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command for the nodes of a live run. ``nodes`` None: all. ``where``: case (its container) or host.

    ``case``: which of those that run, "" for the only one.
    """

    argv: tuple[str, ...]
    nodes: tuple[str, ...] | None = None
    where: str = "case"
    env: dict[str, str] | None = None
    deadline_s: float = 0.0
    case: str = ""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """An image for nodes of a live run. ``archive``: an absolute path, "" for none. ``nodes`` None: all."""

    reference: str
    archive: str = ""
    nodes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What the controller knows of a node at this moment."""

    node: str
    node_rank: int
    state: str
    address: str
    last_heard_s: float | None
    clock_offset_s: float | None
    facts: dict[str, Any] | None


class ControlClient:
    """Asks one controller; each question has a connection of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def watch(self, after: int = 0) -> AsyncGenerator[Notice, None]:
        """Every event with a number above ``after``, then live ones, and the controller's notices.

        Ends when the controller closes the stream, which it does after run.finished. Raises ContactLost
        when the connection breaks or stays silent, ControlRefused when the controller will not.
        """
        async with self._ask("GET", f"/v1/watch?from={after}") as reply:
            async for line in _lines(reply, SILENCE_S):
                notice = read_notice(line)
                if notice is not None:
                    yield notice

    async def cancel(self, level: int, by: str) -> None:
        """Ask the run to stop: level 1 drains, 2 kills. Raises ContactLost, ControlRefused."""
        async with self._ask("POST", "/v1/cancel", {"level": level, "by": by}) as reply:
            await reply.text()

    async def nodes(self) -> list[NodeReport]:
        """The fleet as the controller sees it now. Raises ContactLost, ControlRefused."""
        async with self._ask("GET", "/v1/nodes") as reply:
            document = json.loads(await reply.text())
        return [read_node(entry) for entry in document.get("nodes", ())]

    async def exec(self, request: ExecRequest) -> AsyncGenerator[ExecNotice, None]:
        """Run a command on nodes of the run; leaving the iteration stops it.

        Ends after exec.done. Raises ContactLost when the stream ends before it, ControlRefused.
        """
        body = {
            "argv": list(request.argv),
            "nodes": None if request.nodes is None else list(request.nodes),
            "where": request.where,
            "env": request.env or {},
            "deadline_s": request.deadline_s,
            "case": request.case,
        }
        async with self._ask("POST", "/v1/exec", body) as reply:
            async for line in _lines(reply, None):
                document = json.loads(line)
                if document.get("type") == "exec.done":
                    return
                notice = read_exec(document)
                if notice is not None:
                    yield notice
        raise ContactLost("the controller closed the stream before the command was over")

    async def bring(self, wanted: ImageRequest) -> AsyncGenerator[Notice, None]:
        """Bring an image to nodes of the run, and tell how it goes; leaving the iteration calls it off.

        Ends after image.ready or image.failed. Raises ContactLost when the stream ends before that,
        ControlRefused.
        """
        nodes = None if wanted.nodes is None else list(wanted.nodes)
        body = {"reference": wanted.reference, "archive": wanted.archive, "nodes": nodes}
        async with self._ask("POST", "/v1/image", body) as reply:
            async for line in _lines(reply, SILENCE_S):
                notice = read_notice(line)
                if notice is not None:
                    yield notice
                if isinstance(notice, Recorded) and isinstance(notice.event, ImageReady | ImageFailed):
                    return
        raise ContactLost("the controller closed the stream before the image was there")

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[http.Answer]:
        try:
            async with http.asked(self._socket, method, path, body, CONNECT_S) as answer:
                if answer.status >= 400:
                    raise ControlRefused(_refusal(answer.status, await answer.text()))
                yield answer
        except (http.Broken, OSError, TimeoutError) as error:
            raise ContactLost(_words(error)) from error


async def _lines(answer: http.Answer, silence_s: float | None) -> AsyncGenerator[bytes, None]:
    """Whole lines of a stream, of any length; TimeoutError when nothing comes for ``silence_s``."""
    rest: list[bytes] = []
    async with aclosing(answer.pieces()) as pieces:
        while True:
            async with asyncio.timeout(silence_s):
                chunk = await anext(pieces, b"")
            if not chunk:
                return
            head, newline, tail = chunk.rpartition(b"\n")
            if not newline:
                rest.append(chunk)
                continue
            for line in (b"".join(rest) + head).split(b"\n"):
                if line:
                    yield line
            rest = [tail] if tail else []


def read_notice(line: bytes) -> Notice | None:
    """What a line of ``/v1/watch`` says; None for what this version does not know."""
    try:
        document = json.loads(line)
        kind, data = document["type"], document.get("data") or {}
        if "seq" in document:
            return from_line(line)
        if kind == "log.advanced":
            return LogAdvanced({str(path): int(size) for path, size in data.items()})
        if kind == "progress":
            return Progress(
                str(data["phase"]), str(data.get("node", "")), int(data["done"]), int(data["total"])
            )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return Heartbeat() if kind == "heartbeat" else None


def read_exec(document: dict[str, Any]) -> ExecNotice | None:
    """What a line of ``/v1/exec`` says; None for what this version does not know."""
    data = document.get("data") or {}
    kind = document.get("type")
    if kind == "exec.started":
        return ExecStarted(str(data["step"]), tuple(data["nodes"]))
    if kind == "exec.output":
        return ExecOutput(str(data["node"]), str(data["output"]), base64.b64decode(data["b64"]))
    if kind == "exec.exited":
        return ExecExited(
            str(data["node"]), int(data["status"]), str(data["cause"]), str(data.get("detail", ""))
        )
    return None


def read_node(entry: dict[str, Any]) -> NodeReport:
    """One element of ``/v1/nodes``."""
    return NodeReport(
        node=str(entry["node"]),
        node_rank=int(entry.get("node_rank", -1)),
        state=str(entry.get("state", "")),
        address=str(entry.get("address", "")),
        last_heard_s=entry.get("last_heard_s"),
        clock_offset_s=entry.get("clock_offset_s"),
        facts=entry.get("facts"),
    )


def _words(error: Exception) -> str:
    """What broke, without the system's inner words."""
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "nothing answers on its socket"
    if isinstance(error, ConnectionError):
        return "it closed the connection"
    return str(error) or type(error).__name__


def _refusal(status: int, body: bytes) -> str:
    """The controller's own words, whether it wrapped them in JSON or not."""
    text = body.decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except ValueError:
        return text.strip() or f"HTTP status {status}"
    if isinstance(document, dict) and "error" in document:
        return str(document["error"])
    return text.strip()
