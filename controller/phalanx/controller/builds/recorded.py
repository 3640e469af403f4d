"""What a manifest says of the additional context, in madengine's form: no secret, and only what was said.

madengine writes presets and secrets into it as well. A preset is a default that belongs to who runs, and a
value that looks like a secret stays where it is from: its name stands under ``secrets_required``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..workflow.context import Context, build_defaults
from ..workflow.secrecy import secrets_within, without_secrets

#: Keys of a manifest's context that are there when they were said.
WHEN_SAID = ("tools", "pre_scripts", "post_scripts", "encapsulate_script")
DEPLOYMENT = ("slurm", "k8s", "kubernetes", "distributed", "vllm", "sglang", "launcher", "multi_node_args")
#: A path that is right on the machine of the build only (madengine leaves it out as well).
LOCAL_ONLY = "MIOPEN_USER_DB_PATH"
#: What of a card's blocks goes into the manifest when images are given and no build looks at the card.
_OF_DISTRIBUTED = (
    "launcher", "nnodes", "nproc_per_node", "backend", "port", "sglang_disagg", "vllm_disagg"
)  # fmt: skip
_OF_SLURM = (
    "partition", "nodes", "gpus_per_node", "time", "exclusive", "reservation", "output_dir", "nodelist"
)  # fmt: skip


def recorded_context(context: Context) -> dict[str, Any]:
    """The manifest's ``context``."""
    said, defaults = context.document, build_defaults(context)
    found: dict[str, Any] = {
        "docker_env_vars": dict(context.docker_env),
        "docker_mounts": dict(context.mounts),
        "docker_build_arg": dict(context.build_args),
        "gpu_vendor": defaults.gpu_vendor,
        "guest_os": defaults.guest_os,
        "docker_gpus": context.docker_gpus,
    }
    return _plain(found | {name: said[name] for name in WHEN_SAID if name in said})


def recorded_deployment(context: Context, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest's ``deployment_config``. ``cards``: of models with given images, when there are no others.

    What the context leaves open is filled from the first of them (madengine's rule), but only when they
    agree: what is said here holds for all models.
    """
    said = context.document
    found: dict[str, Any] = {name: said[name] for name in DEPLOYMENT if said.get(name)}
    if cards and all(
        card.get(name) == cards[0].get(name) for card in cards for name in ("distributed", "slurm")
    ):
        for block, names in (("distributed", _OF_DISTRIBUTED), ("slurm", _OF_SLURM)):
            of_card = cards[0].get(block)
            if isinstance(of_card, Mapping):
                kept = {name: of_card[name] for name in names if name in of_card}
                found[block] = {**kept, **found.get(block, {})} if kept or block in found else {}
        found = {name: block for name, block in found.items() if block}
    target = "k8s" if "k8s" in found or "kubernetes" in found else "slurm" if "slurm" in found else "local"
    env = {name: value for name, value in context.env.items() if name != LOCAL_ONLY}
    return _plain({"target": target, **found, "env_vars": env, "debug": bool(said.get("debug", False))})


def secrets_required(context: Context) -> tuple[str, ...]:
    """Names of what the workload is given and the manifest leaves out: a run needs them again."""
    blocks = (
        context.docker_env,
        context.env,
        *(context.document.get(name) for name in ("tools", "vllm", "sglang")),
    )
    return tuple(dict.fromkeys(name for block in blocks for name, _ in secrets_within(block)))


def assumed(context: Context) -> list[str]:
    """Keys of the manifest's context that nobody has said: they chose Dockerfiles and nothing else."""
    said = {"gpu_vendor": context.gpu_vendor, "guest_os": context.guest_os}
    return [name for name, value in said.items() if not value]


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """JSON values without secrets; what a Python literal had besides (tuples) as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(without_secrets(value)))
    return found
