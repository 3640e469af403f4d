"""Plans with nothing in them but a target."""

from __future__ import annotations

import dataclasses
import secrets

from phalanx.controller.plan.model import Plan, SlurmOptions, TargetPlan, Timing
from phalanx.controller.targets.base import Bootstrap

SECRET = "5ec2e7" + "c0ffee" * 9


def plan_for(target: TargetPlan, *, allocation_timeout_s: float = 0.0) -> Plan:
    """A plan of a run that has an id of its own."""
    return Plan(
        schema=1,
        run_id=f"targets-{secrets.token_hex(4)}",
        name="targets",
        argv=(),
        cwd="/",
        target=target,
        images=(),
        cases=(),
        timing=Timing(allocation_timeout_s=allocation_timeout_s),
    )


def slurm_plan(nodes: int, *, allocation_timeout_s: float = 0.0, **options: object) -> Plan:
    """A plan on Slurm with these options of salloc."""
    slurm = dataclasses.replace(SlurmOptions(), **options)  # type: ignore[arg-type]
    return plan_for(TargetPlan("slurm", nodes, slurm=slurm), allocation_timeout_s=allocation_timeout_s)


def bootstrap_of(plan: Plan) -> Bootstrap:
    """What an agent is told, with a secret that tests look for where it must not be."""
    return Bootstrap(plan.run_id, (("127.0.0.1", 1),), "ab" * 32, SECRET, "cd" * 32, 60.0)
