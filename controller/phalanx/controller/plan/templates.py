"""Values that only the cluster can fill in: a fixed set of names in braces, filled for each node.

A plan is made before there are nodes, and a launcher's command holds this node's rank and the first node's
address. ``EnvValue.template`` marks such a value. Only the launch table makes them: text of users is never
looked into, so their braces are braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

#: name -> what a person sees in its place before the run
NAMES = {
    "NNODES": "<number of nodes>",
    "NODE_RANK": "<per node>",
    "NODE_ADDR": "<this node>",
    "NODE_ADDRS": "<all nodes>",
    "MASTER_ADDR": "<first node>",
    "MASTER_PORT": "<port>",
    "MASTER_ENDPOINT": "<first node>:<port>",
    "ON_FIRST_NODE": "<true on the first node, else false>",
    "SYSTEM_GPU_VENDOR": "<whose GPUs the node has>",
    "SYSTEM_NGPUS": "<GPUs of the node>",
    "SYSTEM_GPU_ARCHITECTURE": "<architecture of its GPUs>",
    "SYSTEM_GPU_PRODUCT_NAME": "<name of its GPUs>",
    "SYSTEM_HIP_VERSION": "<ROCm of the node>",
}
_PLACE = re.compile(r"\{([A-Z][A-Z0-9_]*)\}")


def render(text: str, values: Mapping[str, str]) -> str:
    """Fill in the names that ``values`` has; what is filled in is not looked at again."""
    return _PLACE.sub(lambda match: values.get(match[1], match[0]), text)


def names_in(text: str) -> set[str]:
    """The names of places in a text, known or not."""
    return set(_PLACE.findall(text))


def node_values(rank: int, addresses: Sequence[str], master: str, port: str) -> dict[str, str]:
    """The values of one node, whose place in ``addresses`` is its rank."""
    host = f"[{master}]" if ":" in master else master
    return {
        "NNODES": str(len(addresses)),
        "NODE_RANK": str(rank),
        "NODE_ADDR": addresses[rank],
        "NODE_ADDRS": ",".join(addresses),
        "MASTER_ADDR": master,
        "MASTER_PORT": port,
        "MASTER_ENDPOINT": f"{host}:{port}",
        "ON_FIRST_NODE": "true" if rank == 0 else "false",
    }


def shown(text: str, nodes: int, port: int) -> str:
    """A template for people: what is known of it, and words in angle brackets for the rest."""
    words = dict(NAMES, NNODES=str(nodes))
    if port:
        words |= {"MASTER_PORT": str(port), "MASTER_ENDPOINT": f"<first node>:{port}"}
    return render(text, words)
