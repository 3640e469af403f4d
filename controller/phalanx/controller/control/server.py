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
from pathlib import Path
from typing import Any

from aiohttp import web

from ..fleet.conductor import Conductor
from .execution import ExecRequest, ExecRequestError, Execution

#: Lines that may wait for a watcher that does not read; beyond that it is dropped and asks again.
WATCHER_LINES = 100_000
#: Log sizes are told this often, in seconds, and a sign of life this often.
SIZES_EVERY_S = 0.1
HEARTBEAT_EVERY_S = 5.0
#: Seconds that watchers get to read the last event.
LINGER_S = 3.0

#: Lines on their way to a watcher, each with its sequence number; None is the end.
Lines = asyncio.Queue[tuple[int, bytes] | None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Watchers:
    """Everyone who follows the run."""

    def __init__(self) -> None:
        self._queues: set[Lines] = set()
        self._empty = asyncio.Event()
        self.closing = False

    def publish(self, seq: int, line: bytes) -> None:
        """Give a line to every watcher; ``seq`` 0 for one that is not of the event log."""
        for queue in list(self._queues):
            try:
                queue.put_nowait((seq, line))
            except asyncio.QueueFull:
                self._queues.discard(queue)

    def ephemeral(self, kind: str, data: dict[str, Any]) -> None:
        """Tell something that is not in the log."""
        if self._queues:
            document = {"v": 1, "type": kind, "data": data}
            self.publish(0, json.dumps(document, separators=(",", ":")).encode() + b"\n")

    def progress(self, phase: str, node: str, done: int, total: int) -> None:
        """How far a transfer is."""
        self.ephemeral("progress", {"phase": phase, "node": node, "done": done, "total": total})

    def join(self) -> Lines:
        """A queue of lines from now on."""
        queue: Lines = asyncio.Queue(WATCHER_LINES)
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
            await asyncio.wait([asyncio.ensure_future(self._empty.wait())], timeout=LINGER_S)


class ControlServer:
    """Serves one run on a unix socket."""

    def __init__(self, conductor: Conductor, watchers: Watchers) -> None:
        self._conductor = conductor
        self._watchers = watchers
        self._execution = Execution(conductor)
        self._sizes: dict[str, int] = {}
        app = web.Application(middlewares=[_same_user], client_max_size=1 << 20)
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
        """Listen. The folder of ``path`` is made 0700 or refused."""
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
        sizes = self._conductor.store.sizes
        grown = {path: size for path, size in sizes.items() if self._sizes.get(path) != size}
        if grown:
            self._sizes.update(grown)
            self._watchers.ephemeral("log.advanced", grown)

    # --- endpoints

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        after = int(request.query.get("from", "0"))
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
        """The lines of the log after ``after``, then the sizes of all logs; the last sequence number told."""
        path = self._conductor.run_dir / "events.jsonl"
        data = await asyncio.to_thread(path.read_bytes)
        last = after
        wanted = []
        for line in data.splitlines(keepends=True):
            seq = json.loads(line)["seq"] if line.endswith(b"\n") else 0
            if seq > after:
                wanted.append(line)
                last = seq
        sizes = {"v": 1, "type": "log.advanced", "data": dict(self._conductor.store.sizes)}
        await response.write(b"".join(wanted) + json.dumps(sizes).encode() + b"\n")
        return last

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
        level = body.get("level", 1)
        if level not in (1, 2):
            raise web.HTTPBadRequest(text="level is 1 (drain) or 2 (kill)")
        self._conductor.cancel(level, str(body.get("by", "someone"))[:255])
        return web.json_response({})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        try:
            wanted = ExecRequest.parse(await _body(request))
            step = self._execution.begin(wanted)
        except ExecRequestError as error:
            raise web.HTTPConflict(text=str(error)) from None
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            async for document in self._execution.lines(step):
                await response.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")
        except ConnectionError:
            return response
        finally:
            self._execution.end(step)
        return response


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text="the body is not JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not an object")
    return body


@web.middleware
async def _same_user(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only the owner of the run may speak here."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None:
        raise web.HTTPForbidden
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    if uid != os.geteuid():
        raise web.HTTPForbidden
    return await handler(request)
