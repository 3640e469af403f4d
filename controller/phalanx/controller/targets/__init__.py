"""Where nodes come from. ``make_target`` is the one door: a plan in, a Target out."""

from __future__ import annotations

from collections.abc import Callable

from ..plan.model import Plan
from .base import Target


def make_target(plan: Plan, queue_words: Callable[[str], None] | None = None) -> Target:
    """The target that the plan names. ``queue_words`` is told each word about a request that waits for
    nodes."""
    # Only the one that is wanted is imported: most of the other is words of its commands, compiled.
    if plan.target.kind == "local":
        from .local import LocalTarget

        return LocalTarget(plan.target.nodes, agent_python=plan.target.agent_python)
    from .slurm import SlurmTarget

    return SlurmTarget(plan, queue_words=queue_words)
