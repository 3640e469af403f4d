"""The control socket of a run: what ``phalanx`` verbs ask of a controller that is alive.

HTTP over a unix socket in a folder that only its owner can enter; the peer's uid is checked as well.
Everything a verdict needs is in the event log on disk: whoever cannot reach this socket can still read it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from ..fleet.conductor import Conductor
from .execution import BadExecRequest, ExecRefused, ExecRequest, Execution

#: Events that may wait for a watcher that does not read; beyond that it is dropped and asks again.
WATCHER_LINES = 10_000
#: Lines that may wait while sizes, progress and signs of life are still worth telling.
EPHEMERAL_LINES = 1000
#: Log sizes are told this often, in seconds, and a sign of life this often.
SIZES_EVERY_S = 0.1
HEARTBEAT_EVERY_S = 5.0
#: Seconds that watchers get to read the last event.
LINGER_S = 3.0
#: Largest body of a request, in bytes.
BODY_BYTES = 1 << 20

#: Lines on their way to a watcher, each with its sequence number; None is the end.
Lines = asyncio.Queue[tuple[int, bytes] | None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
        app = web.Application(middlewares=[_refusals_in_json, _same_user], client_max_size=BODY_BYTES)
        app.add_routes(
            [
                web.get("/v1/watch", self._watch),
                web.get("/v1/nodes", self._nodes),
                web.post("/v1/cancel", self._cancel),
                web.post("/v1/exec", self._exec),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def start(self, path: Path) -> None:
        """Listen. ``path`` is in a folder that only we can enter (``socket_path``)."""
        await self._runner.setup()
        await web.UnixSite(self._runner, str(path)).start()

    async def close(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

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

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        after = _number(request.query.get("from", "0"))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        queue = self._watchers.join()
        try:
            last = await self._replay(response, after)
            if self._watchers.closing:
                return response
            while (item := await queue.get()) is not None and self._watchers.has(queue):
                seq, line = item
                if seq == 0 or seq > last:
                    await response.write(line)
        except ConnectionError:
            return response
        finally:
            self._watchers.leave(queue)
        return response

    async def _replay(self, response: web.StreamResponse, after: int) -> int:
        """The lines of the log after ``after``, then the sizes of all logs; the last sequence number told.

        Only what was published is read: what comes later comes through the queue, which is joined already.
        """
        path, upto = self._conductor.run_dir / "events.jsonl", self._watchers.told
        lines = await asyncio.to_thread(_lines_between, path, after, upto)
        sizes = {"v": 1, "type": "log.advanced", "data": dict(self._conductor.store.sizes)}
        await response.write(lines + json.dumps(sizes).encode() + b"\n")
        return max(after, upto)

    async def _nodes(self, _request: web.Request) -> web.StreamResponse:
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
        return web.json_response({"nodes": nodes})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        level, by = body.get("level", 1), body.get("by", "someone")
        if type(level) is not int or level not in (1, 2):
            raise web.HTTPBadRequest(text="level: expected 1 (drain) or 2 (kill)")
        if not isinstance(by, str):
            raise web.HTTPBadRequest(text="by: expected a word")
        self._conductor.cancel(level, by[:255])
        return web.json_response({})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        try:
            step = self._execution.begin(ExecRequest.parse(await _body(request)))
        except BadExecRequest as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        except ExecRefused as error:
            raise web.HTTPConflict(text=str(error)) from None
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            await response.prepare(request)
            async with aclosing(self._execution.lines(step)) as lines:
                async for document in lines:
                    await response.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")
        except ConnectionError:
            return response
        finally:
            self._execution.end(step)
        return response


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
        raise web.HTTPBadRequest(text=f"from: expected the number of an event, got {text[:40]!r}")
    return int(text)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text="the body is not JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not an object")
    return body


@web.middleware
async def _refusals_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whoever asked gets the words, in the same form for every refusal."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        return web.json_response({"error": error.text or error.reason}, status=error.status)


@web.middleware
async def _same_user(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only the owner of the run may speak here."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None:
        raise web.HTTPForbidden(text="the connection is gone")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    if uid != os.geteuid():
        raise web.HTTPForbidden(text=f"this run belongs to user {os.geteuid()}, not to {uid}")
    return await handler(request)
