"""The process runtime: the same steps in a private directory, without an engine.

A supervisor process per case stands between agent and steps (``process_supervisor``): it keeps the lease when
the agent is gone. What only a container could hold (image, mounts, a memory limit) is refused, not dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import phalanx.agent
from phalanx.agent import steps
from phalanx.agent.batch_script import batch_environment
from phalanx.agent.lease import Lease, boottime
from phalanx.agent.runtimes import cgroup, diagnostics, janitor, process_limits, processes, spool
from phalanx.agent.runtimes.base import CasePlaces, Owner, Running, RuntimeUnavailable
from phalanx.agent.runtimes.log_ends import RUN_LOGS, LogFolder
from phalanx.agent.runtimes.process_supervisor import LEASE_OVER
from phalanx.protocol.messages import CaseOpen, Cause, Engine, StepStart

#: The environment that every process of a node has, whatever started the agent.
BASE_ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The mark of a case's processes: where their lease is. The janitor ends those whose lease is over.
LEASE_MARK = janitor.LEASE_MARK

#: How often a case is looked through for processes that still run while it is paused.
_PAUSE_ROUNDS = 10

#: A supervisor is a Python that imports five small files.
_START_S = 20.0

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from phalanx.agent.runtimes.process_supervisor import main; sys.exit(main(sys.argv[2]))"
)


class ProcessRuntime:
    """Steps as plain processes of this user. ``spool_root``: where directories of runs are, for ``sweep``."""

    def __init__(self, spool_root: Path) -> None:
        self._spool_root = spool_root

    async def open(self, library: Path | None) -> Engine:
        """Nothing has to be there."""
        return Engine(kind="", version="", api="", storage="")

    async def image_id(self, reference: str) -> str:
        """No image is ever here."""
        return ""

    async def open_case(self, case: CaseOpen, places: CasePlaces, owner: Owner) -> ProcessPlace:
        """Start the supervisor of the case. Raises RuntimeUnavailable."""
        refused = process_limits.refusals(case.spec)
        if refused:
            raise RuntimeUnavailable(f"cannot open case {case.case} as processes: {'; '.join(refused)}")
        try:
            control = _make(places)
            lease = Lease(control / "expires")
            lease.renew(boottime() + owner.lease_s)
            supervisor = await asyncio.to_thread(_supervise, control, lease.path)
        except OSError as error:
            raise RuntimeUnavailable(
                f"cannot open case {case.case}: {error}; look at {places.base}"
            ) from error
        return ProcessPlace(case, places, lease, supervisor, owner)

    async def sweep(self) -> list[str]:
        """End processes and remove directories of this user's runs whose leases are over."""
        ended = await asyncio.to_thread(janitor.end_leftover_processes)
        return ended + await asyncio.to_thread(janitor.remove_stale_files, self._spool_root, os.getuid())

    async def close(self) -> None:
        """There is nothing to let go of."""


def _make(places: CasePlaces) -> Path:
    control = places.spool.parent / "control-process"
    for directory in (places.work, places.results, places.spool, control):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return control


def _supervise(control: Path, lease_file: Path) -> subprocess.Popen[bytes]:
    """Start a supervisor and wait for its first word. Raises OSError."""
    root = Path(phalanx.agent.__file__).parents[2]
    complaints = control / "supervisor.err"
    with complaints.open("wb") as err:
        supervisor = subprocess.Popen(
            [sys.executable or "python3", "-I", "-S", "-c", _BOOT, str(root), str(lease_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            cwd="/",
            env={"PATH": os.environ.get("PATH", _DEFAULT_PATH)},
            start_new_session=True,
        )
    assert supervisor.stdout is not None  # noqa: S101 - asked for with PIPE
    word = supervisor.stdout.readline()
    supervisor.stdout.close()
    if word != b"ready\n":
        supervisor.kill()
        supervisor.wait()
        said = complaints.read_text(errors="replace").strip().rpartition("\n")[2]
        raise OSError(f"the supervisor of the case did not start: {said or 'no word from it'}")
    return supervisor


class ProcessPlace:
    """A case as processes: requests go to its supervisor, signals straight to the processes."""

    container = ""

    def __init__(
        self,
        case: CaseOpen,
        places: CasePlaces,
        lease: Lease,
        supervisor: subprocess.Popen[bytes],
        owner: Owner,
    ) -> None:
        self.lease = lease
        self.supervisor = supervisor
        self.lease_s = owner.lease_s
        self._case = case
        self._places = places
        self._owner = owner
        self._asking = asyncio.Lock()

    async def start(self, step: StepStart, rank: int, env: dict[str, str], directory: Path) -> Running:
        """Ask the supervisor to start the command."""
        since, token = time.monotonic(), steps.mark()
        before = _oom_kills()
        request = self._request(step, env, directory, token)
        held = _HeldProcess(self, token, directory, before)
        try:
            spool.prepare(directory)
            await self._ask(request)
        except (OSError, ValueError) as error:
            return steps.NeverStarted(
                directory, 126, Cause.NOT_STARTED, f"cannot start {step.argv[:1]}: {error}"
            )
        if not await steps.started(directory, held.alive, _START_S) and held.alive():
            return steps.NeverStarted(
                directory, 126, Cause.NOT_STARTED, f"the supervisor did not start it within {_START_S:g} s"
            )
        return steps.Followed(directory, held, f"step {step.step} of rank {rank}", since)

    def _request(self, step: StepStart, env: dict[str, str], directory: Path, token: str) -> dict[str, Any]:
        spec = self._case.spec
        environment = {name: os.environ[name] for name in BASE_ENVIRONMENT if name in os.environ}
        environment.setdefault("PATH", _DEFAULT_PATH)
        if self._case.driven:
            environment |= batch_environment(os.environ)
        environment |= {**self._case.env, **step.env, **env, **step.secrets}
        environment |= {
            steps.STEP_MARK: token,
            LEASE_MARK: str(self.lease.path),
            "PHALANX_RUN_ID": self._owner.run_id,
            "PHALANX_INCARNATION": self._owner.incarnation,
        }
        return {
            "do": "start",
            "argv": list(step.argv),
            "env": environment,
            "cwd": str(self._places.work / spec.workdir),
            "directory": str(directory),
            "limits": [[limit.name, limit.soft, limit.hard] for limit in spec.limits.ulimits],
            "cpus": sorted(process_limits.cpus(spec.limits.cpuset)),
        }

    async def _ask(self, request: dict[str, Any]) -> None:
        line = json.dumps(request).encode() + b"\n"
        async with self._asking:
            await asyncio.to_thread(_write, self.supervisor, line)

    def inside(self, path: Path) -> str:
        """Workload and node see the same paths."""
        return str(path)

    async def pause(self) -> None:
        """SIGSTOP to all processes of the case, until none is found that runs: they fork meanwhile.

        Those below the supervisor, who are found in a few milliseconds, come first: they may write 1 GB/s.
        """
        await asyncio.to_thread(_stop_below, self)
        for _ in range(_PAUSE_ROUNDS):
            if not await asyncio.to_thread(_stop_running, self):
                return

    async def resume(self) -> None:
        """SIGCONT to all processes of the case."""
        await asyncio.to_thread(_signal, self, None, signal.SIGCONT)

    async def diagnose(self) -> str:
        """What can be seen of the case's processes."""
        pids = await asyncio.to_thread(self.pids)
        logs = (LogFolder("the model's folder", self._places.work), LogFolder(RUN_LOGS, Path(RUN_LOGS)))
        return await asyncio.to_thread(diagnostics.report, pids, self._places.spool, logs)

    def pids(self) -> list[int]:
        """The case's processes, its supervisor left out."""
        return [process.pid for process in _members(self, None)]

    async def close(self, grace_s: float) -> None:
        """End the supervisor with all that is below it, and then whoever else carries the case's mark."""
        if self.supervisor.poll() is None:
            with contextlib.suppress(OSError):  # it has just ended
                await self._ask({"do": "end", "grace_s": grace_s})
            await steps.until(lambda: self.supervisor.poll() is not None, grace_s + steps.KILL_WAIT_S)
        deadline = time.monotonic() + steps.KILL_WAIT_S
        while left := await asyncio.to_thread(_signal, self, None, 9):
            if time.monotonic() > deadline:
                raise RuntimeUnavailable(
                    f"cannot end case {self._case.case}: {left} of its processes are still there "
                    f"{steps.KILL_WAIT_S:g} s after SIGKILL; look for a stuck device or file server in dmesg"
                )
            await asyncio.sleep(steps.POLL_S)
        if self.supervisor.poll() is None:
            self.supervisor.kill()
        if self.supervisor.stdin is not None:
            with contextlib.suppress(OSError):
                self.supervisor.stdin.close()
        await asyncio.to_thread(self.supervisor.wait)


def _write(supervisor: subprocess.Popen[bytes], line: bytes) -> None:
    assert supervisor.stdin is not None  # noqa: S101 - asked for with PIPE
    supervisor.stdin.write(line)
    supervisor.stdin.flush()


def _members(place: ProcessPlace, held: _HeldProcess | None) -> list[processes.Process]:
    """Live processes of the case, or of one step of it.

    Of a step are those who carry its mark, its first process, all in a session that one of these leads, and
    the descendants of all of them. A pid or a session alone proves nothing: it must be below the supervisor.
    """
    everyone = processes.table()
    supervisor = place.supervisor.pid
    below: set[int] = set()
    if place.supervisor.poll() is None:
        below = processes.descendants(everyone, [supervisor]) - {supervisor}
    if held is None:
        chosen = below | processes.marked(everyone, LEASE_MARK, str(place.lease.path))
    else:
        first = held.first_pid()
        chosen = processes.marked(everyone, steps.STEP_MARK, held.token) | (below & {first})
        sessions = {pid for pid in chosen if everyone[pid].session == pid} | {first}
        chosen |= {pid for pid in below if everyone[pid].session in sessions}
        chosen = processes.descendants(everyone, chosen)
    return processes.alive(everyone, chosen - {supervisor, os.getpid()})


def _signal(place: ProcessPlace, held: _HeldProcess | None, number: int) -> int:
    return processes.send(_members(place, held), number)


def _stop_below(place: ProcessPlace) -> None:
    everyone = processes.table()
    below = processes.descendants(everyone, [place.supervisor.pid]) - {place.supervisor.pid}
    if place.supervisor.poll() is None:
        processes.send(processes.alive(everyone, below), signal.SIGSTOP)


def _stop_running(place: ProcessPlace) -> int:
    return processes.send([one for one in _members(place, None) if one.state not in "Tt"], signal.SIGSTOP)


def _oom_kills() -> int:
    group = cgroup.memory_group("self")
    return group.kills() if group else 0


@dataclass(slots=True)
class _HeldProcess:
    """What is known of one process: its mark, and how many had been killed for memory before it."""

    place: ProcessPlace
    token: str
    directory: Path
    kills_before: int

    def first_pid(self) -> int:
        """The pid of the command itself; 0 while it is not known."""
        try:
            return int((self.directory / spool.PID).read_text())
        except (OSError, ValueError):
            return 0

    def alive(self) -> bool:
        return self.place.supervisor.poll() is None

    async def end(self, grace_s: float) -> bool:
        told = processes.Told()
        if grace_s > 0 and await self._until_gone(lambda: self._term(told), grace_s):
            return True
        return await self._until_gone(lambda: _signal(self.place, self, 9), steps.KILL_WAIT_S)

    def _term(self, told: processes.Told) -> int:
        members = _members(self.place, self)
        processes.send(told.missing(members), signal.SIGTERM)
        processes.send(members, signal.SIGCONT)  # what is paused could not heed it
        return len(members)

    async def _until_gone(self, tell: Callable[[], int], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while left := await asyncio.to_thread(tell):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(steps.POLL_S)
        return not left

    async def explain(self, status: steps.Status | None) -> steps.Status:
        ended = self.place.supervisor.poll()
        if ended == LEASE_OVER or (self.place.lease.over() and (status is None or status.number > 128)):
            number = status.number if status else 137
            return steps.Status(number, Cause.STOPPED, spool.LEASE_WORDS)
        if status is None:
            return steps.Status(137, Cause.SIGNALED, f"the supervisor of the case ended with {ended}")
        if status.number == 137 and status.cause is Cause.SIGNALED and _oom_kills() > self.kills_before:
            return steps.Status(137, Cause.OOM, "killed by the kernel: the job's memory on this node ran out")
        return status
