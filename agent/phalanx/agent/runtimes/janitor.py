"""Removing what earlier runs of this user left on the node and nobody holds any more.

Only what carries our mark (a label, a variable, a directory's name) and this user's uid is ever looked at,
and of that only what its lease shows to be over. Deciding is pure; what is removed is said in words.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from phalanx.agent import lease
from phalanx.agent.runtimes import processes

#: Variable of every process of a case without an engine: where its lease is.
LEASE_MARK = "PHALANX_LEASE"

#: A spool is kept this long after its lease, in seconds: a later agent or a person may still want the output.
KEEP_SPOOL_S = 600.0

#: A run's directory in which no lease was ever made is removed after this time without a change, in seconds.
KEEP_EMPTY_S = 86400.0

#: Names of the agent's own file in a temporary folder, as srun --bcast is told to make it.
AGENT_FILES = "phalanx-agent-*"

LABEL_UID, LABEL_EXPIRES, LABEL_LEASE = "phalanx.uid", "phalanx.expires", "phalanx.lease"


def container_verdict(
    labels: Mapping[str, str], running: bool, uid: int, now_s: float, held: bool | None
) -> str:
    """Why a container is to be removed, "" when it is not.

    ``held``: whether the lease file that it names still holds; None when that cannot be read (its directory
    is gone), and then the label made at its creation decides.
    """
    if labels.get(LABEL_UID) != str(uid) or "phalanx.run" not in labels:
        return ""
    if held:
        return ""
    if held is None and now_s < _number(labels.get(LABEL_EXPIRES)):
        return ""
    return "its lease is over" if running else "it has ended and its lease is over"


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def lease_holds(path: str) -> bool | None:
    """Whether the lease in that file still holds; None when there is none to be read."""
    term = lease.read(Path(path)) if path else None
    return None if term is None else not term.over(lease.boottime(), lease.boot_id())


def end_leftover_processes() -> list[str]:
    """KILL processes whose mark names a lease that is over or gone: their supervisor was killed."""
    words = []
    everyone = processes.table()
    for process in processes.alive(everyone, everyone):
        path = _lease_of(process.pid) if _of_here(process.pid) else ""
        if path and not lease_holds(path) and processes.send([process], 9):
            words.append(f"process {process.pid} ({process.name}) of an earlier run: its lease is over")
    return words


def _of_here(pid: int) -> bool:
    """True for processes of this user whose paths mean what they mean here (the same mount namespace)."""
    try:
        same_files = Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
        return same_files and Path(f"/proc/{pid}").stat().st_uid == os.getuid()
    except OSError:
        return False


def _lease_of(pid: int) -> str:
    start = f"{LEASE_MARK}=".encode()
    entries = processes.environ(pid).split(b"\0")
    return next((os.fsdecode(entry[len(start) :]) for entry in entries if entry.startswith(start)), "")


def remove_stale_files(root: Path, uid: int) -> list[str]:
    """Remove what this user's runs have left under ``root`` and nobody needs any more; what that was."""
    return [*_remove_stale_spools(root, uid), *_remove_stale_agents(root, uid)]


def _remove_stale_agents(root: Path, uid: int) -> list[str]:
    """Copies of the agent that srun made, and whose agent was killed before it could remove its own."""
    words = []
    for file in sorted(root.glob(AGENT_FILES)):
        with contextlib.suppress(OSError):  # someone else was faster
            about = file.lstat()
            old = time.time() - about.st_mtime > KEEP_SPOOL_S
            if stat.S_ISREG(about.st_mode) and about.st_uid == uid and old and not _is_run(file):
                file.unlink()
                words.append(f"file {file}: no agent runs from it")
    return words


def _is_run(file: Path) -> bool:
    word = os.fsencode(file)
    return any(word in processes.arguments(pid) for pid in processes.table())


def _remove_stale_spools(root: Path, uid: int) -> list[str]:
    words = []
    for directory in sorted(root.glob(f"phalanx-{uid}-*")):
        reason = stale(directory, uid, time.time())
        if reason:
            shutil.rmtree(directory, ignore_errors=True)
            left = " (some of it could not be removed)" if directory.exists() else ""
            words.append(f"directory {directory}: {reason}{left}")
    return words


def stale(directory: Path, uid: int, now_s: float) -> str:
    """Why a run's directory can go, "" while it cannot. ``now_s``: unix time."""
    try:
        about = directory.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != uid:
            return ""
        leases = [*directory.glob("control-*/expires"), *directory.glob("cases/*/control-*/expires")]
        terms = [term for term in map(lease.read, leases) if term is not None]
    except OSError:
        return ""
    if not terms:
        return "nothing was done in it for a day" if now_s - about.st_mtime > KEEP_EMPTY_S else ""
    boot, up = lease.boot_id(), lease.boottime()
    if all(term.boot and term.boot != boot for term in terms):
        return "it is of an earlier boot"
    # A lease that was ended says 0, which is over in the first minutes of a boot, too.
    if all(term.over(max(0.0, up - KEEP_SPOOL_S), boot) for term in terms) and _quiet(leases, now_s):
        return "its leases are over"
    return ""


def _quiet(leases: list[Path], now_s: float) -> bool:
    """A lease that was ended (set to 0) long before its term was touched just then."""
    try:
        return all(now_s - path.stat().st_mtime > KEEP_SPOOL_S for path in leases)
    except OSError:
        return False
