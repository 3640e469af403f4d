"""The cases of this node: places, steps, their logs and their results.

Each message of the controller about a case has one method here; each answers with one message, errors
included. Messages come exactly once and in order, so nothing here has to guess what was lost.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.agent.blobs import BlobError, BlobStore
from phalanx.agent.collect import CollectLimits, find_results
from phalanx.agent.lease import boottime
from phalanx.agent.logs import LogPump, Stream
from phalanx.agent.runtimes.base import CasePlaces, Ended, Owner, Place, Running, Runtime, RuntimeUnavailable
from phalanx.agent.workload import WorkloadServer
from phalanx.agent.workspace import WorkspaceError, unpack
from phalanx.protocol.messages import (
    NODE_LEVEL,
    CaseClose,
    CaseClosed,
    CaseOpen,
    CaseOpened,
    Cause,
    Collect,
    Collected,
    Diagnose,
    Diagnosed,
    FileOffer,
    LogOpen,
    Message,
    StepExited,
    StepStart,
    StepStarted,
    StepStop,
)
from phalanx.protocol.schema import as_words

#: How long the logs of a case may take to reach the controller before its files are removed, in seconds.
DRAIN_S = 60.0
_SAFE = re.compile(r"[^A-Za-z0-9_.-]")


def safe(name: str) -> str:
    """A case or step name as one path component."""
    cleaned = _SAFE.sub("_", name)[:96]
    return "_" + cleaned if cleaned[:1] in ("", ".") else cleaned


@dataclass(slots=True)
class OpenCase:
    """A case on this node. ``running``: its processes by (step, rank)."""

    message: CaseOpen
    places: CasePlaces
    place: Place
    running: dict[tuple[str, int], Running] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    api: object | None = None


@dataclass(slots=True)
class Cases:
    """All cases of this node. ``spawn`` starts a named task whose owner is the session."""

    owner: Owner
    base: Path
    send: Callable[[Message], None]
    spawn: Callable[[Coroutine[Any, Any, None], str], None]
    logs: LogPump
    blobs: BlobStore
    runtime_of: Callable[[CaseOpen], Runtime]
    serve_api: Callable[[CaseOpen, Path], object]
    stop_api: Callable[[object], None]
    open: dict[str, OpenCase] = field(default_factory=dict)

    # --- opening and closing

    async def open_case(self, message: CaseOpen) -> None:
        """Make the place of a case."""
        try:
            opened = await self._open(message)
        except (RuntimeUnavailable, WorkspaceError, BlobError) as error:
            self._reply_opened(message, "", str(error))
        except OSError as error:
            self._reply_opened(message, "", f"cannot make the case's folders: {error}")
        else:
            self.open[message.case] = opened
            self._reply_opened(message, opened.place.container, "")

    def _reply_opened(self, message: CaseOpen, container: str, error: str) -> None:
        self.send(CaseOpened(message.request, message.case, container[:255], as_words(error)))

    async def _open(self, message: CaseOpen) -> OpenCase:
        runtime = self.runtime_of(message)
        base = self.base / "cases" / safe(message.case)
        places = CasePlaces(
            base=base,
            work=base / "work",
            results=base / "results",
            spool=base / "spool",
            socket=base / "sock" / "phalanx.sock",
        )
        for folder in (base, places.work, places.results, places.spool, places.socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if message.workspace is not None:
            archive = self.blobs.held.get(message.workspace)
            if archive is None:
                raise BlobError("the workspace did not come before the case")
            await asyncio.to_thread(unpack, archive, places.work)
        api = self.serve_api(message, places.socket)
        try:
            place = await runtime.open_case(message, places, self.owner)
        except BaseException:
            self.stop_api(api)
            raise
        return OpenCase(message, places, place, api=api)

    async def close_case(self, message: CaseClose) -> None:
        """End a case and remove what it left on this node."""
        case = self.open.get(message.case)
        error = await self._close(case, message.grace_s) if case is not None else ""
        self.send(CaseClosed(message.request, message.case, as_words(error)))

    async def _close(self, case: OpenCase, grace_s: float) -> str:
        error = ""
        try:
            await self._end_place(case, grace_s)
        except RuntimeUnavailable as trouble:
            error = str(trouble)
        name = case.message.case
        if not await self.logs.drained(name, DRAIN_S):
            return error or f"logs of {name} did not reach the controller; they are in {case.places.spool}"
        self.open.pop(name, None)
        await asyncio.to_thread(shutil.rmtree, case.places.base, ignore_errors=True)
        if case.message.workspace is not None:
            self.blobs.drop(case.message.workspace)
        return error

    async def _end_place(self, case: OpenCase, grace_s: float) -> None:
        for step in {step for step, _ in case.running}:
            case.stopped.setdefault(step, grace_s)
        try:
            await asyncio.gather(*(running.stop(grace_s) for running in list(case.running.values())))
        finally:
            await case.place.close(grace_s)
            if case.api is not None:
                self.stop_api(case.api)
                case.api = None

    async def close_all(self, grace_s: float) -> list[str]:
        """End every case; words for what could not be ended."""
        errors = await asyncio.gather(*(self._close(case, grace_s) for case in list(self.open.values())))
        return [error for error in errors if error]

    async def kill_all(self) -> None:
        """End every process now, keep the files: the controller is out of reach."""
        for case in list(self.open.values()):
            try:
                await self._end_place(case, 0.0)
            except RuntimeUnavailable:
                continue  # its lease ends it

    def renew_leases(self) -> None:
        """The controller was heard: every place may go on."""
        until = boottime() + self.owner.lease_s
        for case in self.open.values():
            try:
                case.place.lease.renew(until)
            except OSError:
                continue  # a lease that cannot be renewed ends the case: that is what it is for

    # --- steps

    def start_step(self, message: StepStart) -> None:
        """Start a step: one task per process that waits for its end."""
        case = self.open.get(message.case)
        for rank in message.ranks or (NODE_LEVEL,):
            if case is None:
                words = f"case {message.case!r} is not open on this node"
                self._exited(message, rank, Ended(126, Cause.NOT_STARTED, 0.0, words))
            else:
                name = f"step {message.step} rank {rank}"
                self.spawn(self._run_step(case, message, rank), name)

    async def _run_step(self, case: OpenCase, message: StepStart, rank: int) -> None:
        who = "node" if rank == NODE_LEVEL else f"rank{rank}"
        directory = case.places.spool / safe(message.step) / who
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            words = f"cannot make its spool: {error.strerror}"
            self._exited(message, rank, Ended(126, Cause.NOT_STARTED, 0.0, words))
            return
        streams = [self._follow(message, rank, directory, output) for output in ("out", "err")]
        running = await case.place.start(message, rank, self._rank_env(case, rank), directory)
        key = (message.step, rank)
        case.running[key] = running
        self.send(StepStarted(message.case, message.step, rank))
        if message.step in case.stopped:
            self.spawn(running.stop(case.stopped[message.step]), f"late stop of {message.step}")
        ended = await self._wait(running, message)
        case.running.pop(key, None)
        for stream in streams:
            self.logs.finish(stream)
        self._exited(message, rank, ended)

    def _follow(self, message: StepStart, rank: int, directory: Path, output: str) -> Stream:
        return self.logs.follow(
            lambda number: LogOpen(number, message.case, message.step, rank, output), directory / output
        )

    async def _wait(self, running: Running, message: StepStart) -> Ended:
        if not message.deadline_s:
            return await running.wait()
        waiting = asyncio.ensure_future(running.wait())
        try:
            done, _ = await asyncio.wait([waiting], timeout=message.deadline_s)
            if done:
                return waiting.result()
            await running.stop(message.grace_s)
            ended = await waiting
        finally:
            waiting.cancel()
        words = f"stopped at its deadline of {message.deadline_s:g} s"
        return Ended(ended.status or 124, Cause.DEADLINE, ended.seconds, words)

    def _rank_env(self, case: OpenCase, rank: int) -> dict[str, str]:
        opening, owner = case.message, self.owner
        env = {
            "PHALANX_NODE": owner.node,
            "PHALANX_WORLD_SIZE": str(opening.world_size),
            "WORLD_SIZE": str(opening.world_size),
            "PHALANX_RESULTS": case.place.inside(case.places.results),
            "PHALANX_SOCKET": self._socket_path(case),
            "PYTHONUNBUFFERED": "1",
        }
        if rank != NODE_LEVEL:
            local = str(opening.ranks.index(rank))
            env |= {"RANK": str(rank), "PHALANX_RANK": str(rank)}
            env |= {"LOCAL_RANK": local, "PHALANX_LOCAL_RANK": local}
            env["LOCAL_WORLD_SIZE"] = str(len(opening.ranks))
        return env

    @staticmethod
    def _socket_path(case: OpenCase) -> str:
        """Where the workload finds its socket: a short path where there is no container to give it one."""
        if case.place.container or not isinstance(case.api, WorkloadServer):
            return case.place.inside(case.places.socket)
        return str(case.api.client_path)

    def _exited(self, message: StepStart, rank: int, ended: Ended) -> None:
        self.send(
            StepExited(
                message.case,
                message.step,
                rank,
                ended.status,
                ended.cause,
                max(0.0, ended.seconds),
                as_words(ended.detail),
            )
        )

    async def stop_step(self, message: StepStop) -> None:
        """End the processes of a step; what cannot be ended is left to the lease."""
        case = self.open.get(message.case)
        if case is None:
            return
        case.stopped[message.step] = message.grace_s
        running = [one for (step, _), one in case.running.items() if step == message.step]
        results = await asyncio.gather(
            *(one.stop(message.grace_s) for one in running), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, RuntimeUnavailable):
                raise result

    async def drain(self, grace_s: float) -> None:
        """The scheduler takes the node: end all steps now, so that their logs and results still get out."""
        stops = []
        for case in self.open.values():
            for step in {step for step, _ in case.running}:
                stops.append(self.stop_step(StepStop(case.message.case, step, grace_s)))
        await asyncio.gather(*stops)

    # --- diagnostics and results

    async def diagnose(self, message: Diagnose) -> None:
        """Write what this node sees into the diagnostics stream of the case."""
        case = self.open.get(message.case)
        error = "" if case is not None else "the case is not open on this node"
        if case is not None:
            path = case.places.spool / "diagnostics.txt"
            try:
                text = await case.place.diagnose()
                await asyncio.to_thread(path.write_text, text, "utf-8", "backslashreplace")
                stream = self.logs.follow(
                    lambda number: LogOpen(number, message.case, "diagnostics", NODE_LEVEL, "out"), path
                )
                self.logs.finish(stream)
            except (RuntimeUnavailable, OSError) as trouble:
                error = str(trouble)
        self.send(Diagnosed(message.request, message.case, as_words(error)))

    async def collect(self, message: Collect) -> None:
        """Offer the results of a case."""
        case = self.open.get(message.case)
        if case is None:
            self.send(Collected(message.request, message.case, 0, ()))
            return
        found = await asyncio.to_thread(
            find_results, case.places.results, case.places.work, message.patterns, CollectLimits()
        )
        left_out = list(found.left_out)
        offered = 0
        if found.files:
            await self.blobs.need_bulk()
        for file in found.files:
            try:
                manifest = await self.blobs.offer(file.path)
            except BlobError as error:
                left_out.append(str(error))
                continue
            for page in manifest.pages():
                self.send(page)
            self.send(FileOffer(message.request, message.case, file.name, manifest.size, manifest.blob))
            offered += 1
        words = tuple(as_words(line) for line in left_out[:64])
        self.send(Collected(message.request, message.case, offered, words))


def remove_base(base: Path) -> None:
    """Remove the agent's folder; what cannot be removed stays for the janitor."""
    if base.is_dir() and base.stat().st_uid == os.geteuid():
        shutil.rmtree(base, ignore_errors=True)
