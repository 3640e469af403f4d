"""Finding and ending processes by /proc: descendants, sessions, and a mark in the environment.

A process may leave its group, its session and its parent, or clear its environment, but rarely all of them;
where a subreaper stands above them it cannot leave the tree at all. Only processes that this user may signal
are ever in a result. Standard library only: the supervisor of processes imports this file alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A line of the process table. ``started``: clock ticks since boot; with the pid it names one process.

    ``program``: where its stack begins, another place after each exec; 0 where the kernel does not tell us.
    """

    pid: int
    parent: int
    session: int
    state: str
    started: int
    name: str
    threads: int
    cpu_ticks: int
    rss_pages: int
    program: int = 0


def read(pid: int) -> Process | None:
    """The process with that pid; None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    return parse(text)


def parse(text: str) -> Process | None:
    """A Process of a line of /proc/PID/stat (proc(5)); the name in it may hold spaces and parentheses."""
    head, _, tail = text.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    if len(fields) < 22 or not pid.isdecimal():
        return None
    return Process(
        pid=int(pid),
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0],
        started=int(fields[19]),
        name=name,
        threads=int(fields[17]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        rss_pages=int(fields[21]),
        program=int(fields[25]) if len(fields) > 25 else 0,
    )


def table() -> dict[int, Process]:
    """Every process of this pid namespace, by pid."""
    found: dict[int, Process] = {}
    for entry in os.listdir(_PROC):  # noqa: PTH208 - names only, thousands of them
        if entry.isdecimal() and (process := read(int(entry))) is not None:
            found[process.pid] = process
    return found


def is_same(process: Process) -> bool:
    """True while that very process (not another with its pid) runs; a zombie does not."""
    now = read(process.pid)
    return now is not None and now.started == process.started and now.state not in "ZX"


def exists(pid: int) -> bool:
    """True while some process has that pid, even where other users' processes are hidden (hidepid)."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def groups(pid: int) -> str:
    """The control groups of a process as /proc names them; "" when it cannot be told."""
    try:
        return (_PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return ""


def descendants(everyone: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The roots that exist and all that descend from them."""
    children: dict[int, list[int]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in everyone]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def environ(pid: int) -> bytes:
    """The environment that the process was started with, NUL after each entry; empty if it is not ours."""
    try:
        return (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return b""


def arguments(pid: int) -> list[bytes]:
    """The words of its command line; none when it is gone, a zombie, or of the kernel."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def marked(pids: Iterable[int], name: str, value: str) -> set[int]:
    """Those whose environment has ``name=value``."""
    wanted = f"\0{name}={value}\0".encode()
    return {pid for pid in pids if wanted in b"\0" + environ(pid)}


def alive(everyone: dict[int, Process], pids: Iterable[int]) -> list[Process]:
    """Those of the pids that run, oldest first; zombies are left to their parents."""
    chosen = (everyone[pid] for pid in pids if pid in everyone)
    return sorted((one for one in chosen if one.state not in "ZX"), key=lambda one: one.started)


class Told:
    """Who of a step has had its TERM, and who is still to get one.

    Each program that a process runs gets one: a shell loses that of a child which it has only just forked.
    Who appears later gets one too, unless its parent was told and lives on: that may be saving something.
    """

    def __init__(self) -> None:
        self._programs: dict[tuple[int, int], int] = {}

    def missing(self, alive: Iterable[Process]) -> list[Process]:
        """Those of the living who are to get a TERM now; they are taken to have had it then."""
        everyone = list(alive)
        pids = {one.pid for one in everyone} if self._programs else set()
        chosen = []
        for one in everyone:
            known = self._programs.get((one.pid, one.started))
            if known != one.program and (known is not None or one.parent not in pids):
                chosen.append(one)
        self._programs |= {(one.pid, one.started): one.program for one in chosen}
        return chosen


def send(processes: Iterable[Process], number: int) -> int:
    """Send a signal to each that is still the same process; how many there were. 0 only counts them."""
    reached = 0
    for process in processes:
        if process.pid in (1, os.getpid()) or not is_same(process):
            continue
        reached += 1
        if number:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)
    return reached
