"""Leaving nothing behind, whatever state a lab is in.

It works from the record written before anything was started, from cgroup membership where records are lost,
and from the claimed index where even the folder is gone. Each step may be done twice.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab import cgroup, fabric, node, slurm, state
from tests.lab.errors import LabError
from tests.lab.topology import Request, Topology, without_block

HOSTS = Path("/etc/hosts")


def clear(name: str, home: Path) -> bool:
    """Remove all that a lab of that name may have left in and around its folder. False if there was nothing.

    Call with the lock held. Raises LabError for what would not go.
    """
    record = state.read(home)
    index = next((i for i, claimed in state.claims().items() if claimed == (name, home)), None)
    if record is None and index is None and not home.exists():
        return False
    lab = _remembered(name, home, record, index)
    _end_processes(lab)
    if lab.index >= 0:
        fabric.remove(lab)
    cgroup.remove(lab.cgroup)
    fabric.restore_neighbours(lab)
    text = HOSTS.read_text()
    if without_block(text, name) != text:
        # In place: a rename over /etc/hosts would take away what nodes of other labs have mounted on it.
        HOSTS.write_text(without_block(text, name))
    for each in lab.nodes:
        node.remove_disk(lab, each)
    shutil.rmtree(home, ignore_errors=True)
    if home.exists():
        raise LabError(f"cannot remove {home}: a part of it would not go; see what is mounted there")
    state.release(lab.index)
    if not state.claims():
        slurm.stop_munge()
        cgroup.unmount()
    return True


def keep_logs(lab: Topology) -> Path:
    """Copy the logs of a failed `up` to where they outlive the cleaning; the next up or down removes them."""
    kept = _failed(lab.state)
    shutil.rmtree(kept, ignore_errors=True)
    if lab.log.exists():
        shutil.copytree(lab.log, kept)
    return kept


def forget_logs(home: Path) -> None:
    shutil.rmtree(_failed(home), ignore_errors=True)


def _failed(home: Path) -> Path:
    return home.with_name(home.name + ".failed-log")


def _end_processes(lab: Topology) -> None:
    # All inits first, then one wait for each: the kernel takes the nodes down side by side.
    for each in lab.nodes:
        process = node.init(lab, each)
        if process is not None and not cgroup.frozen(node.group(lab, each)):
            process.kill()
    cgroup.kill(lab.cgroup)
    for each in lab.nodes:
        node.end(lab, each)
    slurm.stop_controller(lab)


def _remembered(name: str, home: Path, record: state.Record | None, index: int | None) -> Topology:
    """The topology to clean up by; without a record, as many nodes as there are folders, and index -1 if none
    was claimed."""
    if record is not None:
        return record.topology(home)
    folders = home / "nodes"
    count = len(list(folders.iterdir())) if folders.is_dir() else 0
    return Topology(name, index if index is not None else -1, home, Request(nodes=count))
