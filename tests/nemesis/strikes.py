"""What is killed in a round, and when: drawn from a seed, so that a round can be played again. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: The latest moment of a strike, in seconds: after all ranks run, or after the controller does.
LATEST_S, EARLY_LATEST_S = 1.0, 2.5


@dataclass(frozen=True, slots=True)
class Strike:
    """SIGKILL for these, at about the same time, in an order of chance.

    ``agents``: of these nodes; ``holders``: what holds the workload of these nodes where no engine does;
    ``spawner``: "main" for srun alone, "group" with its helper; ``engine``: the node whose engine is killed,
    ``containerd`` with its containerd, started again after ``restart_s`` seconds. ``early``: the time counts
    from the start of the controller, not from that of the last rank, and some victims may not be there yet.
    """

    seed: int
    after_s: float
    nodes: int
    agents: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    spawner: str = ""
    controller: bool = False
    client: bool = False
    engine: str = ""
    containerd: bool = False
    restart_s: float = 0.0
    early: bool = False

    @property
    def ends_the_run(self) -> bool:
        """False if what is left can go on: agents live on when srun is killed with its helper."""
        return bool(self.agents or self.holders or self.controller or self.spawner == "main")

    @property
    def spares_an_agent(self) -> bool:
        """True if some agent lives to see the end of its lease; srun's end takes all of them with it."""
        return self.spawner != "main" and len(self.agents) < self.nodes

    def words(self) -> str:
        """For people, with what it takes to play it again."""
        parts = [f"agent of {node}" for node in self.agents]
        parts += [f"supervisor on {node}" for node in self.holders]
        if self.spawner:
            parts.append("srun" if self.spawner == "main" else "srun and its helper")
        parts += ["controller"] if self.controller else []
        parts += ["client"] if self.client else []
        if self.engine:
            whole = " and its containerd" if self.containerd else ""
            parts.append(f"engine of {self.engine}{whole} (back after {self.restart_s:.1f} s)")
        of = " of its controller" if self.early else ""
        return f"seed {self.seed}: {', '.join(parts)}, {self.after_s:.2f} s after the start{of}"


def on_a_cluster(seed: int, nodes: Sequence[str], lease_s: float, early: bool = False) -> Strike:
    """Some of: agents, srun, controller, client, an engine; never none of them."""
    chance = random.Random(seed)
    agents, spawner, controller, client, engine = _some(chance, 5)
    return Strike(
        seed,
        chance.uniform(0, EARLY_LATEST_S if early else LATEST_S),
        len(nodes),
        early=early,
        agents=_one_or_all(chance, nodes) if agents else (),
        spawner=chance.choice(("main", "group")) if spawner else "",
        controller=controller,
        client=client,
        engine=chance.choice(nodes) if engine else "",
        containerd=chance.random() < 0.5,
        restart_s=chance.uniform(0, lease_s),
    )


def on_this_machine(seed: int, nodes: Sequence[str]) -> Strike:
    """Some of: agents, supervisors, controller, client; never none of them."""
    chance = random.Random(seed)
    agents, holders, controller, client = _some(chance, 4)
    return Strike(
        seed,
        chance.uniform(0, LATEST_S),
        len(nodes),
        agents=_one_or_all(chance, nodes) if agents else (),
        holders=_one_or_all(chance, nodes) if holders else (),
        controller=controller,
        client=client,
    )


def _some(chance: random.Random, count: int) -> list[bool]:
    """A subset that is not empty, each as likely as any other."""
    mask = chance.randrange(1, 1 << count)
    return [bool(mask >> place & 1) for place in range(count)]


def _one_or_all(chance: random.Random, nodes: Sequence[str]) -> tuple[str, ...]:
    return tuple(nodes) if chance.random() < 0.5 else (chance.choice(nodes),)
