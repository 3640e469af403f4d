"""How images get onto nodes today, and the least that any way can take.

``registry_pull``: ``srun docker pull`` from one registry on the login node. ``copy_load``: every node reads
the tar from the login node, as from a shared folder, then loads it. ``sbcast``: Slurm's own broadcast to each
node's disk, then ``docker load``. ``crude_chain``: each node forwards to the next while it writes, nothing is
verified or resumed, then ``docker load``: the bound that physics sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.image_lab import NODE_TAR, REFERENCE, Delivery, ImageLab
from benchmarks.servers import TAR_PIPE, Server, registry, tar_server
from tests.lab.topology import LOGIN

PYTHON = "/usr/bin/python3"
LOAD = f"docker load -q -i {NODE_TAR} && rm {NODE_TAR}"
NAME = REFERENCE.partition(":")[0]


def registry_pull(lab: ImageLab) -> Delivery:
    address, folder = lab.runs.lab.login_address, lab.runs.folder
    with registry(address, lab.image.archive, folder, NAME) as (server, reference):
        return lab.deliver(lab.runs.srun_argv("docker", "pull", "-q", reference), servers=[server])


def copy_load(lab: ImageLab) -> Delivery:
    with tar_server(lab.runs.lab.login_address, lab.image.archive) as server:
        return _taken(lab, [LOGIN] * len(lab.nodes), server)


def crude_chain(lab: ImageLab) -> Delivery:
    with tar_server(lab.runs.lab.login_address, lab.image.archive) as server:
        return _taken(lab, [LOGIN, *lab.nodes[:-1]], server)


def sbcast(lab: ImageLab) -> Delivery:
    load = lab.runs.srun_argv("sh", "-c", LOAD)
    script = 'sbcast -f "$1" "$2" && shift 2 && exec "$@"'
    return lab.deliver(["sh", "-c", script, "sh", str(lab.image.archive), NODE_TAR, *load])


def _taken(lab: ImageLab, parents: Sequence[str], server: Server) -> Delivery:
    take = [PYTHON, "-c", TAR_PIPE.read_text(), "take", ",".join(parents), str(server.port), NODE_TAR]
    return lab.deliver(lab.runs.srun_argv("sh", "-c", f'"$@" && {LOAD}', "sh", *take), servers=[server])


PEERS: dict[str, Callable[[ImageLab], Delivery]] = {
    "registry_pull": registry_pull,
    "copy_load": copy_load,
    "sbcast": sbcast,
    "crude_chain": crude_chain,
}
