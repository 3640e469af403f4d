"""Inputs for plans, as a command line would give them."""

from __future__ import annotations

from typing import Any

from phalanx.controller.plan.inputs import RunInputs
from phalanx.controller.plan.model import CasePlan, StepPlan
from phalanx.controller.workflow.card import read_cards
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.models import SelectedModel


def inputs(context: str = "", **more: Any) -> RunInputs:
    """Inputs of a run with these options."""
    given = {"run_id": "20260101-000000-x-0000", "cwd": "/proj", "argv": ("phalanx", "run"), **more}
    return RunInputs(context=load_context(context, environ=given.get("environ")), **given)


def command(*argv: str, context: str = "", **more: Any) -> RunInputs:
    return inputs(context, **{"command": argv or ("hostname",), **more})


def models(*cards: dict[str, Any], context: str = "", **more: Any) -> RunInputs:
    """Inputs for models with these cards; the first field that matters is enough."""
    entries = [
        {"name": f"m{place}", "scripts": "scripts/m", **card} for place, card in enumerate(cards or ({},))
    ]
    chosen = tuple(
        SelectedModel(card, "/proj/scripts/m", ("bash", "run.sh"))
        for card in read_cards(entries, "models.json")
    )
    return inputs(context, models=chosen, **more)


def main_of(case: CasePlan) -> StepPlan:
    """The step of a case that runs its own script."""
    return next(step for step in case.steps if step.name == "main")
