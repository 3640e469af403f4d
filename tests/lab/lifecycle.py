"""Bringing a lab up, finding it up, taking it down.

What `up` starts is recorded before it is started. A half-dead lab of the same name (a crash, a killed test
run) is taken down first; one that is whole and the same is left alone.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.lab import cgroup, docker, fabric, node, parts, slurm, state, teardown
from tests.lab.errors import LabError
from tests.lab.process import tail
from tests.lab.topology import (
    Request,
    Topology,
    gres_conf,
    hosts_block,
    hosts_text,
    slurm_conf,
    without_block,
)

# Slowest seen: 12.5 s for 128 nodes, 7.3 s for 32 with engines, on 2 cores; three times that is a hang.
READY_SECONDS = 40.0
READY_SECONDS_PER_NODE = 1.0


def up(name: str, request: Request, *, fresh: bool = False) -> Topology:
    """Bring the lab up, or find it up with the same arguments. `fresh` takes one that is up down first."""
    request.check()
    home = state.folder(name)
    with state.locked():
        record = _own_record(name, home)
        if record is not None and not fresh and whole(home):
            differences = request.differences(record.request)
            if not differences:
                return record.topology(home)
            raise LabError(
                f"cannot bring up lab {name!r} with {'; '.join(differences)}: it is up as it is; "
                f"run `python -m tests.lab down --name {name}` first"
            )
        _clear_stale(name, home)
        missing = parts.missing_parts(docker=request.docker, slurm=request.slurm)
        if missing:
            raise LabError(f"cannot bring up a lab here: {', '.join(missing)}; see tests/lab/README.md")
        return _build(name, home, request)


def down(name: str) -> bool:
    """Remove every trace of the lab. False when there was none. Raises LabError for what would not go."""
    home = state.folder(name)
    with state.locked():
        _own_record(name, home)
        teardown.forget_logs(home)
        return teardown.clear(name, home)


def whole(home: Path) -> bool:
    """True if all that `up` started runs, save nodes that were killed on purpose."""
    record = state.read(home)
    if record is None or not record.complete:
        return False
    lab = record.topology(home)
    daemons = [fabric.holder(lab), *([slurm.controller(lab)] if record.request.slurm else [])]
    if not all(process is not None and process.alive() for process in daemons):
        return False
    if not Path("/sys/class/net", lab.login_interface).exists():
        return False
    return all(node.running(lab, name) or node.switched_off(lab, name) for name in lab.nodes)


def wait_ready(lab: Topology, nodes: list[str]) -> None:
    """Wait until Slurm and the engines of these nodes take work. Raises LabError naming those that do not."""
    limit = READY_SECONDS + READY_SECONDS_PER_NODE * len(nodes)
    deadline = time.monotonic() + limit
    slurms, engines = list(nodes) if lab.request.slurm else [], list(nodes) if lab.request.docker else []
    while slurms or engines:
        for name in nodes:
            if not node.running(lab, name):
                raise LabError(
                    f"cannot boot {name}: its init ended: {tail(node.log(lab, name))}; see "
                    f"{node.log(lab, name)}"
                )
        engines = [name for name in engines if not docker.answers(lab, name)]
        if slurms:
            slurms = slurm.waiting_for(lab, slurms)
        if time.monotonic() > deadline:
            late = [f"{name} ({lab.log}/{name}.slurmd.log)" for name in slurms]
            late += [f"{name} ({lab.log}/{name}.docker.log)" for name in engines]
            raise LabError(
                f"cannot finish: not ready after {limit:.0f} s: {', '.join(late)}; read those logs"
            )
        time.sleep(0.05)


def interrupt_as_error() -> None:
    """Let SIGTERM unwind like Ctrl-C, so that an `up` that is ended cleans up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _own_record(name: str, home: Path) -> state.Record | None:
    """The record in the state folder, which must not be that of another lab."""
    record = state.read(home)
    if record is not None and record.name != name:
        raise LabError(
            f"cannot use {home} for lab {name!r}: it holds lab {record.name!r}; set another PHALANX_LAB_DIR"
        )
    return record


def _clear_stale(name: str, home: Path) -> None:
    """Take down what is left of an earlier lab of that name, wherever its folder was."""
    for claimed, elsewhere in state.claims().values():
        if claimed == name and elsewhere != home:
            if elsewhere.exists():
                raise LabError(
                    f"cannot bring up a second lab {name!r}: one is in {elsewhere}; choose another --name"
                )
            teardown.clear(name, elsewhere)
    teardown.forget_logs(home)
    teardown.clear(name, home)


def _build(name: str, home: Path, request: Request) -> Topology:
    lab = Topology(name, state.claim(name, home), home, request)
    try:
        state.Record(name, lab.index, request, complete=False).write(home)
        _write_files(lab)
        fabric.raise_neighbours(lab)
        cgroup.mount()
        if request.slurm:
            slurm.start_munge()
        fabric.make(lab)
        for each in lab.nodes:
            node.start(lab, each)
        if request.slurm:
            slurm.start_controller(lab)
        for each in lab.nodes:
            node.plug(lab, each)
        # At the top: the file's last line need not end in a newline, and must not be changed.
        teardown.HOSTS.write_text(hosts_block(lab) + without_block(teardown.HOSTS.read_text(), name))
        wait_ready(lab, lab.nodes)
        state.Record(name, lab.index, request, complete=True).write(home)
    except BaseException as error:
        kept = teardown.keep_logs(lab)
        teardown.clear(name, home)
        if isinstance(error, LabError):
            raise LabError(str(error).replace(str(lab.log), str(kept))) from error
        if isinstance(error, OSError | subprocess.SubprocessError):
            raise LabError(f"cannot bring up lab {name!r}: {error}; see the logs in {kept}") from error
        raise
    return lab


def _write_files(lab: Topology) -> None:
    machine = socket.gethostname()
    for folder in (lab.etc, lab.log, lab.shared, lab.state / "nodes"):
        folder.mkdir(parents=True, exist_ok=True)
    lab.shared.chmod(0o1777)
    files = {
        "hosts": hosts_text(lab, machine.partition(".")[0]),
        "resolv.conf": "",
        "docker.json": "{}\n",
        "containerd-store.json": '{"features": {"containerd-snapshotter": true}}\n',
        "slurm.conf": slurm_conf(lab, machine.partition(".")[0]),
        "gres.conf": gres_conf(lab),
        # A copy: bash reads a script as it goes, and the checkout may be edited while the lab is up.
        node.INIT.name: node.INIT.read_text(),
    }
    for file, text in files.items():
        (lab.etc / file).write_text(text)
