"""What this machine lacks for a lab, in words that a skipped test can show."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess

BASE = ("ip", "tc", "unshare", "nsenter", "setsid", "setpriv", "mount", "losetup", "mkfs.ext4")
SLURM = ("slurmctld", "slurmd", "srun", "sinfo", "squeue", "munged", "munge")
DOCKER = ("dockerd", "containerd", "runc", "docker", "busybox")


def missing_parts(docker: bool = False, *, slurm: bool = True) -> list[str]:
    """Words for each thing that is not here; an empty list means that `up` can work."""
    if os.geteuid() != 0:
        return ["not root"]
    wanted = [*BASE, *(SLURM if slurm else ()), *(DOCKER if docker else ())]
    found = [f"{command} missing" for command in wanted if not shutil.which(command, path=search_path())]
    if slurm:
        try:
            pwd.getpwnam("munge")
        except KeyError:
            found.append("user munge missing")
    if not found and not _may_unshare():
        found.append("no right to make namespaces")
    return found


def search_path() -> str:
    """The caller's PATH with the folders of daemons, which a user's PATH often lacks."""
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def _may_unshare() -> bool:
    argv = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "true"]
    try:
        return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
