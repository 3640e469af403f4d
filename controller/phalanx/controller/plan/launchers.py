"""What the column ``launcher`` of a row says.

The name is that of the context, else of the card, else of ``MAD_LAUNCHER``. When nothing names one, the row
says what formed the ranks: the container engine, or plain processes.
"""

from __future__ import annotations

from ..workflow.card import ModelCard
from .inputs import RunInputs

KNOWN = frozenset({
    "torchrun", "torchtitan", "deepspeed", "megatron", "megatron-lm", "primus", "vllm", "sglang",
    "sglang-disagg", "slurm_multi",
})  # fmt: skip
ALIASES = {"sglang_disagg": "sglang-disagg", "slurm-multi": "slurm_multi"}


def launcher_named(inputs: RunInputs, card: ModelCard | None) -> str:
    """The launcher that is asked for, by its usual name; "" for none or one that nobody knows."""
    by_card = str(card.distributed.get("launcher") or "") if card else ""
    said = inputs.context.launcher or by_card or inputs.environ.get("MAD_LAUNCHER", "")
    name = ALIASES.get(said, said)
    return name if name in KNOWN else ""


def launcher_column(inputs: RunInputs, card: ModelCard | None, *, docker: bool) -> str:
    """The value of the column."""
    return launcher_named(inputs, card) or ("docker" if docker else "process")
