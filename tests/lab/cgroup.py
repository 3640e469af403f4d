"""Cgroups (v1) of a lab: they freeze a node, count what it used, and find every process when all records are
lost.

A node's engine gets the node's group as parent, so containers are inside. A machine that has version 2 alone,
as Debian 12 has with systemd, is given hierarchies of version 1 beside it, of the controllers that version 2
leaves free. Where a controller is missing (memory and pids there) the figures are None; all else works.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.process import call, wait_until

CONTROLLERS = ("freezer", "cpuacct", "memory", "pids")
_MACHINES, _OWN = Path("/sys/fs/cgroup"), Path("/run/phalanx-lab-cgroup")
#: Folder and mount option: what version 2 has no controllers for, and a hierarchy by whose folder slurmd
#: knows version 1.
_FREE = {"freezer": "freezer", "cpuacct": "cpuacct", "devices": "devices", "systemd": "none,name=systemd"}


def root() -> Path:
    """The folder of the v1 hierarchies: the machine's, or those of `mount`."""
    return _MACHINES if (_MACHINES / "freezer" / "cgroup.procs").exists() else _OWN


def mount() -> None:
    """Make v1 hierarchies if the machine has none. They serve all labs."""
    if root() != _OWN or _OWN.is_mount():
        return
    _OWN.mkdir(mode=0o755, exist_ok=True)
    call(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(_OWN)], doing="make room for cgroups")
    for name, options in _FREE.items():
        folder = _OWN / name
        folder.mkdir()
        try:
            call(["mount", "-t", "cgroup", "-o", options, "cgroup", str(folder)], doing=f"mount v1 {name}")
        except LabError:  # the kernel was told to have none, or has it elsewhere
            folder.rmdir()


def unmount() -> None:
    """Take away what `mount` made."""
    if _OWN.is_mount():
        call(["umount", "-R", "-l", str(_OWN)], doing="take the cgroups of labs away")
        _OWN.rmdir()


def present() -> list[str]:
    """The v1 controllers that the lab uses and has."""
    return [name for name in CONTROLLERS if (root() / name / "cgroup.procs").exists()]


def make(group: str) -> list[Path]:
    """Create the group in each controller; the folders, to be joined by writing into their cgroup.procs."""
    folders = [root() / name / group for name in present()]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def processes(group: str) -> set[int]:
    """Pids in the group and in every group below it."""
    pids: set[int] = set()
    for controller in present():
        # os.walk, not glob: a container's group may go while it is looked through
        for folder, _, _ in os.walk(root() / controller / group):
            with contextlib.suppress(OSError):
                pids.update(int(pid) for pid in Path(folder, "cgroup.procs").read_text().split())
    return pids - {os.getpid()}


def kill(group: str) -> None:
    """SIGKILL everything in the group. Thaws first: SIGKILL does not reach a process in a frozen v1 group."""
    for state in (root() / "freezer" / group).glob("**/freezer.state"):
        with contextlib.suppress(OSError):
            state.write_text("THAWED")

    def emptied() -> bool:
        pids = processes(group)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    if not wait_until(emptied, 10.0):
        left = sorted(processes(group))
        raise LabError(
            f"cannot end all processes of {group}: {left} ignore SIGKILL; look at their state in /proc"
        )


def remove(group: str) -> None:
    """Remove the group from every v1 hierarchy, the ones that the engine filled too. No process may be left
    in it."""
    for hierarchy in root().iterdir() if root().is_dir() else ():
        top = hierarchy / group
        # Emptied groups stay busy for some milliseconds.
        if not wait_until(lambda top=top: _removed(top), 5.0):  # type: ignore[misc]
            raise LabError(
                f"cannot remove the cgroup {top}: still in use; see its cgroup.procs, then run down again"
            )


def _removed(top: Path) -> bool:
    if not top.is_dir():
        return True
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not top.exists()


def set_frozen(group: str, frozen: bool) -> None:
    """Stop or continue every process of the group at once. Returns when the kernel says it is done."""
    state = root() / "freezer" / group / "freezer.state"
    wanted = "FROZEN" if frozen else "THAWED"
    if not state.exists():
        raise LabError(
            f"cannot freeze or thaw {group}: this machine has no v1 freezer cgroup; use kill or cut instead"
        )
    state.write_text(wanted)
    if not wait_until(lambda: state.read_text().strip() == wanted, 10.0):
        raise LabError(
            f"cannot bring {group} to {wanted}: it is {state.read_text().strip()} after 10 s; try again"
        )


def frozen(group: str) -> bool:
    try:
        return (root() / "freezer" / group / "freezer.state").read_text().strip() != "THAWED"
    except OSError:
        return False


def cpu_seconds(group: str) -> float | None:
    """CPU time used by the group since it was made, in seconds."""
    used = _number(root() / "cpuacct" / group / "cpuacct.usage")
    return None if used is None else used / 1e9


def memory_bytes(group: str) -> int | None:
    """Resident anonymous memory of the group and those below in bytes, without page cache (memory.stat of
    v1)."""
    try:
        text = (root() / "memory" / group / "memory.stat").read_text()
    except OSError:
        return None
    figures = dict(line.split() for line in text.splitlines())
    return int(figures["total_rss"])


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
