"""The control socket of a run: what ``phalanx`` verbs ask of a controller that is alive.

HTTP over a unix socket in a folder that only its owner can enter; the peer's uid is checked as well.
Everything a verdict needs is in the event log on disk: whoever cannot reach this socket can still read it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from h11 import LocalProtocolError

from ..fleet.conductor import Conductor
from .bringing import ImageRequest, ask_for
from .execution import ExecRequest, Execution
from .http import Question, Refusal, bad, closed

#: Events that may wait for a watcher that does not read; beyond that it is dropped and asks again.
WATCHER_LINES = 10_000
#: Lines that may wait while sizes, progress and signs of life are still worth telling.
EPHEMERAL_LINES = 1000
#: Log sizes are told this often, in seconds, and a sign of life this often.
SIZES_EVERY_S = 0.1
HEARTBEAT_EVERY_S = 5.0
#: Seconds that watchers get to read the last event.
LINGER_S = 3.0
#: Seconds that callers get to read the end of their answer.
CLOSE_S = 1.0
#: Seconds that a caller may take to say what it wants.
ASK_S = 30.0

#: Lines on their way to a watcher, each with its sequence number; None is the end.
Lines = asyncio.Queue[tuple[int, bytes] | None]
Handler = Callable[[Question], Awaitable[None]]


log = logging.getLogger("phalanx.controller")


class Watchers:
    """Everyone who follows the run. ``told``: number of the last event that was published."""

    def __init__(self) -> None:
        self._queues: set[Lines] = set()
        self._empty = asyncio.Event()
        self.closing = False
        self.told = 0

    def publish(self, seq: int, line: bytes) -> None:
        """Give an event's line to every watcher."""
        self.told = max(self.told, seq)
        self._put(seq, line, WATCHER_LINES)

    def ephemeral(self, kind: str, data: dict[str, Any]) -> None:
        """Tell something that is not in the log; a watcher that is behind does without."""
        if self._queues:
            document = {"v": 1, "type": kind, "data": data}
            self._put(0, json.dumps(document, separators=(",", ":")).encode() + b"\n", EPHEMERAL_LINES)

    def _put(self, seq: int, line: bytes, most: int) -> None:
        for queue in list(self._queues):
            if queue.qsize() < most:
                queue.put_nowait((seq, line))
            elif seq:
                self._queues.discard(queue)

    def progress(self, phase: str, node: str, done: int, total: int) -> None:
        """How far a transfer is."""
        self.ephemeral("progress", {"phase": phase, "node": node, "done": done, "total": total})

    def join(self) -> Lines:
        """A queue of lines from now on."""
        queue: Lines = asyncio.Queue()
        self._empty.clear()
        self._queues.add(queue)
        return queue

    def leave(self, queue: Lines) -> None:
        """A watcher went."""
        self._queues.discard(queue)
        if not self._queues:
            self._empty.set()

    def has(self, queue: Lines) -> bool:
        """Whether the watcher still gets lines."""
        return queue in self._queues

    async def close(self) -> None:
        """No more lines; give watchers a moment to read the last ones."""
        self.closing = True
        for queue in list(self._queues):
            queue.put_nowait(None)
        if self._queues:
            with suppress(TimeoutError):  # they can read the rest from disk
                async with asyncio.timeout(LINGER_S):
                    await self._empty.wait()


class ControlServer:
    """Serves one run on a unix socket."""

    def __init__(self, conductor: Conductor, watchers: Watchers) -> None:
        self._conductor = conductor
        self._watchers = watchers
        self._execution = Execution(conductor)
        self._handlers: dict[str, tuple[str, Handler]] = {
            "/v1/watch": ("GET", self._watch),
            "/v1/nodes": ("GET", self._nodes),
            "/v1/cancel": ("POST", self._cancel),
            "/v1/exec": ("POST", self._exec),
            "/v1/image": ("POST", self._image),
        }
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> None:
        """Listen. ``path`` is in a folder that only we can enter (``socket_path``)."""
        self._server = await asyncio.start_unix_server(self._accept, str(path))

    async def close(self) -> None:
        """Stop serving; who is being answered gets a moment to read."""
        if self._server is not None:
            self._server.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=CLOSE_S)
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="caller on the control socket")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = Question(reader, writer)
        try:
            await self._answer(question, writer.get_extra_info("socket"))
        except (OSError, LocalProtocolError):  # it is gone, or has asked for something else meanwhile
            return
        except Exception:  # one question that cannot be answered must not reach the run or the other callers
            log.exception("cannot answer %s %s", question.method, question.path)
        finally:
            await closed(writer)

    async def _answer(self, question: Question, sock: socket.socket) -> None:
        try:
            async with asyncio.timeout(ASK_S):
                if not await question.head():
                    return
            _check_user(sock)
            await self._handler_of(question)(question)
        except Refusal as refusal:
            await question.document({"error": refusal.words}, refusal.status)

    def _handler_of(self, question: Question) -> Handler:
        """Raises Refusal for what is not there."""
        found = self._handlers.get(question.path)
        if found is None:
            raise Refusal(HTTPStatus.NOT_FOUND)
        method, handler = found
        if question.method != method:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED)
        return handler

    async def keep_telling(self) -> None:
        """Log sizes and signs of life for watchers; until cancelled."""
        beat = time.monotonic()
        while True:
            await asyncio.sleep(SIZES_EVERY_S)
            self.tell_sizes()
            if time.monotonic() - beat >= HEARTBEAT_EVERY_S:
                beat = time.monotonic()
                self._watchers.ephemeral("heartbeat", {})

    def tell_sizes(self) -> None:
        """Tell watchers which logs have grown."""
        grown = self._conductor.store.take_grown()
        if grown:
            self._watchers.ephemeral("log.advanced", grown)

    # --- endpoints

    async def _watch(self, question: Question) -> None:
        after = _number(question.query.get("from", "0"))
        await question.begin()
        queue = self._watchers.join()
        try:
            last = await self._replay(question, after)
            if not self._watchers.closing:
                await self._pass_on(question, queue, last)
            await question.end()
        finally:
            self._watchers.leave(queue)

    async def _pass_on(self, question: Question, queue: Lines, last: int) -> None:
        """Lines as they come, until the run is over or the watcher is dropped."""
        while (item := await queue.get()) is not None and self._watchers.has(queue):
            seq, line = item
            if seq == 0 or seq > last:
                await question.write(line)

    async def _replay(self, question: Question, after: int) -> int:
        """The lines of the log after ``after``, then the sizes of all logs; the last sequence number told.

        Only what was published is read: what comes later comes through the queue, which is joined already.
        """
        path, upto = self._conductor.run_dir / "events.jsonl", self._watchers.told
        lines = await asyncio.to_thread(_lines_between, path, after, upto)
        sizes = {"v": 1, "type": "log.advanced", "data": dict(self._conductor.store.sizes)}
        await question.write(lines + json.dumps(sizes).encode() + b"\n")
        return max(after, upto)

    async def _nodes(self, question: Question) -> None:
        hub, roster = self._conductor.hub, self._conductor.engine.roster
        nodes = [
            {
                "node": record.node,
                "node_rank": record.node_rank,
                "state": record.state.value,
                "address": record.address,
                "last_heard_s": hub.last_heard(record.node),
                "facts": record.facts,
                "clock_offset_s": hub.clock_offset(record.node),
            }
            for record in roster.nodes.values()
        ]
        await question.document({"nodes": nodes})

    async def _cancel(self, question: Question) -> None:
        body = await _body(question)
        level, by = body.get("level", 1), body.get("by", "someone")
        if type(level) is not int or level not in (1, 2):
            raise bad("level: expected 1 (drain) or 2 (kill)")
        if not isinstance(by, str):
            raise bad("by: expected a word")
        self._conductor.cancel(level, by[:255])
        await question.document({})

    async def _exec(self, question: Question) -> None:
        step = self._execution.begin(ExecRequest.parse(await _body(question)))
        try:
            await question.begin()
            async with question.while_asked(), aclosing(self._execution.lines(step)) as lines:
                async for document in lines:
                    await question.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")
                await question.end()
        finally:
            self._execution.end(step)

    async def _image(self, question: Question) -> None:
        queue = self._watchers.join()
        try:
            asked = ask_for(self._conductor, ImageRequest.parse(await _body(question)))
            try:
                await question.begin()
                async with question.while_asked():
                    async for line in asked.lines(queue, lambda: self._watchers.has(queue)):
                        await question.write(line)
                    await question.end()
            finally:
                asked.end()
        finally:
            self._watchers.leave(queue)


def _lines_between(path: Path, after: int, upto: int) -> bytes:
    """The lines of an event log with numbers above ``after`` and up to ``upto``. Blocks."""
    wanted: list[bytes] = []
    with path.open("rb") as file:
        for line in file:
            seq = json.loads(line)["seq"] if line.endswith(b"\n") else upto + 1
            if seq > upto:
                break
            if seq > after:
                wanted.append(line)
    return b"".join(wanted)


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise bad(f"from: expected the number of an event, got {text[:40]!r}")
    return int(text)


async def _body(question: Question) -> dict[str, Any]:
    async with asyncio.timeout(ASK_S):
        return await question.body()


def _check_user(sock: socket.socket) -> None:
    """Only the owner of the run may speak here. Raises Refusal."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    if uid != os.geteuid():
        raise Refusal(HTTPStatus.FORBIDDEN, f"this run belongs to user {os.geteuid()}, not to {uid}")
