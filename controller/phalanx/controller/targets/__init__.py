"""Where nodes come from. ``make_target`` is the one door: a plan in, a Target out."""

from __future__ import annotations

from collections.abc import Callable

from ..plan.model import Plan
from .base import Target
from .local import LocalTarget
from .slurm import SlurmTarget


def make_target(plan: Plan, queue_words: Callable[[str], None] | None = None) -> Target:
    """The target that the plan names. ``queue_words`` is told each word about a request that waits for
    nodes."""
    if plan.target.kind == "local":
        return LocalTarget(plan.target.nodes, agent_python=plan.target.agent_python)
    return SlurmTarget(plan, queue_words=queue_words)
