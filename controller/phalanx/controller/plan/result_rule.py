"""How rows come from what a model leaves behind, with the origin of each rule.

``log_error_patterns`` of the context goes over the card's, benign texts of both count, as in madengine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

from ..workflow.errors import InputError
from ..workflow.models import SelectedModel
from .inputs import RunInputs
from .model import ResultRule
from .placement import Placement

OPTION = "--config"


def result_rule(
    inputs: RunInputs,
    model: SelectedModel,
    placement: Placement,
    name: str,
    argv: Sequence[str],
    places: tuple[str, ...],
) -> ResultRule:
    """The rule of a model's case; ``argv``: its command, ``places`` as in the rule. Raises InputError."""
    card = model.card
    said, below, origins = inputs.context.error_scan, card.error_scan, placement.origins
    patterns, scan = (
        said.patterns or below.patterns,
        said.enabled if said.enabled is not None else below.enabled,
    )
    for key, above, beneath, value in (
        ("patterns", said.patterns, below.patterns, "log_error_patterns"),
        ("scan", said.enabled is not None, below.enabled is not None, "log_error_pattern_scan"),
    ):
        origin = inputs.context.origin(value) if above else f"{card.where}: {value}"
        origins[f"cases.{name}.result.{key}"] = origin if above or beneath else "default"
    return ResultRule(
        multiple_results=card.multiple_results,
        require_performance=True,
        places=places,
        which=which_line(inputs, placement, name),
        scan=scan is not False,
        patterns=patterns,
        benign=tuple(dict.fromkeys((*below.benign, *said.benign))),
        config=config_in(argv),
        scripts=model.directory,
        project=str(PurePath(inputs.cwd, inputs.environ.get("MODEL_DIR") or ".")),
    )


def which_line(inputs: RunInputs, placement: Placement, name: str) -> Literal["first", "last"]:
    """Which performance line of a log counts. Raises InputError."""
    placement.origins[f"cases.{name}.result.which"] = "--performance" if inputs.performance else "default"
    if inputs.performance not in ("", "first", "last"):
        raise InputError(f"cannot use --performance {inputs.performance}: expected first or last")
    return "last" if inputs.performance == "last" else "first"


def config_in(argv: Sequence[str]) -> str:
    """What a command names with ``--config PATH`` or ``--config=PATH``, of several the last; "" for none."""
    found = ""
    for word, after in zip(argv, (*argv[1:], ""), strict=False):
        if word == OPTION:
            found = after
        elif word.startswith(f"{OPTION}="):
            found = word.removeprefix(f"{OPTION}=")
    return found
