"""What the user of a run allows its containers: words of ``--allow``, else of ``PHALANX_ALLOW``.

Neither a card nor a context nor a manifest can say one: who writes a model must not open the nodes of whoever
runs it. What needs which word is in ``protocol/allowances``, which the agent asks again.
"""

from __future__ import annotations

from collections.abc import Mapping

from phalanx.protocol.allowances import GIVES_AWAY, needs
from phalanx.protocol.messages import Allowance, ContainerSpec

from ..listing import listed
from ..workflow.errors import InputError, did_you_mean
from .inputs import RunInputs
from .model import CasePlan

OPTION, VARIABLE = "--allow", "PHALANX_ALLOW"
WORDS = tuple(one.value for one in Allowance)


def allowed(inputs: RunInputs) -> Mapping[Allowance, str]:
    """The allowances with their origins; the option goes over the variable. Raises InputError."""
    texts, origin = (
        (inputs.allow, OPTION) if inputs.allow else ((inputs.environ.get(VARIABLE, ""),), VARIABLE)
    )
    found: dict[Allowance, str] = {}
    for word in (part.strip() for text in texts for part in text.split(",")):
        if word in WORDS:
            found[Allowance(word)] = origin
        elif word or origin == OPTION:
            raise InputError(
                f"cannot use {origin} {word!r}: expected {', '.join(WORDS[:-1])} or {WORDS[-1]}"
                f"{did_you_mean(word, WORDS)}"
            )
    return found


def refuse_unallowed(spec: ContainerSpec, origin: str) -> None:
    """Raises InputError when a part of the specification, from ``origin``, needs a word that it has not."""
    for need in needs(spec):
        if need.allowance not in spec.allow:
            word = need.allowance.value
            raise InputError(
                f"cannot use {origin}: {need}; if that is meant, say {OPTION} {word} (only who runs it can)"
            )


def allowance_origins(inputs: RunInputs, cases: tuple[CasePlan, ...]) -> dict[str, str]:
    """Origins of what each case's container is allowed, for the plan."""
    origins = allowed(inputs) if cases else {}
    return {
        f"cases.{case.name}.container.allow.{one.value}": origins.get(one, "")
        for case in cases
        for one in case.container.allow
    }


def allowance_warnings(inputs: RunInputs, cases: tuple[CasePlan, ...]) -> list[str]:
    """One line for each word that a container makes use of: what it gives away, and to whom."""
    origins = allowed(inputs)
    users: dict[Allowance, list[str]] = {}
    for case in cases:
        for one in dict.fromkeys(need.allowance for need in needs(case.container)):
            users.setdefault(one, []).append(case.name)
    return [
        f"{origins.get(one, OPTION)} {one.value} is used by {listed(names, 3)}: {GIVES_AWAY[one]}"
        for one, names in users.items()
    ]
