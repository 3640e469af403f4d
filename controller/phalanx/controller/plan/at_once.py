"""Models of a run that run at the same time: what keeps them from that, and what it costs.

Each has GPUs and a port of its own; what a user fixes for two of them cannot be kept apart.
"""

from __future__ import annotations

from collections.abc import Iterator

from phalanx.protocol.messages import MOST_AT_ONCE, Runtime

from ..workflow.errors import InputError
from .gpus import VISIBLE
from .inputs import RunInputs
from .model import CasePlan


def check_at_once(inputs: RunInputs, cases: tuple[CasePlan, ...]) -> None:
    """Raises InputError for what cannot be done at once."""
    asked = inputs.parallel
    if asked is None:
        return
    if not 1 <= asked <= MOST_AT_ONCE:
        raise InputError(f"cannot use --parallel {asked}: expected 1 to {MOST_AT_ONCE}")
    if inputs.command and asked > 1:
        raise InputError(
            f"cannot use --parallel {asked} with a command: it is one case; say --ntasks-per-node COUNT for "
            "more of its processes on every node"
        )
    if inputs.keep_alive and asked > 1:
        raise InputError(
            f"cannot use --parallel {asked} with --keep-alive: containers that stay keep the GPUs that later "
            "models are given; say one of them"
        )
    if inputs.at_once > 1:
        _check_ports(inputs, cases)


def _check_ports(inputs: RunInputs, cases: tuple[CasePlan, ...]) -> None:
    """Two models that meet on the same port of the same node would find each other."""
    first: dict[str, CasePlan] = {}
    for case in cases:
        said = case.env.get("MASTER_PORT")
        port = said.origin if said is not None and said.secret else str(case.master_port or "")
        if port and (other := first.setdefault(port, case)) is not case:
            origin = "--master-port" if inputs.master_port else said.origin if said else "distributed.port"
            raise InputError(
                f"cannot use --parallel {inputs.parallel}: {other.name} and {case.name} would both meet on "
                f"port {case.master_port or 'MASTER_PORT'} ({origin}); leave it out, and each gets a free one"
            )


def cost_of(parallel: int, cases: tuple[CasePlan, ...]) -> Iterator[str]:
    """What a person should know before the run."""
    if parallel == 1:
        return
    yield (
        f"--parallel {parallel}: up to {parallel} models share the CPUs, memory, disks and network of each "
        "node, and images of later ones travel beside them: what they measure may be worse than alone"
    )
    for case in cases:
        said = [case.env[name].origin for name in VISIBLE if name in case.env]
        if case.gpus is not None and case.container.runtime is Runtime.PROCESS and said:
            yield (
                f"{case.name} chooses its GPUs itself ({said[0]}): nothing keeps them apart from those of "
                "models beside it"
            )
