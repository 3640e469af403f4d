"""One node: an init in namespaces of its own, and what can be done to it from outside (power, hang,
commands).

See init.sh for what it owns. A node is known by the (pid, start time) that its init wrote before it let go of
the machine's /proc.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab import cgroup, fabric
from tests.lab.errors import LabError
from tests.lab.process import Process, call, launch, tail, wait_until
from tests.lab.topology import Topology, parse_size

INIT = Path(__file__).with_name("init.sh")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Joins the node's cgroups from inside (a joiner outside could be frozen with them and never be killed),
# goes to
# the caller's folder if the node has it, and dies with the nsenter that started it.
_ENTER = """
group=$1; folder=$2; shift 2
for c in freezer cpuacct memory pids; do
  [ -e /sys/fs/cgroup/$c/$group/cgroup.procs ] && echo 0 > /sys/fs/cgroup/$c/$group/cgroup.procs
done
cd "$folder" 2>/dev/null || cd /
exec setpriv --pdeathsig KILL -- "$@"
"""


def group(lab: Topology, node: str) -> str:
    return f"{lab.cgroup}/{node}"


def init(lab: Topology, node: str) -> Process | None:
    return Process.recorded(lab.folder(node) / "init")


def running(lab: Topology, node: str) -> bool:
    found = init(lab, node)
    return found is not None and found.alive()


def switched_off(lab: Topology, node: str) -> bool:
    """True if the node was killed on purpose: a lab with such a node is whole."""
    return (lab.folder(node) / "off").exists()


def pid(lab: Topology, node: str) -> int:
    """Pid of the node's init. Raises LabError when the node is off."""
    lab.number(node)
    found = init(lab, node)
    if found is None or not found.alive():
        raise LabError(f"cannot reach {node}: it is off; boot it with `python -m tests.lab boot {node}`")
    return found.pid


def start(lab: Topology, node: str) -> None:
    """Begin to boot a node; `plug` must follow. Its disk is what it was before."""
    home = lab.folder(node)
    (home / "disk").mkdir(parents=True, exist_ok=True)
    for name in ("init", "off"):
        (home / name).unlink(missing_ok=True)
    image = _disk_image(lab, node)
    request = lab.request
    env = {
        "PATH": PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "LAB_NODE": node,
        "LAB_NAME": lab.name,
        "LAB_STATE": str(lab.state),
        "LAB_FOLDER": str(home),
        "LAB_CGROUP": group(lab, node),
        "LAB_CGROUPS": str(cgroup.root()),
        "LAB_DISK": str(image) if image else "",
        "LAB_SLURM": str(int(request.slurm)),
        "LAB_DOCKER": str(int(request.docker)),
        "LAB_ENGINE": request.other_engine if node in request.other_nodes else "",
        "LAB_GPUS": str(request.gpus),
        "LAB_SHARE": "\n".join(request.share),
    }
    namespaces = ["--mount", "--uts", "--net", "--ipc", "--pid", "--fork", "--kill-child"]
    argv = ["unshare", *namespaces, "bash", str(lab.etc / INIT.name)]
    launch(argv, record=home / "unshare", log=log(lab, node), cgroups=cgroup.make(group(lab, node)), env=env)


def plug(lab: Topology, node: str) -> None:
    """Wait until the node's init asks for its cable, give it, and let the daemons start."""
    unshare = lab.folder(node) / "unshare"

    def ready_or_dead() -> bool:
        parent = Process.recorded(unshare)
        return running(lab, node) or parent is None or not parent.alive()

    wait_until(ready_or_dead, 15.0)
    if not running(lab, node):
        raise LabError(f"cannot boot {node}: its init ended: {tail(log(lab, node))}; see {log(lab, node)}")
    fabric.plug(lab, node, pid(lab, node))
    order(lab, node, "go")


def order(lab: Topology, node: str, word: str) -> None:
    """Tell the node's init to start something: "go", "docker" or "slurmd"."""
    pid(lab, node)
    with (lab.folder(node) / "orders").open("w") as orders:
        orders.write(f"{word}\n")


def kill(lab: Topology, node: str) -> None:
    """Cut the power. Peers see silence. Nothing of the node runs on when this returns; its disk stays."""
    lab.number(node)
    (lab.folder(node) / "off").touch()
    fabric.unplug(lab, node)
    end(lab, node)
    fabric.discard(lab, node)


def end(lab: Topology, node: str) -> None:
    """Kill a node's init and wait until all it ran is gone."""
    if cgroup.frozen(group(lab, node)):
        cgroup.set_frozen(group(lab, node), False)
    found = init(lab, node)
    if found is not None:
        found.kill()
        wait_until(lambda: not found.alive(), 5.0)
    cgroup.kill(group(lab, node))


def boot(lab: Topology, node: str) -> None:
    """Switch a dead node on. Raises LabError when it is on."""
    lab.number(node)
    if running(lab, node):
        raise LabError(f"cannot boot {node}: it is on; kill it first to see it boot again")
    end(lab, node)
    fabric.discard(lab, node)
    start(lab, node)
    plug(lab, node)


def enter(lab: Topology, node: str, argv: Sequence[str], folder: str | None = None) -> list[str]:
    """The command line that runs argv on the node, in the given folder or the present one if the node has
    it."""
    home = pid(lab, node)
    if cgroup.frozen(group(lab, node)):
        raise LabError(f"cannot run {argv[0]!r} on {node}: it is frozen; thaw it first")
    namespaces = ["nsenter", "-t", str(home), "-m", "-u", "-n", "-i", "-p", "--"]
    return [*namespaces, "sh", "-c", _ENTER, "enter", group(lab, node), folder or str(Path.cwd()), *argv]


def run(
    lab: Topology,
    node: str,
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    folder: str | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command on the node to its end. Raises LabError after `timeout` seconds, having killed it."""
    command = enter(lab, node, argv, folder)
    full = {**os.environ, "SLURM_CONF": str(lab.etc / "slurm.conf"), **(env or {})}
    try:
        return subprocess.run(
            command, input=stdin or "", env=full, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(
            f"cannot finish {argv[0]!r} on {node}: not done after {timeout:.0f} s and killed; give "
            f"it a longer timeout"
        ) from None


def log(lab: Topology, node: str) -> Path:
    return lab.log / f"{node}.init.log"


def _disk_image(lab: Topology, node: str) -> Path | None:
    """A sparse file with an ext4 in it: a disk that can run full without filling the machine's."""
    if not lab.request.disk:
        return None
    image = lab.folder(node) / "disk.ext4"
    if not image.exists():
        with image.open("wb") as handle:
            handle.truncate(parse_size(lab.request.disk))
        call(
            ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image)],
            timeout=60.0,
            doing="make a disk",
        )
    return image


def remove_disk(lab: Topology, node: str) -> None:
    """Detach the loop device if the kernel has not yet, and delete what the node wrote."""
    image = lab.folder(node) / "disk.ext4"
    if image.exists():

        def attached() -> list[str]:
            return call(["losetup", "--list", "--noheadings", "--output", "NAME", "-j", str(image)]).split()

        if not wait_until(lambda: not attached(), 5.0):
            for device in attached():
                call(["losetup", "--detach", device], doing=f"detach {device}")
    shutil.rmtree(lab.folder(node), ignore_errors=True)
