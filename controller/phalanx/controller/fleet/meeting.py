"""Where the ranks of a case meet: the first node's address, a port, and the addresses of all nodes."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..plan.model import CasePlan, EnvValue
from ..plan.templates import node_values, render
from .hardware import Hardware
from .roster import Roster

#: The port when nobody said one and the first node told of none: torchrun's.
DEFAULT_PORT = 29500
HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Meeting:
    """Addresses in node rank order, and the port on the first node. ``hardware``: what each node has."""

    addresses: tuple[str, ...]
    port: int = DEFAULT_PORT
    hardware: tuple[Hardware, ...] = ()

    def hardware_at(self, rank: int) -> Hardware:
        """What the node of that rank has, as far as that is known."""
        return self.hardware[rank] if rank < len(self.hardware) else Hardware()

    def environment(self) -> dict[str, str]:
        """What every rank is told."""
        return {"MASTER_ADDR": self.addresses[0], "MASTER_PORT": str(self.port)}

    def rendered(self, env: Mapping[str, EnvValue], rank: int) -> dict[str, str]:
        """An environment on the node of that rank, secrets left out.

        A launcher's command agrees with what the script sees: a MASTER_ADDR or MASTER_PORT that the user set
        goes into both. What nobody knows of a node is absent rather than empty.
        """
        plain = {name: value for name, value in env.items() if not value.secret}
        own = {name: plain[name].value for name in ("MASTER_ADDR", "MASTER_PORT") if name in plain}
        told = self.environment() | own
        values = node_values(rank, self.addresses, told["MASTER_ADDR"], told["MASTER_PORT"])
        values |= self.hardware_at(rank).values()
        made = {
            name: render(value.value, values) if value.template else value.value
            for name, value in plain.items()
        }
        return {name: text for name, text in made.items() if text or not plain[name].template}


def meeting_of(case: CasePlan, roster: Roster, nodes: tuple[str, ...], taken: Container[int] = ()) -> Meeting:
    """The meeting of a case on these nodes of the roster; ``taken``: ports that it must not be given."""
    port = case.master_port or _free_port(roster.nodes[nodes[0]].facts or {}, taken)
    hardware = tuple(roster.nodes[node].hardware or Hardware() for node in nodes)
    return Meeting(tuple(roster.address(node) or HERE for node in nodes), port, hardware)


def _free_port(facts: Mapping[str, Any], taken: Container[int]) -> int:
    """A port that the first node has said to be free; past those, and of a node that said nothing, the
    default and its neighbours."""
    told: list[int] = [port for port in (facts.get("free_port"), *(facts.get("more_ports") or ())) if port]
    return next(port for port in chain(told, range(DEFAULT_PORT, 65536)) if port not in taken)
