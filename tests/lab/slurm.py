"""munge and slurmctld on the login side, and what Slurm says of nodes and jobs.

One munged serves all labs: it tells who calls by the socket's peer uid, which needs no network, and each node
gets its socket by a bind mount. The lab starts one only if none answers, and the last lab to go stops what
was started.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from tests.lab import cgroup, node
from tests.lab.errors import LabError
from tests.lab.process import Process, launch, tail, wait_until
from tests.lab.topology import LOGIN, SLURMD_PORT, Topology

MUNGE_KEY = Path("/etc/munge/munge.key")
MUNGE_RUN = Path("/run/munge")
MUNGE_LOG = Path("/var/log/munge/munged.log")
# Written next to the socket, to know at the end that this munged is ours.
OURS = MUNGE_RUN / "phalanx-lab"

READY = ("idle", "mixed", "allocated", "completing")


def start_munge() -> None:
    """Make sure that munge answers."""
    if _munge_answers():
        return
    for folder, mode in (
        (MUNGE_KEY.parent, 0o700),
        (MUNGE_RUN, 0o755),
        (Path("/var/lib/munge"), 0o711),
        (MUNGE_LOG.parent, 0o700),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "munge", "munge")
        folder.chmod(mode)
    if not MUNGE_KEY.exists():
        MUNGE_KEY.touch(0o400)
        MUNGE_KEY.write_bytes(secrets.token_bytes(128))
        shutil.chown(MUNGE_KEY, "munge", "munge")
    daemon = ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups", "munged"]
    try:
        done = subprocess.run(
            daemon,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"cannot start munged: {error}; see {MUNGE_LOG}") from error
    if done.returncode or not wait_until(_munge_answers, 5.0):
        raise LabError(f"cannot start munged: exit {done.returncode}: {tail(MUNGE_LOG, 2)}; see {MUNGE_LOG}")
    OURS.touch()


def stop_munge() -> None:
    """Stop the munged that a lab started; one that was there before stays."""
    if not OURS.exists():
        return
    with contextlib.suppress(OSError, ValueError):
        Process.of(int((MUNGE_RUN / "munged.pid").read_text())).end()
    shutil.rmtree(MUNGE_RUN, ignore_errors=True)


def _munge_answers() -> bool:
    if not (MUNGE_RUN / "munge.socket.2").exists():
        return False
    try:
        done = subprocess.run(["munge", "-n"], capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def environment(lab: Topology) -> dict[str, str]:
    """What srun, salloc and squeue need to talk to this lab, in addition to the caller's environment."""
    return {
        "SLURM_CONF": str(lab.etc / "slurm.conf"),
        "PHALANX_LAB": lab.name,
        "PHALANX_LAB_LOGIN": lab.login_address,
        "PHALANX_LAB_SHARED": str(lab.shared),
    }


def controller(lab: Topology) -> Process | None:
    return Process.recorded(lab.state / "slurmctld.pid")


def start_controller(lab: Topology) -> None:
    """Start slurmctld and wait until it accepts connections at the login's address."""
    (lab.state / "slurmctld").mkdir(exist_ok=True)
    log = lab.log / "slurmctld.out"
    env = {"PATH": node.PATH, "HOME": "/root", "LANG": "C.UTF-8", "SLURM_CONF": str(lab.etc / "slurm.conf")}
    group = cgroup.make(f"{lab.cgroup}/{LOGIN}")
    launch(["slurmctld", "-D"], record=lab.state / "slurmctld.pid", log=log, cgroups=group, env=env)

    def listens_or_dead() -> bool:
        found = controller(lab)
        return found is None or not found.alive() or _listens(lab.login_address, lab.slurmctld_port)

    wait_until(listens_or_dead, 15.0)
    if not _listens(lab.login_address, lab.slurmctld_port):
        raise LabError(
            f"cannot start slurmctld: {tail(lab.log / 'slurmctld.log')} {tail(log)}; see "
            f"{lab.log}/slurmctld.log"
        )


def stop_controller(lab: Topology) -> None:
    found = controller(lab)
    if found is not None:
        found.end()


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def ask(lab: Topology, argv: list[str], *, timeout: float = 15.0) -> str:
    """Output of one of Slurm's commands. Raises LabError with its words when it fails or hangs."""
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **environment(lab)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise LabError(
            f"cannot ask {argv[0]}: no answer in {timeout:.0f} s; see {lab.log}/slurmctld.log"
        ) from None
    if done.returncode:
        raise LabError(f"cannot ask {argv[0]}: {done.stderr.strip()}; see {lab.log}/slurmctld.log")
    return done.stdout


def node_states(lab: Topology) -> dict[str, str]:
    """Node -> Slurm's word ("idle", "down*"), as sinfo(1) prints it; empty when slurmctld does not answer."""
    if not lab.request.slurm:
        return {}
    try:
        lines = ask(lab, ["sinfo", "-h", "-N", "-p", "lab", "-o", "%N %T"], timeout=5.0).splitlines()
    except LabError:
        return {}
    return dict(line.split(maxsplit=1) for line in lines if " " in line)


def waiting_for(lab: Topology, nodes: list[str]) -> list[str]:
    """Those of the nodes that Slurm would not yet start a job on.

    Slurm's word alone may date from before a node's boot, so its slurmd must answer too.
    """
    states = node_states(lab)
    late = [name for name in nodes if states.get(name, "unknown") not in READY]
    return late + [
        name for name in nodes if name not in late and not _listens(lab.address(name), SLURMD_PORT)
    ]


def job_ids(lab: Topology) -> list[int]:
    """Ids of all jobs that are queued or running."""
    return sorted({int(line) for line in ask(lab, ["squeue", "-h", "-o", "%A"]).split()})


def write_off(lab: Topology, name: str) -> None:
    """Tell Slurm that a node is down: what it still waits for there is over at once.

    A job whose end the node never heard of stays completing, and its nodes out of reach, until slurmctld asks
    again: every 30 s, and only about jobs that ended some time ago. With ReturnToService=2 the node's next
    boot is all that it needs to take work.
    """
    ask(lab, ["scontrol", "update", f"nodename={name}", "state=down", "reason=switched off"])


def cancel_all(lab: Topology) -> None:
    """Cancel every job, and wait up to 15 s until none is left."""
    for job in job_ids(lab):
        subprocess.run(
            ["scancel", str(job)],
            env={**os.environ, **environment(lab)},
            timeout=15,
            check=False,
            capture_output=True,
        )
    if not wait_until(lambda: not job_ids(lab), 15.0, pause=0.2):
        raise LabError(
            f"cannot clear the queue: jobs {job_ids(lab)} are still there after 15 s; see {lab.log}"
        )
