"""What a run ran on and with what: kinds of nodes, images, settings with their origin. Pure.

What a plan says is shown as it was made; a secret has no value in a plan, and a name that looks like one of a
secret is masked here all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phalanx.controller.listing import listed
from phalanx.controller.nodesets import counted, natural
from phalanx.controller.plan.model import CasePlan, EnvValue, Plan
from phalanx.controller.plan.secrets import MASK, looks_secret
from phalanx.controller.plan.templates import shown
from phalanx.controller.runs.facts import kind_of
from phalanx.controller.runs.model import ImageView, NodeView, RunView
from phalanx.controller.runs.words import duration, plural, size

#: Settings of an environment that are shown; beyond this they are counted.
MOST_SETTINGS = 400


@dataclass(frozen=True, slots=True)
class Kind:
    """Nodes that are alike, and what they have, as name and words."""

    nodes: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the run: what it is, where it came from, how it travelled."""

    reference: str
    id: str
    source: str
    journey: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A value with where it is from. ``of``: the cases that it is for, "" for all of the run."""

    name: str
    value: str
    origin: str
    of: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a run ran on."""

    kinds: tuple[Kind, ...] = ()
    images: tuple[Image, ...] = ()
    settings: tuple[Setting, ...] = ()
    more_settings: int = 0


def conditions(view: RunView, plan: Plan | None) -> Conditions:
    """From a run's view, and its plan when that can be read."""
    settings = [] if plan is None else [*_chosen(plan), *_environment(plan)]
    return Conditions(
        _kinds(view),
        tuple(_image(image) for image in view.images),
        tuple(settings[:MOST_SETTINGS]),
        max(0, len(settings) - MOST_SETTINGS),
    )


def _kinds(view: RunView) -> tuple[Kind, ...]:
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for node in view.nodes.values():
        if node.facts:
            groups.setdefault(_facts(node), []).append(node.name)
    return tuple(Kind(counted(natural(names)), facts) for facts, names in groups.items())


def _facts(node: NodeView) -> tuple[tuple[str, str], ...]:
    kind = kind_of(node)
    engine = kind["engine"]
    gpus: dict[str, int] = {}
    for gpu in kind["gpus"]:
        gpus[gpu or "GPU"] = gpus.get(gpu or "GPU", 0) + 1
    found = {
        "GPUs": ", ".join(f"{count} × {name}" for name, count in gpus.items()),
        "CPUs": str(kind["cpus_total"] or ""),
        "memory": f"{kind['memory_gib']} GiB" if kind["memory_gib"] else "",
        "architecture": str(kind["arch"] or ""),
        "kernel": str(kind["kernel"] or ""),
        "engine": " ".join(part for part in (engine["kind"], engine["version"], engine["storage"]) if part),
        "python": str(kind["python"] or ""),
    }
    return tuple((name, words) for name, words in found.items() if words)


def _image(image: ImageView) -> Image:
    journey = ""
    moved = image.transfer
    if moved is not None and moved.seconds:
        journey = (
            f"{size(moved.read_bytes)} to {plural(moved.nodes, 'node')} in {duration(moved.seconds)}, "
            f"{size(moved.saved_bytes)} saved, slowest {moved.slowest}"
        )
    elif image.had and not image.source:
        journey = f"{plural(len(image.had), 'node')} had it"
    return Image(image.reference, image.id, image.source, image.error or journey)


def _chosen(plan: Plan) -> list[Setting]:
    """What the plan gives an origin for."""
    found = []
    for path, origin in plan.origins.items():
        case, key = _case_and_key(plan, path)
        value = _at(plan, path) if case is None else _of_case(case, key)
        found.append(Setting(key, value, origin, case.name if case and len(plan.cases) > 1 else ""))
    return found


def _case_and_key(plan: Plan, path: str) -> tuple[CasePlan | None, str]:
    """``cases.NAME.key`` belongs to a case, whose name may hold dots."""
    for case in plan.cases:
        prefix = f"cases.{case.name}."
        if path.startswith(prefix):
            return case, path.removeprefix(prefix)
    return None, path


def _at(plan: Plan, path: str) -> str:
    value: Any = plan
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return _words(value)


def _of_case(case: CasePlan, key: str) -> str:
    if key == "runtime":
        return str(case.container.runtime.value)
    if key == "timeout":
        main = next((step for step in case.steps if step.name == "main"), None)
        return duration(main.deadline_s) if main is not None and main.deadline_s else "none"
    return _words(getattr(case, key, None))


def _words(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return str(value)


def _environment(plan: Plan) -> list[Setting]:
    """The environment of the cases; what several have alike stands once."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for case in plan.cases:
        for name, value in case.env.items():
            key = (name, _value(name, value, plan, case), value.origin)
            groups.setdefault(key, []).append(case.name)
    everywhere = len(plan.cases)
    return [
        Setting(name, value, origin, "" if len(cases) == everywhere else listed(cases, 3))
        for (name, value, origin), cases in sorted(groups.items())
    ]


def _value(name: str, value: EnvValue, plan: Plan, case: CasePlan) -> str:
    if value.secret or looks_secret(name):
        return MASK
    return shown(value.value, plan.target.nodes, case.master_port) if value.template else value.value
