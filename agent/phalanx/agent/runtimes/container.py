"""A case in a container: starting steps in it, stopping them, and knowing how they and it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.agent import steps
from phalanx.agent.lease import Lease
from phalanx.agent.runtimes import access, cgroup, diagnostics, processes, spool, supervisor
from phalanx.agent.runtimes.base import CasePlaces, Owner, Running, RuntimeUnavailable
from phalanx.agent.runtimes.container_config import (
    INSIDE,
    INSIDE_RESULTS,
    INSIDE_SOCKET,
    INSIDE_SPOOL,
)
from phalanx.agent.runtimes.engine import CREATE_S, PING_S, EngineClient, EngineError
from phalanx.agent.runtimes.log_ends import RUN_LOGS, LogFolder
from phalanx.protocol.allowances import plain
from phalanx.protocol.messages import WORKSPACE, CaseOpen, Cause, StepStart

#: From the answer of the engine that a step runs to its own first word.
_FIRST_WORD_S = 15.0

#: For a container's root to give a large working directory back to the agent's user.
_HAND_OVER_S = 60.0


@dataclass(slots=True)
class Life:
    """The container itself: its first process on this node, its lease, and the way to talk to it."""

    engine: EngineClient
    container: Any
    name: str
    pid: int
    user: access.User
    lease: Lease
    memory: cgroup.MemoryGroup | None = None
    _first: processes.Process | None = None
    _asked: int = 0
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._first = processes.read(self.pid)
        self.memory = cgroup.memory_group(self.pid)

    def alive(self) -> bool:
        """True while PID 1 of the container is there; no engine is asked."""
        if self._first is not None:
            return processes.is_same(self._first)
        return processes.exists(self.pid)

    def oom_kills(self) -> int:
        """How many processes of the container the kernel has killed for memory so far."""
        return self.memory.kills() if self.memory else 0

    async def request(self, words: str) -> None:
        """Give the supervisor a line; it looks each second, and at once on a signal. Raises OSError."""
        async with self._asking:
            self._asked += 1
            line = f"{self._asked} {words}\n".encode()
            await asyncio.to_thread(_append, self.lease.path.parent / supervisor.REQUESTS, line)
        with contextlib.suppress(EngineError, OSError):  # it looks by itself within a second
            try:
                os.kill(self.pid, signal.SIGUSR1)
            except PermissionError:
                await self.engine.call("signal", self.container.kill(signal="SIGUSR1"), PING_S)

    async def death(self) -> steps.Status:
        """Why the container is no more, as far as the engine can tell."""
        if self.lease.over():
            return steps.Status(137, Cause.STOPPED, spool.LEASE_WORDS)
        try:
            shown = await self.engine.call(f"look at container {self.name}", self.container.show(), PING_S)
        except EngineError as error:
            return steps.Status(137, Cause.ENGINE, f"container {self.name} is gone: {error}")
        state = shown["State"]
        code = int(state.get("ExitCode") or 0)
        if state.get("OOMKilled"):
            return steps.Status(137, Cause.OOM, self.oom_words())
        if code == supervisor.UNUSABLE:
            return steps.Status(126, Cause.ENGINE, "the image has no sleep(1), which phalanx needs")
        return steps.Status(
            137, Cause.ENGINE, f"container {self.name} was ended from outside (status {code})"
        )

    def oom_words(self) -> str:
        """Words with the limit that was hit."""
        limit = self.memory.limit_bytes() if self.memory else 0
        if limit:
            return f"killed by the kernel: the container reached its memory limit of {cgroup.size(limit)}"
        return "killed by the kernel: the node's memory ran out"


def _append(path: Path, line: bytes) -> None:
    with path.open("ab", buffering=0) as handle:
        handle.write(line)


class ContainerPlace:
    """A case in its container. ``defaults``: environment below all that anyone says."""

    def __init__(
        self, life: Life, case: CaseOpen, places: CasePlaces, owner: Owner, defaults: dict[str, str]
    ) -> None:
        self.container = life.name
        self.lease = life.lease
        self.life = life
        self._case = case
        self._places = places
        self._owner = owner
        self._defaults = defaults

    async def start(self, step: StepStart, rank: int, env: dict[str, str], directory: Path) -> Running:
        """Start the command by a detached exec of the wrapper."""
        since = time.monotonic()
        held = _HeldExec(self, steps.mark(), directory, self.life.oom_kills())
        if refused := _refused(step):
            return steps.NeverStarted(directory, 126, Cause.NOT_STARTED, refused)
        try:
            await asyncio.to_thread(self._prepare, step, env, directory, held.token)
        except OSError as error:
            return steps.NeverStarted(directory, 126, Cause.NOT_STARTED, f"cannot make its spool: {error}")
        try:
            held.wrapper = await self._exec(directory)
        except EngineError as error:
            if not await held.runs_after_all():
                return steps.NeverStarted(directory, 126, Cause.ENGINE, str(error))
        await steps.started(directory, held.alive, _FIRST_WORD_S)
        return steps.Followed(directory, held, f"step {step.step} of rank {rank}", since)

    def _prepare(self, step: StepStart, env: dict[str, str], directory: Path, token: str) -> None:
        spool.prepare(directory)
        environment = {**self._defaults, **self._case.env, **step.env, **env, **step.secrets}
        environment |= {
            steps.STEP_MARK: token,
            "PHALANX_RUN_ID": self._owner.run_id,
            "PHALANX_INCARNATION": self._owner.incarnation,
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(directory / spool.ENV, flags, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(steps.shell_file(step.argv, environment).encode("utf-8", "surrogateescape"))
        step_directory = directory.parent
        shared = (
            [step_directory, *access.tree(directory)] if step_directory != self._places.spool else [directory]
        )
        access.let_in(self.life.user, shared)

    async def _exec(self, directory: Path) -> processes.Process | None:
        """Start the wrapper; its process on this node, None when it has ended already."""
        engine, owner = self.life.engine, self.life.user.owner_on_return()
        command = ["/bin/sh", f"{INSIDE}/step", self.inside(directory), owner]
        made = await engine.call(
            "create a step", self.life.container.exec(command, stdout=False, stderr=False), CREATE_S
        )
        await engine.call("start a step", made.start(detach=True), CREATE_S)
        shown = await engine.call("look at a step", made.inspect())
        return processes.read(int(shown.get("Pid") or 0))

    def inside(self, path: Path) -> str:
        """The path under which the container has a file of the case."""
        for root, mounted in (
            (self._places.spool, INSIDE_SPOOL),
            (self._places.results, INSIDE_RESULTS),
            (self._places.work, WORKSPACE),
        ):
            if path.is_relative_to(root):
                return str(Path(mounted) / path.relative_to(root))
        if path == self._places.socket:
            return INSIDE_SOCKET
        for mount in self._case.spec.mounts:
            if path.is_relative_to(mount.source):
                return str(Path(mount.target) / path.relative_to(mount.source))
        return str(path)

    @property
    def spool(self) -> Path:
        """Where the container writes for us."""
        return self._places.spool

    async def pause(self) -> None:
        """SIGSTOP to all but the supervisor: the engine's own pause would take the lease's keeper as well."""
        if self.life.alive():
            await self.life.request("pause")

    async def resume(self) -> None:
        """SIGCONT to all processes."""
        if self.life.alive():
            await self.life.request("resume")

    async def diagnose(self) -> str:
        """What can be seen of the container's processes from the node."""
        pids = await asyncio.to_thread(self.pids)
        logs = (LogFolder("the model's folder", self._places.work), *self._run_logs())
        return await asyncio.to_thread(diagnostics.report, pids, self._places.spool, logs, self.life.memory)

    def _run_logs(self) -> list[LogFolder]:
        """/run_logs of the container: what is mounted there, which outlives it, else the folder itself."""
        for mount in self._case.spec.mounts:
            if plain(mount.target) == RUN_LOGS:
                return [LogFolder(RUN_LOGS, Path(mount.source))]
        # the pid of a container that is gone may be somebody else's by now
        alive = self.life.alive()
        return (
            [LogFolder(RUN_LOGS, Path(f"/proc/{self.life.pid}/root"), RUN_LOGS.lstrip("/"))] if alive else []
        )

    def pids(self) -> list[int]:
        """The container's processes on this node, PID 1 first."""
        container_id = str(self.life.container.id)
        found = [pid for pid in processes.table() if container_id in processes.groups(pid)]
        return sorted(found, key=lambda pid: (pid != self.life.pid, pid))

    async def close(self, grace_s: float) -> None:
        """End everything in the container and remove it."""
        life = self.life
        problem: Exception | None = None
        if life.alive():
            try:
                owner = life.user.owner_on_return()
                handing_over = 0.0 if owner == "-" else _HAND_OVER_S
                await life.request(f"end {max(0, round(grace_s))} {owner}")
                await steps.until(lambda: not life.alive(), grace_s + handing_over + 3.0)
            except OSError as error:
                problem = error
        with contextlib.suppress(OSError):
            life.lease.end()
        try:
            delete = life.container.delete(force=True, v=True)
            await life.engine.call(f"remove container {life.name}", delete, CREATE_S)
        except EngineError as error:
            if error.status not in (404, 409):
                left = (
                    "its processes are ended"
                    if not life.alive()
                    else "its lease is withdrawn, it ends itself"
                )
                raise RuntimeUnavailable(f"cannot remove container {life.name} ({left}): {error}") from error
        if problem is not None and life.alive():
            raise RuntimeUnavailable(f"cannot end container {life.name}: {problem}")


def _refused(step: StepStart) -> str:
    if not step.argv or "\0" in "".join(step.argv):
        return "the command is empty or holds a NUL"
    odd = sorted(name for name in step.secrets if not steps.settable(name))
    if odd:
        return f"secret {odd[0]!r} has a name that a shell cannot set without showing it; rename it"
    return ""


@dataclass(slots=True)
class _HeldExec:
    """What is known of one step process in the container."""

    place: ContainerPlace
    token: str
    directory: Path
    kills_before: int
    wrapper: processes.Process | None = None

    def alive(self) -> bool:
        if self.wrapper is not None and not processes.is_same(self.wrapper):
            return False
        return self.place.life.alive()

    async def end(self, grace_s: float) -> bool:
        life = self.place.life
        gone = self.directory / spool.GONE
        with contextlib.suppress(FileNotFoundError):
            gone.unlink()
        first = await asyncio.to_thread(self._first_pid)
        inside = self.place.inside(self.directory)
        await life.request(f"stop {self.token} {first} {inside} {max(0, round(grace_s))}")
        await steps.until(lambda: gone.exists() or not life.alive(), grace_s + steps.KILL_WAIT_S + 2.0)
        return gone.exists() or not life.alive()

    def _first_pid(self) -> str:
        """The wrapper's pid in the container, "-" while it is not known (0 would be the parent of many)."""
        try:
            return str(int((self.directory / spool.PID).read_text()))
        except (OSError, ValueError):
            return "-"

    async def runs_after_all(self) -> bool:
        """The engine failed to answer: True if the command runs all the same, else it never will."""
        try:
            (self.directory / spool.ENV).unlink()
        except FileNotFoundError:
            return True  # the wrapper has taken it
        return False

    def _unasked(self, status: steps.Status | None) -> steps.Status | None:
        """The verdict when PID 1 ended everything before the command was over: 0 would be no success."""
        why = self.place.spool / supervisor.WHY
        try:
            word, then = why.read_text().strip(), why.stat().st_mtime_ns
            if status is not None and (self.directory / spool.STATUS).stat().st_mtime_ns < then:
                return None
        except OSError:
            return None
        number = status.number if status else 137
        if word == supervisor.WHY_LEASE:
            return steps.Status(number or 143, Cause.STOPPED, spool.LEASE_WORDS)
        words = f"container {self.place.container} was told to end from outside, by a person or its engine"
        return steps.Status(number or 143, Cause.ENGINE, words)

    async def explain(self, status: steps.Status | None) -> steps.Status:
        life = self.place.life
        if unasked := self._unasked(status):
            return unasked
        if status is None and not life.alive():
            return await life.death()
        if status is None:
            return steps.Status(137, Cause.SIGNALED, "its wrapper was killed before it could tell the status")
        if life.lease.over() and status.number > 128:
            return steps.Status(status.number, Cause.STOPPED, spool.LEASE_WORDS)
        killed = life.oom_kills() - self.kills_before
        if killed > 0 and status.number == 137:
            return steps.Status(137, Cause.OOM, life.oom_words())
        if killed > 0 and status.number:
            words = f"the kernel killed {killed} of the container's processes for memory meanwhile"
            return steps.Status(status.number, status.cause, words)
        return status
