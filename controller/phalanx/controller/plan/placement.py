"""Where a run goes: target, number of nodes, the options of an allocation; each with its origin.

Order, the later over the earlier: preset, model cards, additional context, command line. Inside an
allocation (``SLURM_JOB_ID``) that one is used, unless the target is said to be local.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..listing import listed
from ..nodesets import NodesetError, expand
from ..workflow.card import ModelCard
from ..workflow.distributed import MOST_NODES, context_nodes
from ..workflow.errors import InputError, did_you_mean
from ..workflow.placeholders import refuse_placeholder
from ..workflow.presets import Preset, preset_for
from ..workflow.wording import kind_of
from .inputs import RunInputs
from .model import SlurmOptions, TargetPlan
from .quantities import whole_number

TARGETS = ("local", "slurm")
#: Options that only ask for an allocation, and say nothing inside one.
_ASKING = tuple(name for name in SlurmOptions.__dataclass_fields__ if name not in ("job_id", "extra"))


#: Keys that a card's slurm block may have.
_OF_CARDS = (
    *(field.name for field in dataclasses.fields(SlurmOptions) if field.name != "job_id"),
    *("nodes", "output_dir", "modules", "network_interface", "shared_workspace", "results_dir"),
    *("enable_node_check", "auto_cleanup_nodes", "verbose_node_check", "allow_submit_without_clean_nodes"),
)


@dataclass(slots=True)
class Placement:
    """The target and what is to be said about it. ``preset``: what models get there when nobody says.

    ``refusals``: why what was planned cannot be run by this version.
    """

    target: TargetPlan
    origins: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    preset: Preset = field(default_factory=Preset)


def place(inputs: RunInputs) -> Placement:
    """Decide on target and nodes. Raises InputError."""
    origins: dict[str, str] = {}
    warnings: list[str] = []
    kind = _kind(inputs, origins)
    options = _slurm_options(inputs, origins, warnings) if kind == "slurm" else SlurmOptions()
    nodes = _nodes(inputs, kind, options, origins, warnings)
    preset = preset_for(kind, nodes, inputs.context.gpu_vendor) if inputs.models else Preset()
    if kind == "slurm" and not options.job_id:
        options = _preset_options(options, preset, origins)
    fewest = inputs.min_nodes or 0
    if fewest < 0 or fewest > nodes:
        raise InputError(f"cannot use --min-nodes {fewest}: the run asks for {nodes} nodes")
    target = TargetPlan(
        kind=kind,
        nodes=nodes,
        min_nodes=fewest,
        slurm=options,
        agent_python=inputs.agent_python,
        advertise=inputs.advertise,
    )
    return Placement(target, origins, warnings, preset=preset)


def _kind(inputs: RunInputs, origins: dict[str, str]) -> Literal["local", "slurm"]:
    said = inputs.target
    if said and said not in TARGETS:
        raise InputError(
            f"cannot use --target {said}: expected {' or '.join(TARGETS)}{did_you_mean(said, TARGETS)}"
        )
    asked = [name for name in _ASKING if _said(getattr(inputs.slurm, name))]
    if said == "local":
        if asked:
            raise InputError(f"cannot use --{asked[0].replace('_', '-')} with --target local: it is Slurm's")
        origins["target.kind"] = "--target"
        return "local"
    context = inputs.context
    reasons = (
        ("--target", said == "slurm"),
        (f"--{asked[0].replace('_', '-')}" if asked else "", bool(asked) or bool(inputs.slurm.extra)),
        (context.origin("deploy"), bool(context.deploy)),
        (context.origin("slurm"), context.slurm is not None),
        ("SLURM_JOB_ID", bool(_job_id(inputs.environ))),
    )
    for origin, holds in reasons:
        if holds:
            origins["target.kind"] = origin or "--slurm-arg"
            return "local" if origin == context.origin("deploy") and context.deploy == "local" else "slurm"
    origins["target.kind"] = "default"
    return "local"


def _slurm_options(inputs: RunInputs, origins: dict[str, str], warnings: list[str]) -> SlurmOptions:
    values: dict[str, object] = {}
    block = inputs.context.slurm
    card, by_card = _card_slurm(inputs, warnings)
    for name in SlurmOptions.__dataclass_fields__:
        layers = (
            (by_card.get(name), f"{card}: slurm.{name}"),
            (getattr(block, name, None), inputs.context.origin(f"slurm.{name}")),
            (getattr(inputs.slurm, name), f"--{name.replace('_', '-')}"),
        )
        for value, origin in layers:
            if _said(value):
                values[name] = value
                origins[f"target.slurm.{name}"] = origin
    extra = (*(block.extra if block else ()), *inputs.slurm.extra)
    options = SlurmOptions(**{**values, "extra": extra})  # type: ignore[arg-type]
    for name, value in values.items():
        for word in value if isinstance(value, tuple) else (value,):
            if isinstance(word, str) and any(ord(letter) < 32 for letter in word):
                raise InputError(
                    f"cannot use {origins[f'target.slurm.{name}']}: it holds a control character"
                )
    job_id = _job_id(inputs.environ) if not options.job_id else options.job_id
    if not job_id:
        return options
    if not options.job_id:
        origins["target.slurm.job_id"] = "SLURM_JOB_ID"
    ignored = [name for name in _ASKING if _said(getattr(options, name))]
    if ignored:
        warnings.append(
            f"allocation {job_id} is used as it is: {', '.join(ignored)} only matter for a new one"
        )
    return dataclasses.replace(options, job_id=job_id)


def _preset_options(options: SlurmOptions, preset: Preset, origins: dict[str, str]) -> SlurmOptions:
    """The options of a new allocation, and below them those of the preset."""
    found: dict[str, object] = {}
    for name, (value, origin) in preset.block("slurm").items():
        if not _said(getattr(options, name)):
            found[name], origins[f"target.slurm.{name}"] = value, origin
    return dataclasses.replace(options, **found)  # type: ignore[arg-type]


def _card_slurm(inputs: RunInputs, warnings: list[str]) -> tuple[str, dict[str, str | bool]]:
    """Options of the first card with a slurm block: one run has one allocation. Raises InputError."""
    blocks = [(model.card.where, dict(model.card.slurm)) for model in inputs.models if model.card.slurm]
    if not blocks:
        return "", {}
    where, block = blocks[0]
    different = [other for other, values in blocks[1:] if values != block]
    if different:
        warnings.append(f"{where}: its slurm options are used for the whole run, not those of {different[0]}")
    found: dict[str, str | bool] = {}
    unknown = [name for name in block if name not in _OF_CARDS and not name.startswith("_")]
    warnings += [
        f"{where}: slurm.{name} is not a known key and is not used{did_you_mean(name, _OF_CARDS)}"
        for name in unknown
    ]
    for name, value in block.items():
        if name not in SlurmOptions.__dataclass_fields__ or name in ("job_id", "extra") or value is None:
            continue
        origin = f"{where}: slurm.{name}"
        if name in ("nodelist", "exclude") and isinstance(value, list):
            value = ",".join(str(one) for one in value)
        if name == "exclusive" and str(value).lower() in ("true", "false"):
            value = str(value).lower() == "true"
        if not isinstance(value, bool if name == "exclusive" else (str, int)):
            raise InputError(f"cannot use {origin}: found {kind_of(value)}")
        if isinstance(value, str):
            refuse_placeholder(value, origin)
        found[name] = value if isinstance(value, bool) else str(value)
    return where, found


def _nodes(
    inputs: RunInputs, kind: str, options: SlurmOptions, origins: dict[str, str], warnings: list[str]
) -> int:
    names = _named(options, origins)
    count, origin = _asked_nodes(inputs, kind, bool(options.job_id)) or (
        (len(names), origins["target.slurm.nodelist"]) if names else (1, "default")
    )
    if kind == "local" and count > 1 and inputs.nodes is None:
        # Several agents of one machine share its GPUs: that is for trying things out, and has to be said.
        warnings.append(
            f"{origin} asks for {count} nodes, and this machine is one; say -N {count} to try it here"
        )
        count, origin = 1, "default"
    elif inputs.nodes is None:
        warnings += _carried_along(inputs, count, origin)
    origins["target.nodes"] = origin
    if not 1 <= count <= MOST_NODES:
        raise InputError(f"cannot use {origin}: expected 1 to {MOST_NODES} nodes, found {count}")
    if len(names) > count:
        raise InputError(
            f"cannot use {origins['target.slurm.nodelist']}: it names {len(names)} nodes, and {origin} asks "
            f"for {count}; say -N {len(names)}, or name fewer"
        )
    held = _allocated(inputs) if options.job_id else 0
    if held and count > held:
        raise InputError(f"cannot use {count} nodes ({origin}): allocation {options.job_id} has {held}")
    return count


def _named(options: SlurmOptions, origins: Mapping[str, str]) -> tuple[str, ...]:
    """The nodes that a new allocation has to have, () when nobody names any. Raises InputError.

    As srun has it these may be fewer than are asked for: Slurm adds what is missing. A text with a slash
    outside of brackets is the name of a file for Slurm, which it reads itself.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in ("nodelist", "exclude"):
        text, origin = getattr(options, name), origins.get(f"target.slurm.{name}", name)
        if not text or "/" in re.sub(r"\[[^\]]*\]", "", text):
            continue
        try:
            found[name] = expand(text)
        except NodesetError as error:
            raise InputError(f"cannot use {origin}: {error}") from error
        if not found[name]:
            raise InputError(f"cannot use {origin}: {text!r} names no node")
    return () if options.job_id else found.get("nodelist", ())


def _carried_along(inputs: RunInputs, count: int, origin: str) -> list[str]:
    """Models that say nothing of nodes and run on as many as another asks for."""
    cards = [model.card for model in inputs.models]
    if count < 2 or origin not in [card.where for card in cards]:
        return []
    silent = [card.name for card in cards if not card_nodes(card)]
    if not silent:
        return []
    return [f"{origin} asks for {count} nodes, and {listed(silent, 5)} run on as many; say -N COUNT"]


def _asked_nodes(inputs: RunInputs, kind: str, in_allocation: bool) -> tuple[int, str] | None:
    """How many nodes are asked for by number, and by whom; None when nobody does."""
    context = inputs.context
    if inputs.nodes is not None:
        return inputs.nodes, "--nodes"
    if context.slurm is not None and context.slurm.nodes is not None:
        return context.slurm.nodes, context.origin("slurm.nodes")
    if (by_blocks := context_nodes(context)) is not None:
        return by_blocks
    by_card = _card_nodes(inputs)
    if by_card is not None:
        return by_card
    held = _allocated(inputs)
    if kind == "slurm" and in_allocation and held:
        return held, "the allocation"
    return None


def _card_nodes(inputs: RunInputs) -> tuple[int, str] | None:
    """What the cards ask for. Raises InputError when two of them differ: one run has one set of nodes."""
    asked: dict[int, ModelCard] = {}
    for model in inputs.models:
        count = card_nodes(model.card)
        if count:
            asked.setdefault(count, model.card)
    if not asked:
        return None
    if len(asked) > 1:
        words = ", ".join(f"{card.name} for {count}" for count, card in asked.items())
        raise InputError(
            f"cannot choose the number of nodes: models ask for different ones ({words}); say -N COUNT"
        )
    count, card = next(iter(asked.items()))
    return count, card.where


def card_nodes(card: ModelCard) -> int:
    """Nodes that a card asks for (slurm.nodes, distributed.nnodes, nnodes); 0 for not said."""
    for path, value in (
        ("slurm.nodes", card.slurm.get("nodes")),
        ("distributed.nnodes", card.distributed.get("nnodes")),
    ):
        if value not in (None, ""):
            return whole_number(str(value), f"{card.where}: {path}", 1, MOST_NODES)
    return card.nnodes


def _job_id(environ: Mapping[str, str]) -> str:
    """The allocation that we are in; a step's own environment counts as well."""
    return environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID") or ""


def _allocated(inputs: RunInputs) -> int:
    """Nodes of the allocation, 0 when its environment does not say."""
    if inputs.slurm.job_id and inputs.slurm.job_id != _job_id(inputs.environ):
        return 0
    for name in ("SLURM_JOB_NUM_NODES", "SLURM_NNODES"):
        value = inputs.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return 0


def _said(value: object) -> bool:
    return value not in ("", None, ())
