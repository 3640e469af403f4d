"""The cases of this node: their places, opened and closed, and what runs in them.

Each message of the controller about a case has one method here; each answers with one message, errors
included. Messages come exactly once and in order, so nothing here has to guess what was lost. Opening and
closing the same case wait for each other; a step knows at once that it is to be stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phalanx.agent.attempt import Attempt, not_started
from phalanx.agent.blobs import BlobError, BlobStore
from phalanx.agent.case_folder import make_places, remove, same_folder
from phalanx.agent.data.case import CaseData, as_started, is_own
from phalanx.agent.data.places import data_places
from phalanx.agent.diagnosis import LOOK_S, write_down
from phalanx.agent.library import LibraryUnusable, unpack_library
from phalanx.agent.logs import LogPump, Stream
from phalanx.agent.pressure import Pressed
from phalanx.agent.relay.place import PlaceRefused
from phalanx.agent.runtimes.base import CasePlaces, Ended, Owner, Place, Runtime, RuntimeUnavailable
from phalanx.agent.script_results import ScriptResults, located
from phalanx.agent.workload import WorkloadServer, WorkloadUnavailable
from phalanx.agent.workspace import WorkspaceError, make_folder, unpack
from phalanx.protocol import messages as m
from phalanx.protocol.messages import (
    MAIN_STEP,
    NODE_LEVEL,
    CaseClose,
    CaseClosed,
    CaseOpen,
    CaseOpened,
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
#: The same when the agent leaves: the controller waits some ten seconds beyond the grace for its last words.
LAST_DRAIN_S = 5.0

#: The name of the place beside all cases, for what runs as the agent itself.
HOST = ""
#: Its folder; no case's name gives one with a dot in front.
_HOST_FOLDER = ".host"
#: What keeps a case from being opened, in words for people.
_CANNOT_OPEN = (
    RuntimeUnavailable,
    WorkspaceError,
    WorkloadUnavailable,
    BlobError,
    LibraryUnusable,
    PlaceRefused,
)
_SAFE = re.compile(r"[^A-Za-z0-9_.-]")


def safe(name: str) -> str:
    """A case or step name as one path component."""
    cleaned = _SAFE.sub("_", name)[:96]
    return "_" + cleaned if cleaned[:1] in ("", ".") else cleaned


@dataclass(slots=True)
class OpenCase:
    """A case on this node, or the place beside the cases. ``ending``: nothing more is started in it.

    ``script_results``: the places where its script may leave its results. ``began``: when its own
    script was first started here, in nanoseconds of the clock that files are stamped with; 0 before.
    """

    message: CaseOpen
    places: CasePlaces
    place: Place
    api: object | None = None
    data: CaseData | None = None
    ending: bool = False
    script_results: ScriptResults | None = None
    began: int = 0

    @property
    def folder(self) -> Path:
        """Where its steps run."""
        return self.places.work / self.message.spec.workdir


@dataclass(slots=True)
class Cases:
    """All cases of this node. ``spawn`` starts a named task whose owner is the session.

    ``data_cache``: where the node keeps data sets; ``libraries``: where it keeps bundles of modules.
    """

    owner: Owner
    base: Path
    send: Callable[[Message], None]
    spawn: Callable[[Coroutine[Any, Any, None], str], None]
    logs: LogPump
    blobs: BlobStore
    runtime_of: Callable[[m.Runtime], Runtime]
    serve_api: Callable[[CaseOpen, Path], object]
    stop_api: Callable[[object], None]
    data_cache: Callable[[], Path]
    libraries: Path
    open: dict[str, OpenCase] = field(default_factory=dict)
    attempts: set[Attempt] = field(default_factory=set)
    draining: str = ""
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)

    def _turn(self, name: str) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())

    # --- opening and closing

    async def open_case(self, message: CaseOpen) -> None:
        """Make the place of a case."""
        async with self._turn(message.case):
            container, error = await self._try_open(message)
        self.send(CaseOpened(message.request, message.case, container[:255], as_words(error)))

    async def _try_open(self, message: CaseOpen) -> tuple[str, str]:
        if message.case == HOST or message.case in self.open:
            return "", f"case {message.case!r} is on this node already"
        try:
            opened = await self._open(message, safe(message.case))
        except _CANNOT_OPEN as error:
            return "", str(error)
        except OSError as error:
            return "", f"cannot make the case's folders: {error}"
        self.open[message.case] = opened
        return opened.place.container, ""

    async def _open(self, message: CaseOpen, folder: str) -> OpenCase:
        base = await self._folder(message, folder)
        with contextlib.ExitStack() as undo:
            undo.callback(remove, base)
            places = make_places(base)
            if message.workspace is not None:
                archive = self.blobs.held.get(message.workspace)
                if archive is None:
                    raise BlobError("the workspace did not come before the case")
                await asyncio.to_thread(unpack, archive, places.work)
            make_folder(places.work, message.spec.workdir)
            data = await self._data(message, places) if message.spec.data else None
            api = None
            if message.case != HOST:
                api = self.serve_api(message, places.socket)
                undo.callback(self.stop_api, api)
            runtime = self.runtime_of(message.spec.runtime)
            asked = data.with_mounts(message) if data is not None else message
            place = await runtime.open_case(asked, places, self.owner)
            undo.pop_all()
        opened = OpenCase(message, places, place, api=api, data=data)
        if message.result_places:
            looked_at = located(message.result_places, opened.folder, os.environ.get("SLURM_JOB_ID", ""))
            opened.script_results = await asyncio.to_thread(ScriptResults.opened, looked_at)
        return opened

    async def _folder(self, message: CaseOpen, name: str) -> Path:
        """The folder of a case; where a script drives the nodes, the same on all of them. Raises OSError."""
        if message.driven:
            same = await asyncio.to_thread(same_folder, self.base.parent, self.owner.run_id, name)
            if same is not None:
                return same
        return self.base / "cases" / name

    async def _data(self, message: CaseOpen, places: CasePlaces) -> CaseData:
        library = None
        if message.library is not None:
            bundle = self.blobs.held.get(message.library)
            if bundle is None:
                raise BlobError("the modules for data steps did not come before the case")
            library = await asyncio.to_thread(unpack_library, bundle, self.libraries)
        found = await asyncio.to_thread(data_places, message.spec.data, places.work, self.data_cache)
        return CaseData(places.base, self.data_cache(), found, library)

    async def _host(self) -> OpenCase:
        """The place beside the cases, made when it is first needed. Raises RuntimeUnavailable, OSError."""
        async with self._turn(HOST):
            host = self.open.get(HOST)
            if host is None:
                spec = m.ContainerSpec(runtime=m.Runtime.PROCESS)
                message = CaseOpen(0, HOST, spec, (), 0, None)
                host = self.open[HOST] = await self._open(message, _HOST_FOLDER)
            return host

    async def close_case(self, message: CaseClose) -> None:
        """End a case and remove what it left on this node."""
        async with self._turn(message.case):
            error = await self._close(message.case, message.grace_s, DRAIN_S)
        self.send(CaseClosed(message.request, message.case, as_words(error)))

    async def _close(self, name: str, grace_s: float, drain_s: float) -> str:
        case = self.open.get(name)
        if case is None:
            return ""
        try:
            await self._end_place(case, grace_s)
        except (RuntimeUnavailable, OSError) as trouble:
            return str(trouble)
        if not await self.logs.drained(name, drain_s):
            return f"logs of {name} did not reach the controller; they are in {case.places.spool}"
        del self.open[name]
        self.blobs.forget(case.places.base)
        await asyncio.to_thread(remove, case.places.base)
        if case.message.workspace is not None:
            self.blobs.drop(case.message.workspace)
        return ""

    async def _end_place(self, case: OpenCase, grace_s: float) -> None:
        """End what runs in a place, then the place. Raises RuntimeUnavailable, OSError."""
        case.ending = True
        try:
            await _stop(self._in(case.message.case), grace_s)
            await case.place.close(grace_s)
            if case.message.driven and self.owner.node_rank == 0:
                from phalanx.agent.job_steps import end_left_behind

                await end_left_behind()
        finally:
            if case.api is not None:
                self.stop_api(case.api)
                case.api = None

    async def close_all(self, grace_s: float) -> list[str]:
        """End every case; words for what could not be ended."""

        async def close(name: str) -> str:
            async with self._turn(name):
                return await self._close(name, grace_s, LAST_DRAIN_S)

        # _turns knows of those that are just being opened, too
        errors = await asyncio.gather(*(close(name) for name in list(self._turns)))
        return [error for error in errors if error]

    async def kill_all(self) -> None:
        """End every process now, keep the files: the controller is out of reach."""
        ends = (self._end_place(case, 0.0) for case in list(self.open.values()))
        # whatever goes wrong with one: its lease ends it
        await asyncio.gather(*ends, return_exceptions=True)

    def renew_leases(self, until_s: float) -> None:
        """Every place may go on until that moment, in seconds since boot."""
        for case in self.open.values():
            with contextlib.suppress(OSError):  # a lease that cannot be renewed ends the case: it is for that
                case.place.lease.renew(until_s)

    def pressed(self) -> Iterator[Pressed]:
        """The places whose output is under the quota; what is being stopped has to be able to move."""
        for name, case in self.open.items():
            free = not case.ending and not any(attempt.stopping for attempt in self._in(name))
            yield Pressed(name, case.place, case.places.spool, free)

    # --- steps

    def start_step(self, message: StepStart) -> None:
        """Start a step: one task per process, which ends with its verdict."""
        if is_own(message):
            message = self._own(message)
        for rank in message.ranks or (NODE_LEVEL,):
            attempt = Attempt(message, rank)
            self.attempts.add(attempt)
            self.spawn(self._run(attempt), f"step {message.step} rank {rank}")

    def _own(self, message: StepStart) -> StepStart:
        """The agent's own program; it says itself when there is no case that it could work for."""
        case = self.open.get(message.case)
        if case is not None and case.data is not None:
            socket = str(case.api.client_path) if isinstance(case.api, WorkloadServer) else ""
            message = case.data.told(message, case.places.results, socket, os.environ)
        return as_started(message)

    async def _run(self, attempt: Attempt) -> None:
        try:
            ended = await self._verdict(attempt)
        except (RuntimeUnavailable, OSError) as error:
            ended = not_started(str(error))
        except Exception as error:  # noqa: BLE001 - protects the run from a bug of ours: every step has an end
            ended = not_started(f"internal error in the agent: {type(error).__name__}: {error}")
        finally:
            self.attempts.discard(attempt)
            attempt.over.set()
        self._tell(attempt, ended)

    def _tell(self, attempt: Attempt, ended: Ended) -> None:
        message, seconds = attempt.message, max(0.0, ended.seconds)
        case = self.open.get(message.case)
        if ended.status and not ended.detail and message.where == "host" and case and case.data:
            ended = replace(ended, detail=case.data.why())
        words = as_words(ended.detail)
        self.send(
            StepExited(message.case, message.step, attempt.rank, ended.status, ended.cause, seconds, words)
        )

    async def _verdict(self, attempt: Attempt) -> Ended:
        message, rank = attempt.message, attempt.rank
        name = _place_of(message)
        case = await self._host() if name == HOST else self.open.get(name)
        if case is None:
            return not_started(f"case {name!r} is not open on this node")
        if refusal := self._refusal(case, rank):
            return not_started(refusal)
        who = "node" if rank == NODE_LEVEL else f"rank{rank}"
        # beside all cases, steps of several cases may have one name
        step = f"{message.case}.{message.step}" if name == HOST and message.case else message.step
        directory = case.places.spool / safe(step) / who
        for folder in (directory.parent, directory):
            folder.mkdir(mode=0o700, exist_ok=True)
        if message.step == MAIN_STEP and not case.began:
            case.began = directory.stat().st_ctime_ns
            if case.script_results is not None:  # what a clone has brought is no result
                await asyncio.to_thread(case.script_results.look_again)
        streams = [self._follow(message, rank, directory, output) for output in ("out", "err")]
        try:
            return await attempt.run(
                case.place,
                self._rank_env(case, rank),
                directory,
                lambda: self.send(StepStarted(message.case, message.step, rank)),
                lambda: self._look(case),
            )
        finally:
            for stream in streams:
                self.logs.finish(stream)

    async def _look(self, case: OpenCase) -> None:
        """Write down what hangs; that it cannot be seen keeps nobody from ending it."""
        with contextlib.suppress(RuntimeUnavailable, OSError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await write_down(case.message.case, case.places, case.place, self.logs)

    def _refusal(self, case: OpenCase, rank: int) -> str:
        if self.draining:
            return self.draining
        if case.ending:
            return "the case is being closed"
        if rank != NODE_LEVEL and rank not in case.message.ranks:
            return f"rank {rank} is not of this node"
        return ""

    def _follow(self, message: StepStart, rank: int, directory: Path, output: str) -> Stream:
        return self.logs.follow(
            lambda number: LogOpen(number, message.case, message.step, rank, output), directory / output
        )

    def _rank_env(self, case: OpenCase, rank: int) -> dict[str, str]:
        opening = case.message
        env = {"PHALANX_NODE": self.owner.node, "PYTHONUNBUFFERED": "1"}
        if opening.case == HOST:
            return env
        env |= {
            "PHALANX_RESULTS": case.place.inside(case.places.results),
            "PHALANX_SOCKET": self._socket_path(case),
        }
        if case.data is not None and (name := opening.spec.data_variable):
            env[name] = case.data.seen(in_container=bool(case.place.container))
        if opening.driven:  # srun hands the script's environment on: what is of one node has to stay out
            del env["PHALANX_NODE"]
            return env
        env |= {"PHALANX_WORLD_SIZE": str(opening.world_size), "WORLD_SIZE": str(opening.world_size)}
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

    async def stop_step(self, message: StepStop) -> None:
        """End the processes of a step; what cannot be ended has a verdict that says so."""
        wanted = message.case, message.step
        await _stop(
            [one for one in self.attempts if (one.message.case, one.message.step) == wanted], message.grace_s
        )

    def _in(self, place: str) -> list[Attempt]:
        return [attempt for attempt in self.attempts if _place_of(attempt.message) == place]

    async def drain(self, grace_s: float, reason: str) -> None:
        """The scheduler takes the node: end all steps now, so that their logs and results still get out."""
        self.draining = reason
        await _stop(self.attempts, grace_s)


def _place_of(message: StepStart) -> str:
    """Where a step runs: in its case, or beside all cases."""
    return HOST if message.where == "host" else message.case


async def _stop(attempts: Iterable[Attempt], grace_s: float) -> None:
    await asyncio.gather(*(attempt.stop(grace_s) for attempt in list(attempts)))
