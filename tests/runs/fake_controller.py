"""A controller that plays a written part: events, growing log files, silences, sudden death.

It speaks the control socket as the real one does, so that a client can be shown what no real run does on
demand. In place of ``launch.conduct`` it plays the part in $PHALANX_FAKE_PART.

An act is a dict with one of: ``event`` (type, data), ``log`` (path) with ``text``, ``until`` (``cancel1``,
``cancel2`` or a path that appears), ``silence`` (True closes every stream and refuses new ones, False speaks
again), ``die``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from phalanx.controller.fleet import events as ev
from phalanx.controller.plan.model import Plan

#: Between looks at a path that a test will make.
LOOK_S = 0.01
#: A program whose test has failed must not wait for ever for what no longer comes.
LIFE_S = 90.0


def act(event: ev.Event) -> dict[str, Any]:
    """The act that records an event."""
    import dataclasses

    return {"event": event.TYPE, "data": dataclasses.asdict(event)}


class FakeController:
    """One run directory, one part."""

    def __init__(self, run: Path, acts: Sequence[dict[str, Any]]) -> None:
        self.run = run
        self.acts = acts
        self.secrets: dict[str, str] = {}
        self.cancels: list[dict[str, Any]] = []
        self.execs: list[dict[str, Any]] = []
        self._seq = 0
        self._sizes: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._silent = False
        self._over = False
        self._folder = tempfile.mkdtemp(prefix="phalanx-fake-")
        self._runner: web.AppRunner | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return Path(self._folder) / "s"

    async def __aenter__(self) -> FakeController:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/watch", self._watch),
                web.post("/v1/cancel", self._cancel),
                web.post("/v1/exec", self._exec),
                web.get("/v1/nodes", self._nodes),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()
        document = {"pid": os.getpid(), "socket": str(self.socket), "started_at": 0.0}
        fresh = self.run / ".control.json"
        fresh.write_text(json.dumps(document))
        fresh.rename(self.run / "control.json")
        return self

    async def __aexit__(self, *what: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        shutil.rmtree(self._folder)

    async def play(self) -> None:
        """All acts, one after another."""
        for one in self.acts:
            await self._act(one)
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def _act(self, one: dict[str, Any]) -> None:
        if "event" in one:
            await self._record(one["event"], one["data"])
        elif "log" in one:
            path = self.run / one["log"]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(one["text"].encode("utf-8", "surrogateescape"))
            async with self._changed:
                self._sizes[one["log"]] = path.stat().st_size
                self._changed.notify_all()
        elif "until" in one:
            await self._until(one["until"])
        elif "silence" in one:
            async with self._changed:
                self._silent = one["silence"]
                self._changed.notify_all()
        elif "die" in one:
            os._exit(1)

    async def _record(self, kind: str, data: dict[str, Any]) -> None:
        event = ev.EVENTS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})
        async with self._changed:
            self._seq += 1
            with (self.run / "events.jsonl").open("ab") as file:
                file.write(ev.to_line(self.run.name, ev.Recorded(self._seq, time.time(), event)))
            self._changed.notify_all()

    async def _until(self, what: str) -> None:
        if what.startswith("cancel"):
            async with self._changed:
                await self._changed.wait_for(lambda: any(c["level"] >= int(what[-1]) for c in self.cancels))
            return
        while not os.path.exists(what):  # noqa: ASYNC240, PTH110 - a look at a local file
            await asyncio.sleep(LOOK_S)

    # --- the control socket --------------------------------------------------------------------------

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self._silent:
            raise web.HTTPServiceUnavailable(text='{"error": "not now"}')
        reply = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await reply.prepare(request)
        seq, told = int(request.query["from"]), dict[str, int]()
        while not self._silent:
            lines = [line for line in self._lines() if json.loads(line)["seq"] > seq]
            fresh = {path: size for path, size in self._sizes.items() if told.get(path) != size}
            over = self._over
            if fresh:
                told.update(fresh)
                notice = json.dumps({"v": 1, "type": "log.advanced", "data": fresh}).encode() + b"\n"
                await reply.write(notice)
            for line in lines:
                seq = json.loads(line)["seq"]
                await reply.write(line)
            if over:
                break
            async with self._changed:
                if not self._over and not self._silent and self._seq == seq and told == self._sizes:
                    await self._changed.wait()
        return reply

    def _lines(self) -> list[bytes]:
        path = self.run / "events.jsonl"
        return path.read_bytes().splitlines(keepends=True) if path.exists() else []

    async def _cancel(self, request: web.Request) -> web.Response:
        body = await request.json()
        await self._record("cancel.requested", {"level": body["level"], "by": body["by"]})
        async with self._changed:
            self.cancels.append(body)
            self._changed.notify_all()
        return web.json_response({})

    async def _nodes(self, request: web.Request) -> web.Response:
        nodes = [
            {"node": name, "node_rank": rank, "state": "joined", "address": "10.0.0.1:9", "last_heard_s": 0.1,
             "facts": None, "clock_offset_s": 0.0}
            for rank, name in enumerate(("node1", "node2"))
        ]  # fmt: skip
        return web.json_response({"nodes": nodes})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        """Every node says its name on standard output and the command on standard error; node2 exits 3."""
        body = await request.json()
        self.execs.append(body)
        if body["argv"] == ["refuse"]:
            raise web.HTTPConflict(text='{"error": "no case is open"}')
        reply = web.StreamResponse()
        await reply.prepare(request)
        nodes = body["nodes"] or ["node1", "node2"]
        said: list[dict[str, Any]] = [{"type": "exec.started", "data": {"step": "exec-1", "nodes": nodes}}]
        for node in nodes:
            for output, text in (("out", b"same\nname of " + node.encode()), ("err", b"to err\n")):
                data = {"node": node, "output": output, "b64": base64.b64encode(text).decode()}
                said.append({"type": "exec.output", "data": data})
            status = 3 if node == "node2" else 0
            said.append(
                {
                    "type": "exec.exited",
                    "data": {"node": node, "status": status, "cause": "exited", "detail": ""},
                }
            )
        said.append({"type": "exec.done"})
        for one in said:
            await reply.write(json.dumps(one).encode() + b"\n")
        return reply


async def _perform(run: Path, acts: list[dict[str, Any]]) -> None:
    async with FakeController(run, acts) as controller, asyncio.timeout(LIFE_S):
        await controller.play()


def conduct(run: Path, plan: Plan, secrets: dict[str, str]) -> int:
    """Play the part in $PHALANX_FAKE_PART, in the process that the command has forked off."""
    digest = hashlib.sha256(json.dumps(secrets).encode()).hexdigest()
    (run / "secrets.sha256").write_text(digest)
    acts = json.loads(Path(os.environ["PHALANX_FAKE_PART"]).read_text())
    if acts and "die" in acts[0]:
        sys.stderr.write("cannot listen on 10.2.0.4: no such address; see --advertise\n")
        return 1
    asyncio.run(_perform(run, acts))
    return 0
